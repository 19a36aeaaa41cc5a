"""The reader of disassembled kernels, on short programs whose figures are counted by hand."""

import pytest

from inpaint_ops.benchmarks.gpu import disassembly
from inpaint_ops.benchmarks.gpu.disassembly import Loop, main_loop, of_amdgcn, of_sass


def sass(lines):
    """A listing as cuobjdump prints it: addresses of 16 bytes, the encoding behind the text."""
    text = "\tcode for sm_90a\n\t\tFunction : kernel\n"
    for index, line in enumerate(lines.strip().splitlines()):
        text += f"        /*{16 * index:04x}*/   {line.strip():<40} /* 0x000000ff00047b82 */\n"
        text += f"{'':50}/* 0x000fe20000000800 */\n"
    return text


# Two loops, one in the other; the inner one multiplies, waits at two barriers, and jumps out of
# line to wait for a copy.
HOPPER = """
S2R R0, SR_TID.X ;
@P0 EXIT ;
IMAD R1, R0, 0x4, RZ ;
BAR.SYNC.DEFER_BLOCKING 0x0 ;
DEPBAR.LE SB0, 0x2 ;
@!P1 BRA 0x100 ;
BAR.SYNC.DEFER_BLOCKING 0x0 ;
HGMMA.64x64x16.F32.BF16 R56, gdesc[UR8], R56 ;
HGMMA.64x64x16.F32.BF16 R56, gdesc[UR8], R56, gsb0 ;
@!UP0 UIADD3 UR4, UR4, 0x1, URZ ;
BAR.SYNC.DEFER_BLOCKING 0x0 ;
@!P0 BRA 0x40 ;
IADD3 R9, R9, 0x1, RZ ;
@P2 BRA 0x30 ;
STG.E.128 desc[UR4][R2.64], R4 ;
EXIT ;
SYNCS.PHASECHK.TRANS64.TRYWAIT P1, [UR4], R3 ;
@!P1 BRA 0x100 ;
BRA 0x60 ;
BRA 0x130;
NOP ;
NOP ;
"""


def test_the_innermost_loop_with_products_is_read():
    code = of_sass(sass(HOPPER))
    assert [one.opcode for one in code[-2:]] == ["BRA", "BRA"]
    assert len(code) == 20
    # 8 in line, 3 out of line. 2 x 64 x 64 x 16 products by 4 warps at 512 a cycle.
    assert main_loop(code, "sm_90") == Loop(slots=11, cycles=64, barriers=2)


def test_notes_on_scheduling_are_passed_over():
    noted = HOPPER.replace(" ;", "    &req={1} &wr=0x1    ?trans8;").replace("130;", "130 ?trans1;")
    assert of_sass(sass(noted)) == of_sass(sass(HOPPER))


@pytest.mark.parametrize(
    ("line", "arch", "warps", "cycles"),
    [
        ("HMMA.16816.F32.BF16 R4, R8, R12, R4 ;", "sm_80", 4, 8),
        ("HMMA.1688.F32.TF32 R4, R8, R12, R4 ;", "sm_80", 4, 8),
        ("HMMA.16816.F32 R4, R8, R12, R4 ;", "sm_120", 4, 16),
        ("HGMMA.64x32x8.F32.TF32 R4, gdesc[UR8], R4 ;", "sm_90", 4, 16),
        ("UTCHMMA gdesc[UR10], gdesc[UR12], tmem[UR4] ;", "sm_100", 4, 32),
        ("UTCHMMA gdesc[UR10], gdesc[UR12], tmem[UR4] ;", "sm_100", 8, 16),
        ("FFMA R4, R5, R6, R4 ;", "sm_90", 4, 0),
    ],
)
def test_cycles_of_each_matrix_instruction(line, arch, warps, cycles):
    code = of_sass(sass(f"S2R R0, SR_TID.X ;\n{line}\n@P0 BRA 0x10 ;\nEXIT ;\nBRA 0x40;"))
    assert main_loop(code, arch, warps, columns=64) == Loop(2, cycles, 0)


def test_the_longest_loop_where_nothing_multiplies():
    loops = "IADD3 R1, R1, 0x1, RZ ;\n@P0 BRA 0x0 ;\n" + "FADD R2, R2, R3 ;\n" * 3
    loops += "BAR.RED.POPC.DEFER_BLOCKING 0x0, P1 ;\n@P0 BRA 0x20 ;\nEXIT ;\nBRA 0x80;"
    assert main_loop(of_sass(sass(loops)), "sm_90") == Loop(5, 0, 1)
    assert main_loop(of_sass(sass("S2R R0, SR_TID.X ;\nEXIT ;")), "sm_90") is None


AMD = """
kernel:                                 ; @kernel
; %bb.0:
\ts_load_dwordx4 s[8:11], s[0:1], 0x0
\ts_cbranch_scc1 .LBB0_4
.LBB0_2:                                ; =>This Inner Loop Header: Depth=1
\tglobal_load_dwordx4 v[2:5], v[0:1], off
\ts_waitcnt vmcnt(0)
\ts_barrier
\tv_mfma_f32_32x32x8_bf16_1k a[0:15], v[2:3], v[4:5], a[0:15]
\tv_mfma_f32_16x16x4_f32 a[0:3], v2, v3, a[0:3]
\ts_cbranch_vccnz .LBB0_2
\ts_branch .LBB0_4
.LBB0_4:
\ts_endpgm
\t.vgpr_count:     66
"""


def test_amd():
    code = of_amdgcn(AMD)
    assert len(code) == 10
    # 32 cycles for the first, as for the second, whose 1024 products of float32 take eight times.
    assert main_loop(code, "gfx942") == Loop(6, 64, 1)


def test_every_chip_has_a_rate():
    from inpaint_ops.benchmarks.gpu import compile

    assert set(disassembly.RATES) == set(compile.EVERY)
