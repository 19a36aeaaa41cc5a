"""Memory of packed weights that changed."""

import pytest
import torch

from inpaint_ops.ops import native
from inpaint_ops.ops.convolution.packed_weights import packed_weights, place
from inpaint_ops.ops.convolution.plan import Form

pytestmark = pytest.mark.skipif(not native.status().available, reason="packs by the extension")
FORMS = [
    Form("direct"),
    Form("winograd_4x3"),
    Form("winograd_4x3", flipped=True),
    Form("winograd_4x2", (2, 2)),
    Form("winograd_4x3", gated=True),
]


def address(weight, form):
    return packed_weights.of(weight, form).ctypes.data


def test_a_training_writes_to_the_same_memory():
    weight = torch.nn.Parameter(torch.randn(34, 5, 3, 3))
    first = [address(weight, form) for form in FORMS]
    for _ in range(3):
        with torch.no_grad():
            weight.add_(1)
        assert [address(weight, form) for form in FORMS] == first
    again = torch.nn.Parameter(weight.detach().clone())
    for form in FORMS:
        assert (packed_weights.of(weight, form) == packed_weights.of(again, form)).all()


def test_memory_that_is_read_stays():
    weight = torch.randn(34, 5, 3, 3)
    for form in FORMS:
        held = packed_weights.of(weight, form)
        copy = held.copy()
        weight.add_(1)
        assert address(weight, form) != held.ctypes.data
        assert (held == copy).all()


def test_forms_that_are_not_wanted_any_more_are_dropped():
    weight = torch.randn(34, 5, 3, 3)
    for form in FORMS:
        packed_weights.of(weight, form)
    for _ in range(2):
        weight.add_(1)
        packed_weights.of(weight, FORMS[0])
    entry = packed_weights._entries[place(weight)]
    assert len(entry.packed) == 1
    assert not entry.outdated
