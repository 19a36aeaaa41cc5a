"""Tensors of more than 2**31 elements, of which all but a few rows stay untouched memory."""

import pytest
import torch

from inpaint_ops.kernels.convolution.epilogue import EPILOGUE, GATED
from inpaint_ops.kernels.convolution.epilogue_backward import EPILOGUE_BACKWARD
from inpaint_ops.kernels.convolution.fused import Counting, Reading, Window, call, run
from inpaint_ops.kernels.convolution.select import SELECT
from inpaint_ops.kernels.matching.search import search
from inpaint_ops.kernels.program import cdiv
from inpaint_ops.kernels.shift_connection import ADD_BACK, MOVE

_ROWS, _CHANNELS = 2**19 + 1, 4096


@pytest.fixture(autouse=True)
def _untouched(monkeypatch):
    # The interpreter copies arguments from and to the device, here onto themselves.
    path = "triton.runtime.interpreter.GridExecutor._restore_args_dev"
    monkeypatch.setattr(path, lambda *arguments: None)


@pytest.fixture
def x():
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


@pytest.fixture
def last(monkeypatch):
    """Of many programs along an axis of the grid only the last runs."""

    def programs(*bounds):
        every = range(*bounds)
        return every[-1:] if len(bounds) == 1 and len(every) > 1000 else every

    monkeypatch.setattr("triton.runtime.interpreter.range", programs, raising=False)


def image(channels, rows=_ROWS):
    """Rows of channels, of which the first and the last hold numbers."""
    x = torch.empty(rows, channels, dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(channels)
    for row in (0, rows - 1):
        x[row] = torch.randn(channels, generator=generator).bfloat16()
    return x


def blocks(kernel, rows, channels):
    row = kernel.row("half", "sm_80").constexprs
    return cdiv(rows, row["BLOCK_M"]), cdiv(channels, row["BLOCK_C"])


def check_last(y, expected):
    torch.testing.assert_close(y[-1].float(), expected, rtol=2e-2, atol=2e-2)


def test_the_pass_after_a_product(last):
    product, y = image(2 * _CHANNELS), torch.empty(_ROWS, _CHANNELS, dtype=torch.bfloat16)
    EPILOGUE(
        "half",
        blocks(EPILOGUE, _ROWS, _CHANNELS),
        product_ptr=product,
        bias_ptr=None,
        mask_ratio_ptr=None,
        update_mask_ptr=None,
        y_ptr=y,
        rows=_ROWS,
        units=_CHANNELS // 8,
        plane_rows=_ROWS,
        KIND=GATED,
        ACT=0,
        HAS_BIAS=False,
        KEEP=False,
    )
    features, gates = product[-1].float().chunk(2)
    check_last(y, features * gates.sigmoid())


def test_the_pass_before_the_products_of_gradients(last):
    saved, grad = image(2 * _CHANNELS), image(_CHANNELS)
    grad_sums = torch.empty_like(saved)
    programs, columns = blocks(EPILOGUE_BACKWARD, _ROWS, _CHANNELS)
    sums = torch.empty(programs, 2 * _CHANNELS)
    EPILOGUE_BACKWARD(
        "half",
        (programs, columns),
        grad_ptr=grad,
        saved_ptr=saved,
        mask_ratio_ptr=None,
        update_mask_ptr=None,
        grad_pre_activation_ptr=grad_sums,
        bias_sums_ptr=sums,
        rows=_ROWS,
        units=_CHANNELS // 8,
        plane_rows=_ROWS,
        blocks=programs,
        KIND=GATED,
        ACT=0,
    )
    features, gates = saved[-1].float().chunk(2)
    s = gates.sigmoid()
    expected = torch.cat([s, features * s * (1 - s)]) * grad[-1].float().repeat(2)
    check_last(grad_sums, expected)
    check_last(sums, expected)


@pytest.mark.parametrize("every", [False, True], ids=["one plane", "planes"])
def test_the_product_with_a_mask(last, every):
    """With a plane for each channel the mask has as many values as the image."""
    x, y = image(_CHANNELS), torch.empty(_ROWS, _CHANNELS, dtype=torch.bfloat16)
    parts = _CHANNELS if every else 1
    valid = torch.empty(parts, _ROWS, dtype=torch.uint8)
    valid[:, -1] = torch.arange(parts) % 2 if every else 1
    SELECT(
        "half",
        blocks(SELECT, _ROWS, _CHANNELS),
        x_ptr=x,
        bytes_ptr=valid,
        soft_ptr=None,
        y_ptr=y,
        rows=_ROWS,
        units=_CHANNELS // 8,
        first_unit=0,
        width_units=_CHANNELS // 8,
        pixels=_ROWS,
        parts=parts,
        part=0,
        valid_batch=1,
        SOFT=False,
        EVERY=every,
    )
    check_last(y, x[-1].float() * valid[:, -1])


def test_features_that_move(last):
    """The last position takes the first one's features, and gives it its gradient."""
    x, y = image(_CHANNELS), torch.empty(_ROWS, _CHANNELS, dtype=torch.bfloat16)
    index = torch.empty(_ROWS, dtype=torch.int64)
    index[-8:] = torch.tensor([-1] * 6 + [_ROWS - 1, 0])
    MOVE(
        "half",
        (cdiv(_ROWS, 32), cdiv(_CHANNELS, 64), 1),
        decoder_ptr=x,
        encoder_ptr=x,
        out_ptr=y,
        index_ptr=index,
        channels=_CHANNELS,
        positions=_ROWS,
        units=_CHANNELS // 8,
        CHANNELS_LAST=True,
        CONCATENATE=False,
    )
    check_last(y, x[0].float())
    begin = torch.empty(_ROWS + 1, dtype=torch.int64)
    begin[-2:] = torch.tensor([_ROWS - 1, _ROWS])
    order = index  # of which the last is 0: what it took goes to the last position
    ADD_BACK(
        "half",
        (_ROWS, cdiv(_CHANNELS, 128), 1),
        grad_ptr=x,
        order_ptr=order,
        begin_ptr=begin,
        out_ptr=y,
        positions=_ROWS,
        units=_CHANNELS // 8,
        gradient_scale=2.0,
    )
    check_last(y, 2 * x[0].float())


def test_patches_far_apart():
    """Of an image's pixels two are keys: the query, the last, is nearest to itself."""
    x = image(_CHANNELS).view(1, _ROWS, 1, _CHANNELS).permute(0, 3, 1, 2)
    ends = torch.tensor([0, _ROWS - 1], dtype=torch.int32)
    norms = x[0, :, ends.long(), 0].float().norm(dim=0)[None]
    for keys in (ends, ends.flip(0)):
        factors = (norms if keys is ends else norms.flip(1)).reciprocal()
        index, score = search(
            x, x, ends[1:], keys, None, None, None, factors, patch_size=1, cosine=True
        )
        assert keys[index[0, 0]] == _ROWS - 1
        torch.testing.assert_close(score[0, 0], norms[0, 1], rtol=2e-2, atol=0.0)
