"""Main loop of a compiled kernel, read from its disassembly.

A processor issues one instruction a cycle from the warps of a scheduler, whatever its kind. So a
loop is bound by its matrix units only if a warp has fewer instructions in it, its issue slots, than
the matrix units take cycles for their part. Both are counted here, and the barriers at which all
warps of a program wait for the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Products of half-precision factors, summed in float32, that the matrix unit of one scheduler forms
# in a cycle. From data sheets: operations a second / 2 / clock / multiprocessors / 4.
RATES = {
    "sm_80": 256,
    "sm_86": 128,
    "sm_89": 128,
    "sm_90": 512,
    "sm_100": 1024,
    "sm_120": 128,
    "gfx942": 256,
}
_MATRIX = r"HMMA|HGMMA|UTC\w*MMA|OMMA|QMMA|v_mfma"
_BARRIER = r"BAR\.|s_barrier$"
_ENDS = r"EXIT|RET|BRX|JMX|KILL|s_endpgm|s_setpc"


@dataclass(frozen=True)
class Instruction:
    """One instruction: opcode, index of the one that it may jump to, and if it always leaves."""

    opcode: str
    target: int | None = None
    leaves: bool = False


@dataclass(frozen=True)
class Loop:
    """Figures of one pass of a loop, for one warp.

    `slots` counts instructions, `cycles` those of a matrix unit for the warp's part of the
    products, `barriers` those of the program.
    """

    slots: int
    cycles: int
    barriers: int


def of_sass(listing: str) -> list[Instruction]:
    """Instructions of `cuobjdump -sass`, without those that pad the end.

    Some releases print how an instruction is scheduled behind it: "&wr=0x1 ?trans8".
    """
    pattern = r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z][\w.]*)([^;&?]*)[^;]*;"
    found = [
        (int(at, 16), guard, opcode, rest)
        for at, guard, opcode, rest in re.findall(pattern, listing)
        if opcode != "NOP"
    ]
    places = {at: index for index, (at, *_) in enumerate(found)}
    result = []
    for at, guard, opcode, rest in found:
        target = re.search(r"0x([0-9a-f]+)\s*$", rest) if re.match(r"BRA|JMP", opcode) else None
        to = places.get(int(target.group(1), 16)) if target else None
        # A branch may name its predicate among its arguments too; the last one jumps to itself.
        always = not guard and not re.match(r"\s*!?U?P\d", rest)
        result.append(Instruction(opcode, to, always and (to is not None or _leaves(opcode))))
        if to is not None and found[to][0] == at and always:
            break
    return result


def of_amdgcn(text: str) -> list[Instruction]:
    """Instructions of the assembly that the compiler writes for AMD's processors."""
    lines: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for line in text.splitlines():
        if label := re.match(r"(\.?\w+):", line):
            labels[label.group(1)] = len(lines)
        elif found := re.match(r"\s+([svdgb]\w+)\s*([^;]*)", line):
            lines.append((found.group(1), found.group(2).strip()))
    return [
        Instruction(
            opcode,
            labels.get(rest) if re.match(r"s_c?branch", opcode) else None,
            opcode == "s_branch" or _leaves(opcode),
        )
        for opcode, rest in lines
    ]


def _leaves(opcode: str) -> bool:
    return re.match(_ENDS, opcode) is not None


