"""Weights in the form that the kernels read: the same from any layout, by any number of threads."""

import pytest
import torch

from inpaint_ops.ops import native

pytestmark = pytest.mark.skipif(not native.status().available, reason="needs the extension")

WIDTHS = {"baseline": 4, "avx2": 8, "avx512_shaped": 16, "avx512": 16}
LAYOUTS = {
    "contiguous": lambda w: w,
    "channels_last": lambda w: w.contiguous(memory_format=torch.channels_last),
    "filters and channels exchanged": lambda w: w.transpose(0, 1).contiguous().transpose(0, 1),
    "channels of a larger weight": lambda w: torch.cat((w, w), 1)[:, w.shape[1] :],
    "taps of a larger weight": lambda w: torch.cat((w, w), 3)[..., w.shape[3] :],
    "every other channel": lambda w: w.repeat_interleave(2, 1)[:, ::2],
    "kernel turned on its side": lambda w: w.transpose(2, 3).contiguous().transpose(2, 3),
    "filters innermost": lambda w: w.permute(1, 2, 3, 0).contiguous().permute(3, 0, 1, 2),
}
# algorithm, stride, gated, flipped, step, padding
FORMS = {
    "direct": ("direct", (1, 1), False, False, 0, (0, 0)),
    "direct, gated": ("direct", (1, 1), True, False, 0, (0, 0)),
    "direct, for a gradient": ("direct", (1, 1), False, True, 0, (0, 0)),
    "direct, transposed": ("direct", (1, 1), False, False, 2, (1, 1)),
    "tiles": ("winograd_4x3", (1, 1), False, False, 0, (0, 0)),
    "tiles, gated": ("winograd_4x3", (1, 1), True, False, 0, (0, 0)),
    "tiles, stride 2": ("winograd_4x2", (2, 2), False, False, 0, (0, 0)),
    "tiles, for a gradient": ("winograd_4x3", (1, 1), False, True, 0, (0, 0)),
    "tiles, transposed": ("winograd_4x2", (1, 1), False, False, 2, (1, 1)),
}
SHAPES = [(6, 5, 3, 3), (40, 19, 4, 4), (18, 70, 5, 5), (34, 33, 2, 7)]


def packed(weight, form, threads=1):
    return torch.from_numpy(
        native.extension().pack_weight(weight, *form, threads=threads, spare=None)
    )


def draw(shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_layouts_give_equal_forms(shape, form, layout, instruction_set):
    weight = draw(shape)
    given = LAYOUTS[layout](weight)
    assert torch.equal(given, weight)
    expected = packed(weight, FORMS[form])
    assert torch.equal(packed(given, FORMS[form], threads=2), expected)


@pytest.mark.parametrize("shape", [(64, 96, 3, 3), (512, 352, 5, 5)], ids=str)
@pytest.mark.parametrize("kind", ["forward", "flipped"])
def test_direct_form_holds_the_taps(kind, shape, instruction_set):
    """(panel, tap, channel, lane); the second shape is one that is written past the caches."""
    weight = draw(shape)
    form = FORMS["direct" if kind == "forward" else "direct, for a gradient"]
    lanes = 2 * WIDTHS[instruction_set]
    taps = weight if kind == "forward" else weight.transpose(0, 1).flip(2, 3)
    expected = taps.flatten(2).unflatten(0, (-1, lanes)).permute(0, 3, 2, 1).flatten()
    assert torch.equal(packed(weight, form, threads=2), expected)


def test_tiles_written_past_the_caches_are_those_of_a_part(instruction_set):
    weight = draw((64, 2048, 3, 3))
    form = FORMS["tiles"]
    lanes = 2 * WIDTHS[instruction_set]
    whole = packed(weight, form, threads=2).view(64 // lanes, 36, 2048, lanes)
    part = packed(weight[:, 512:640], form).view(64 // lanes, 36, 128, lanes)
    assert whole.numel() > 1 << 22
    assert torch.equal(whole[:, :, 512:640], part)


def test_packed_memory_begins_at_a_line_of_the_cache():
    for shape in ((4, 3, 3, 3), (128, 128, 3, 3), (512, 512, 3, 3)):
        assert packed(draw(shape), FORMS["direct"]).data_ptr() % 64 == 0
