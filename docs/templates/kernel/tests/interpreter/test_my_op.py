"""my_op's GPU kernel against the reference, in Triton's interpreter."""

import pytest
import torch
from support import check_close

import inpaint_ops
from inpaint_ops import ops, reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 33, 35), (0, 3, 4, 4)], ids=str)
def test_matches_reference(shape, dtype):
    """Results and the layout of channels_last images."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(shape[1], generator=generator).to(dtype)
    with inpaint_ops.backend("triton"):
        y = ops.my_op(x, weight, factor=0.5)
    check_close(y, reference.my_op(x.double(), weight.double(), factor=0.5))
    assert y.stride() == ops.my_op(x, weight, factor=0.5).stride()