def main_loop(
    code: Sequence[Instruction], arch: str, warps: int = 4, columns: int = 0
) -> Loop | None:
    """The innermost loop with most matrix instructions, else the longest innermost one.

    Args:
        code: the program.
        arch: key of `RATES`.
        warps: of a program.
        columns: of its product; sm_100's matrix instruction does not say its size.

    Returns:
        None if there is no loop.
    """
    loops = _natural_loops(code)
    multiply = [loop for loop in loops if _count(code, loop, _MATRIX)]
    chosen = multiply or loops
    innermost = [loop for loop in chosen if not any(other < loop for other in chosen)]
    if not innermost:
        return None
    best = max(innermost, key=lambda loop: (_count(code, loop, _MATRIX), len(loop)))
    products = sum(_products(code[index].opcode, warps, columns) for index in best)
    return Loop(len(best), -(-products // RATES[arch]), _count(code, best, _BARRIER))


def _count(code: Sequence[Instruction], loop: Iterable[int], pattern: str) -> int:
    return sum(re.match(pattern, code[index].opcode) is not None for index in loop)


def _products(opcode: str, warps: int, columns: int) -> int:
    """Products that an instruction adds for a warp, as many as half precision has in its time."""
    if found := re.match(r"HGMMA\.(\d+)x(\d+)x(\d+)", opcode):
        m, n, k = map(int, found.groups())
        return m * n * k // 4 * (2 if "TF32" in opcode else 1)
    if found := re.match(r"HMMA\.(16)(8)(\d+)", opcode):
        m, n, k = map(int, found.groups())
        return m * n * k * (2 if "TF32" in opcode else 1)
    if found := re.match(r"v_mfma_f32_(\d+)x(\d+)x(\d+)_?(\w*)", opcode):
        m, n, k = (int(size) for size in found.groups()[:3])
        # XF32 takes twice the time of half precision, float32 eight times.
        name = found.group(4)
        return m * n * k * (2 if "xf32" in name else 8 if name == "f32" else 1)
    if opcode.startswith("UTCHMMA"):
        # One thread issues it for the program. Sixty-four rows take as long as 128. A product of
        # TF32, half as deep, takes the same time: the opcode does not tell the two apart.
        return 128 * columns * 16 // warps
    return 0


def _natural_loops(code: Sequence[Instruction]) -> list[frozenset[int]]:
    """Sets of indices of the instructions of each loop, one for each entry.

    A jump back to an instruction that every way to the jump passes closes a loop. What lies out of
    line, a wait behind the end of the program, belongs to no loop by its place alone.
    """
    starts, following = _blocks(code)
    preceding: list[list[int]] = [[] for _ in starts]
    for block, after in enumerate(following):
        for to in after:
            preceding[to].append(block)
    dominators = _dominators(following, preceding)
    loops: dict[int, set[int]] = {}
    for block, after in enumerate(following):
        for entry in after:
            if dominators[block] >> entry & 1:
                body = loops.setdefault(entry, {entry})
                open_blocks = [block]
                while open_blocks:
                    one = open_blocks.pop()
                    if one not in body:
                        body.add(one)
                        open_blocks += preceding[one]
    ends = [*starts[1:], len(code)]
    return [
        frozenset(index for block in body for index in range(starts[block], ends[block]))
        for body in loops.values()
    ]


def _blocks(code: Sequence[Instruction]) -> tuple[list[int], list[list[int]]]:
    """First instruction of each stretch without jumps, and the stretches that may follow it."""
    firsts = {0}
    for index, one in enumerate(code):
        if one.target is not None:
            firsts.add(one.target)
        if one.target is not None or one.leaves:
            firsts.add(index + 1)
    starts = sorted(first for first in firsts if first < len(code))
    number = {start: block for block, start in enumerate(starts)}
    following = []
    for end in [*starts[1:], len(code)]:
        last = code[end - 1]
        after = [] if last.target is None else [number[last.target]]
        if not last.leaves and end < len(code):
            after.append(number[end])
        following.append(after)
    return starts, following


def _dominators(following: list[list[int]], preceding: list[list[int]]) -> list[int]:
    """For each block the set of blocks on every way to it, as bits; 0 where no way leads."""
    reached, open_blocks = {0}, [0]
    while open_blocks:
        for to in following[open_blocks.pop()]:
            if to not in reached:
                reached.add(to)
                open_blocks.append(to)
    every = (1 << len(following)) - 1
    result = [every if block in reached else 0 for block in range(len(following))]
    result[0] = 1
    changed = True
    while changed:
        changed = False
        for block in sorted(reached - {0}):
            meet = every
            for before in preceding[block]:
                if before in reached:
                    meet &= result[before]
            meet |= 1 << block
            changed |= meet != result[block]
            result[block] = meet
    return result
