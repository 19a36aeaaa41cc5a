"""Results of many pages ask the system for large ones."""

import sys
from pathlib import Path

import pytest
import torch

from inpaint_ops import fused_conv2d
from inpaint_ops.ops import native

_LARGE = 2 << 20
_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")

pytestmark = [
    pytest.mark.skipif(not native.status().available, reason="needs the extension"),
    pytest.mark.skipif(
        sys.platform != "linux" or not _SETTING.exists(), reason="needs Linux with large pages"
    ),
]


def flags_at(address):
    """Return the flags of the mapping that holds an address."""
    holds = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            begin, end = (int(part, 16) for part in first.split("-"))
            holds = begin <= address < end
        elif holds and first == "VmFlags:":
            return line.split()[1:]
    return []


def middle(tensor):
    """Return an address inside the whole large pages of a tensor."""
    return (tensor.data_ptr() + tensor.numel() * 2) // _LARGE * _LARGE


def test_results_and_gradients_of_weights():
    x = torch.randn(1, 4, 512, 512)
    weight = torch.randn(40, 4, 3, 3)
    assert "hg" in flags_at(middle(fused_conv2d(x, weight, padding=1)))
    x = torch.randn(1, 512, 8, 8)
    weight = torch.randn(512, 512, 5, 5, requires_grad=True)
    (grad,) = torch.autograd.grad(fused_conv2d(x, weight, padding=2).sum(), weight)
    assert "hg" in flags_at(middle(grad))
