"""Convolutions of more than 2**31 elements, of which all but two rows stay untouched memory."""

import pytest
import torch

from inpaint_ops.kernels.convolution.fused import Counting, Reading, Window, call, run

_ROWS, _CHANNELS = 2**19 + 1, 4096


@pytest.fixture
def x(monkeypatch):
    # The interpreter copies arguments from and to the device, here onto themselves.
    path = "triton.runtime.interpreter.GridExecutor._restore_args_dev"
    monkeypatch.setattr(path, lambda *arguments: None)
    x = torch.empty(1, _ROWS, 1, _CHANNELS, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    for row in (0, _ROWS - 1):
        x[0, row, 0] = torch.randn(_CHANNELS, generator=generator).bfloat16()
    return x.permute(0, 3, 1, 2)


@pytest.mark.parametrize("mode", ["zeros", "replicate", "masked"])
@pytest.mark.parametrize("taps", [1, 2])
def test_offsets_have_64_bits(x, mode, taps):
    """The last row is read as the second pixel of a stride, or at the second tap of a dilation."""
    last = _ROWS - 1
    weight = torch.randn(1, 8, taps, 1, _CHANNELS, generator=torch.Generator().manual_seed(1))
    weight = weight.bfloat16()
    y = torch.zeros(1, 3 - taps, 1, 8, dtype=torch.bfloat16).permute(0, 3, 1, 2)
    padding = "zeros" if mode == "masked" else mode
    reading = Reading((taps, 1), (last, 1), dilation=(last, 1), padding_mode=padding)
    window = counting = None
    if mode == "masked":
        planes = torch.zeros(2, 1, 1, 3 - taps, 1)
        valid = torch.ones(1, 1, _ROWS, 1, dtype=torch.uint8)
        window = Window(valid, planes[0], planes[1].clone())
        counting = Counting(split=_CHANNELS, total=taps)
    row = "partial-small" if mode == "masked" else "plain-small"
    launch = call(x, tuple(x.shape), tuple(y.shape[1:]), reading, row, counting=counting)
    run(launch, x, weight, None, y, window=window)
    pixels = x[0, :, [0, last], 0].float().T
    products = torch.einsum("ktc,pc->tpk", weight[0, :, :, 0].float(), pixels)
    expected = products[0] if taps == 1 else (products[0, 0] + products[1, 1])[None]
    torch.testing.assert_close(y[0, :, :, 0].T.float(), expected, rtol=2e-2, atol=1.0)
