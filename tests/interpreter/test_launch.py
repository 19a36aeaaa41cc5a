"""Launching of Triton kernels: what is refused before it can read wild addresses."""

import pytest
import torch

from inpaint_ops.kernels import launch
from inpaint_ops.kernels.convolution import epilogue


def _finish(product, **options):
    y = torch.empty(1, 1, 3, 8).permute(0, 3, 1, 2)
    epilogue.finish(product, None, y, kind=epilogue.PLAIN, **options)
    return y


def test_a_kernel_runs_and_unaligned_memory_is_refused():
    memory = torch.arange(25.0)
    product = memory[:24].view(1, 1, 3, 8).permute(0, 3, 1, 2)
    assert torch.equal(_finish(product), product)
    shifted = memory[1:].view(1, 1, 3, 8).permute(0, 3, 1, 2)
    with pytest.raises(ValueError, match="product_ptr must start at a multiple of 16 bytes"):
        _finish(shifted)
    assert torch.equal(_finish(launch.aligned(shifted)), shifted)
    assert launch.aligned(product) is product


def test_only_budgeted_rows_and_values_run():
    product = torch.zeros(1, 1, 3, 8).permute(0, 3, 1, 2)
    arguments = dict.fromkeys(epilogue.EPILOGUE.pointers)
    arguments |= {"product_ptr": product, "rows": 3, "units": 2, "plane_rows": 3}
    arguments |= {"KIND": epilogue.PLAIN, "ACT": 0, "HAS_BIAS": False, "KEEP": False}
    with pytest.raises(LookupError, match="has no row 'huge' for sm_80"):
        epilogue.EPILOGUE("huge", (1,), **arguments)
    with pytest.raises(LookupError, match="KIND=7 has no compile budget"):
        epilogue.EPILOGUE("fp32", (1,), **arguments | {"KIND": 7})
    with pytest.raises(TypeError, match=r"product_ptr must be \*T of half, got torch.float32"):
        epilogue.EPILOGUE("half", (1,), **arguments)
    for wrong in ({"rows": 2**31}, {"plane_rows": 2**33}):
        with pytest.raises(ValueError, match=r"conv_epilogue_fwd: sizes must be at most \d+ and a"):
            epilogue.EPILOGUE("fp32", (1,), **arguments | wrong)
    with pytest.raises(ValueError, match=r"a grid at most .* and \(1, 65536\)"):
        epilogue.EPILOGUE("fp32", (1, 65536), **arguments)


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (1, 8, 1, 1), (0, 8, 2, 2), (2, 1, 3, 3)], ids=str)
def test_channels_last_pads_and_copies_only_where_needed(shape):
    x = torch.randn(shape)
    got = launch.channels_last(x, 4)
    channels = shape[1]
    assert got.shape[1] % 4 == 0
    assert got.permute(0, 2, 3, 1).is_contiguous()
    assert torch.equal(got[:, :channels], x)
    assert not got[:, channels:].any()
    assert launch.channels_last(got, 4) is got
