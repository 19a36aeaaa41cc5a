"""contextual_attention of some pixels: each has the bits of a whole computation."""

import importlib
import math

import pytest
import torch

from inpaint_ops.ops import native, tensors

needs_extension = pytest.mark.skipif(not native.status().available, reason="no CPU kernels")
pytestmark = needs_extension

# rate, scale, fuse, align_corners, sum_norm, exclude, count.
OPTIONS = {
    "fuse": (10.0, True, False, False, False, False),
    "plain": (10.0, False, False, False, False, False),
    "other": (0.5, True, True, True, True, True),
    "sharp": (100.0, False, False, False, False, False),
}
MAPS = ("none", "pixel", "corners", "box", "scattered", "sides", "but_one", "all")


def wanted_map(name, n, height, width, seed=0):
    """Pixels to compute, bytes (n, height, width); those of samples differ where they can."""
    wanted = torch.zeros(n, height, width, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(seed)
    for i, one in enumerate(wanted):
        if name == "pixel":
            one[(height // 2 + 3 * i) % height, (width // 3 + i) % width] = 1
        elif name == "corners":
            one[0, 0] = one[-1, -1] = 1
            one[-1, 0] = one[0, -1] = i
        elif name == "box":
            one[height // 3 + i : 2 * height // 3 + 1, width // 2 : width // 2 + 4 + i] = 1
        elif name == "scattered":
            one[torch.rand(height, width, generator=generator) < 0.06] = 1
        elif name == "sides":
            one[:, :: max(width - 1, 1)] = 1
        elif name in ("but_one", "all"):
            one[:] = 1
            one[height // 2, width // 2] = name == "all"
    return wanted


def attend(f, b, hole, rate, options, wanted=None, threads=1):
    """y, index, row_max, row_sum of the kernel, in memory that held NaN."""
    n, _, height, width = f.shape
    cells = (n, -(-height // rate), -(-width // rate))
    y = torch.full_like(f, math.nan)
    index = torch.full(cells, -1)
    row_max, row_sum = (torch.full(cells, math.nan, dtype=f.dtype) for _ in range(2))
    tensors.native().contextual_attention(
        f, b, hole, wanted, (rate, *options), y, index, row_max, row_sum, threads
    )
    return y, index, row_max, row_sum


def inputs(n, c, size, bg_size, rate, dtype, amplitude):
    generator = torch.Generator().manual_seed(3)
    f = torch.randn(n, c, *size, generator=generator, dtype=torch.float64) * amplitude
    b = torch.randn(n, c, *bg_size, generator=generator, dtype=torch.float64) * amplitude
    hb, wb = (-(-s // rate) for s in bg_size)
    hole = torch.zeros(n, hb, wb, dtype=torch.uint8)
    hole[:, hb // 3 : hb // 3 + 2, wb // 3 : wb // 3 + 2] = 1
    return f.to(dtype), b.to(dtype), hole


def bits(x):
    return x.view({4: torch.int32, 8: torch.int64}[x.element_size()])


def queries_of(wanted, rate):
    """Cells whose patches of 2 rate x 2 rate pixels hold a wanted pixel."""
    n, height, width = wanted.shape
    h, w = -(-height // rate), -(-width // rate)
    before = rate // 2
    padded = torch.zeros(n, (h + 1) * rate, (w + 1) * rate)
    padded[:, before : before + height, before : before + width] = wanted
    return torch.nn.functional.max_pool2d(padded[:, None], 2 * rate, rate)[:, 0].bool()


def check_equal_bits(whole, part, wanted, rate):
    """Wanted pixels, and the other results of the queries that they need."""
    y, *others = part
    wanted = wanted.expand(y.shape[0], -1, -1)
    pixels = wanted[:, None].bool().expand_as(y)
    assert torch.equal(bits(y)[pixels], bits(whole[0])[pixels])
    queries = queries_of(wanted, rate)
    for one, other in zip(others, whole[1:]):
        assert torch.equal(bits(one)[queries], bits(other)[queries])


def fill_scratch_with_nan(f, b, rate, options):
    """Memory that the kernels keep between calls then shows where it is read before written."""
    attend(torch.full_like(f, math.nan), torch.full_like(b, math.nan), None, rate, options)


# Of several rows of cells more than a ring of strips holds some, and of several columns more than a
# part of the paste holds; in float64 the last is cut into windows.
SHAPES = [
    (2, 5, (13, 9), (14, 10), 2, 0.3),
    (2, 3, (11, 21), (9, 6), 1, 1.0),
    (2, 3, (30, 18), (22, 26), 4, 0.4),
    (1, 3, (57, 61), (12, 22), 2, 1.0),
    (1, 2, (21, 40), (6, 9), 1, 3.0),
    (2, 17, (36, 32), None, 2, 0.3),
    (1, 9, (62, 66), None, 1, 0.5),
]


def case_of(shape, dtype):
    n, c, size, bg_size, rate, amplitude = shape
    f, b, hole = inputs(n, c, size, bg_size or size, rate, dtype, amplitude)
    return f, (b if bg_size else f), hole, rate


@pytest.mark.parametrize("options", ["fuse", "plain", "other"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
def test_wanted_pixels_have_the_bits_of_the_whole(shape, dtype, options):
    f, b, hole, rate = case_of(shape, dtype)
    chosen = OPTIONS[options]
    whole = attend(f, b, hole, rate, chosen)
    assert not whole[0].isnan().any()
    fill_scratch_with_nan(f, b, rate, chosen)
    for threads, name in enumerate(MAPS):
        wanted = wanted_map(name, f.shape[0], *f.shape[2:])
        part = attend(f, b, hole, rate, chosen, wanted, threads % 3 + 1)
        check_equal_bits(whole, part, wanted, rate)
        shared = wanted[:1]
        check_equal_bits(whole, attend(f, b, hole, rate, chosen, shared), shared, rate)


@pytest.mark.parametrize("shape", [SHAPES[0], SHAPES[3], SHAPES[5]], ids=str)
def test_wanted_pixels_in_every_instruction_set(shape, instruction_set):
    assert native.status().instruction_set == instruction_set
    for dtype in (torch.float32, torch.float64):
        test_wanted_pixels_have_the_bits_of_the_whole(shape, dtype, "fuse")


@pytest.mark.parametrize("options", ["fuse", "plain"])
@pytest.mark.parametrize("height", [3, 13], ids=["all_rows", "ring"])
def test_wanted_pixels_in_windows_of_columns(height, options):
    """So many keys that the columns of queries are cut, and a block lies in two windows."""
    f, b, hole = inputs(1, 2, (height, 61), (140, 264), 1, torch.float64, 1.0)
    chosen = OPTIONS[options]
    whole = attend(f, b, hole, 1, chosen)
    for name in ("pixel", "box", "scattered"):
        wanted = wanted_map(name, 1, height, 61)
        check_equal_bits(whole, attend(f, b, hole, 1, chosen, wanted), wanted, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf], ids=str)
def test_values_that_are_not_finite(value):
    """They reach what lies in a tile with their own block, so tiles stay those of the whole."""
    f, b, hole, rate = case_of(SHAPES[3], torch.float32)
    wanted = wanted_map("scattered", 1, *f.shape[2:])
    pixels = wanted[:, None].bool().expand_as(f)
    # A pixel that stands for no cell, so that all scores are finite.
    finite = []
    for b[0, 1, 9, 19] in (0.0, 1.0, value):
        whole = attend(f, b, hole, rate, OPTIONS["sharp"])
        finite.append(whole[0])
    spoiled = ~whole[0].isfinite() & (finite[0] == finite[1])
    assert (spoiled & pixels).any()
    part = attend(f, b, hole, rate, OPTIONS["sharp"], wanted)
    check_equal_bits(whole, part, wanted, rate)


def test_queries_that_are_not_numbers_stay_among_themselves():
    f, b, hole, rate = case_of(SHAPES[3], torch.float32)
    f[0, 1, 8, 10] = math.nan
    whole = attend(f, b, hole, rate, OPTIONS["fuse"])
    for name in MAPS:
        wanted = wanted_map(name, 1, *f.shape[2:])
        pixels = wanted[:, None].bool().expand_as(f)
        y = attend(f, b, hole, rate, OPTIONS["fuse"], wanted)[0]
        assert torch.equal(y.isnan()[pixels], whole[0].isnan()[pixels])
        known = pixels & ~y.isnan()
        assert torch.equal(bits(y)[known], bits(whole[0])[known])


def test_sums_that_are_too_small_to_hold_have_one_sign():
    """Products that round to minus zero, and neighbours in a tile that would add plus zero."""
    f = torch.zeros(1, 2, 8, 16)
    b = torch.zeros(1, 2, 32, 8)
    # Queries to the left are far less unlike the keys above, those to the right those below: of
    # the others' weights nothing is left. A missing key, which counts as a score of 0, makes all
    # weights small.
    f[0, :, :, :10] = torch.tensor([-1.0, -8.0])[:, None, None]
    f[0, :, :, 10:] = torch.tensor([-8.0, -1.0])[:, None, None]
    b[0, 0, :16:2, ::2] = b[0, 1, 16::2, ::2] = 1
    hole = torch.zeros(1, 16, 4, dtype=torch.uint8)
    hole[0, 0, 0] = 1
    # Pixels that stand for no cell.
    b[0, :, :24, 1::2] = -torch.finfo(torch.float32).tiny
    b[0, :, 24:, 1::2] = torch.finfo(torch.float32).tiny
    whole = attend(f, b, hole, 2, OPTIONS["plain"])
    assert (whole[0] == 0).any()
    for x in range(16):
        wanted = torch.zeros(1, 8, 16, dtype=torch.uint8)
        wanted[:, 3, x] = 1
        check_equal_bits(whole, attend(f, b, hole, 2, OPTIONS["plain"], wanted), wanted, 2)


def test_what_no_wanted_pixel_needs_is_not_written():
    """The cost follows what is wanted: nothing is pasted, and no softmax taken, elsewhere."""
    f, b, hole, rate = case_of(SHAPES[3], torch.float32)
    for name in ("none", "pixel", "box"):
        wanted = wanted_map(name, 1, *f.shape[2:])
        y, index, row_max, row_sum = attend(f, b, hole, rate, OPTIONS["fuse"], wanted)
        queries = queries_of(wanted, rate)
        assert torch.equal(index >= 0, queries)
        assert torch.equal(~row_max.isnan(), queries)
        assert torch.equal(~row_sum.isnan(), queries)
        written = ~y.isnan().any(1)
        # Whole blocks of rate x rate pixels.
        near = torch.nn.functional.max_pool2d(wanted.float(), 2 * rate - 1, 1, rate - 1).bool()
        assert not (written & ~near).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_operator_hands_on_what_is_wanted(dtype, memory_format):
    operator = importlib.import_module("inpaint_ops.ops.contextual_attention")
    f, b, hole, rate = case_of(SHAPES[0], torch.float32)
    f, b = (x.to(dtype, memory_format=memory_format) for x in (f, b))
    arguments = (f, b, hole[:, None], rate, 10.0, True, "floor", "max", "zero", "constant")
    wanted = wanted_map("box", 2, *f.shape[2:])
    whole, index, *_ = operator._cpu(*arguments)
    part, some, *_ = operator._cpu(*arguments, wanted=wanted)
    pixels = wanted[:, None].bool().expand_as(f)
    assert torch.equal(part[pixels], whole[pixels])
    queries = queries_of(wanted, rate)
    assert torch.equal(some[queries], index[queries])
    assert part.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize(
    ("wanted", "rule"),
    [
        (torch.ones(1, 57, 60, dtype=torch.uint8), "mask size"),
        (torch.ones(3, 57, 61, dtype=torch.uint8), "mask batch"),
        (torch.ones(1, 61, 57, dtype=torch.uint8).mT, "mask must be packed"),
    ],
    ids=["size", "batch", "order"],
)
def test_memory_is_guarded(wanted, rule):
    f, b, hole, rate = case_of(SHAPES[3], torch.float32)
    with pytest.raises(ValueError, match=rule):
        attend(f, b, hole, rate, OPTIONS["fuse"], wanted)
