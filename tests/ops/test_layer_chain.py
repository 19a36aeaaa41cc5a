"""Layers in a row: what none of them can show alone."""

import math

import pytest
import torch

from inpaint_ops import FusedConv2d, FusedConvTranspose2d, GatedConv2d, PartialConv2d


class Chain(torch.nn.Module):
    """Every kind of convolution layer once, through every algorithm."""

    def __init__(self):
        super().__init__()
        self.partial = PartialConv2d(3, 16, 7, stride=2, padding=3, return_mask=True)
        self.deeper = PartialConv2d(16, 24, 3, padding=1, return_mask=True)
        self.rest = torch.nn.Sequential(
            GatedConv2d(24, 12, 5, padding=2, padding_mode="reflect"),
            GatedConv2d(12, 24, 3, stride=2, padding=1),
            GatedConv2d(24, 24, 3, padding=2, dilation=2),
            FusedConv2d(24, 32, 4, stride=2, padding=1, activation="leaky_relu"),
            FusedConv2d(32, 32, 1, activation="relu"),
            FusedConvTranspose2d(32, 24, 4, 2, 1, activation="relu"),
            GatedConv2d(24, 12, 3, padding=1, upsample=2),
            FusedConv2d(12, 3, 3, padding=1, activation="tanh"),
        )

    def forward(self, x, valid):
        x, valid = self.partial(x, valid)
        x, valid = self.deeper(x, valid)
        return self.rest(x)


def large_copies(run, smallest):
    """Shapes that were copied, and how many buffers were made, in one run after a first."""
    run()
    with torch.profiler.profile(record_shapes=True) as profile:
        run()
    events = [e for e in profile.events() if e.input_shapes]
    copies = [e for e in events if e.name in ("aten::copy_", "aten::clone", "aten::contiguous")]
    assert any(e.name == "aten::empty" for e in profile.events())
    return [(e.name, e.input_shapes[0]) for e in copies if math.prod(e.input_shapes[0]) >= smallest]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format], ids=str)
def test_a_chain_copies_no_image(memory_format):
    chain = Chain()
    x = torch.randn(1, 3, 64, 64).contiguous(memory_format=memory_format)
    valid = torch.ones(1, 1, 64, 64)
    valid[..., 20:40, 20:40] = 0
    with torch.no_grad():
        y = chain(x, valid)
        assert y.shape == (1, 3, 32, 32)
        assert y.is_contiguous(memory_format=memory_format)
        # The smallest image between the layers; `contiguous` without a copy makes no copy_.
        assert large_copies(lambda: chain(x, valid), 24 * 8 * 8) == []
