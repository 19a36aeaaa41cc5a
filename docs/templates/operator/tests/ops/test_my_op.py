"""my_op and its layer: what is special about them; the rest is in test_every_operator.py."""

import pytest
import torch
from support import check_close

from inpaint_ops import ops, reference
from inpaint_ops.layers.my_op import MyOp

# One pixel, an odd size, less than a vector, no multiple of one.
SHAPES = [(1, 1, 1, 1), (2, 3, 9, 7), (1, 5, 1, 3), (3, 33, 5, 13)]


def inputs(shape):
    """Image and weight, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator), torch.randn(shape[1], generator=generator)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.usefixtures("instruction_set")
def test_every_instruction_set(shape):
    """Every class of shapes against the reference in float64."""
    x, weight = inputs(shape)
    expected = reference.my_op(x.double(), weight.double(), factor=0.5)
    check_close(ops.my_op(x, weight, factor=0.5), expected)


def test_layer():
    """State dict, copies, printing, and what the layer refuses."""
    layer = MyOp(3)
    x, _ = inputs((2, 3, 9, 7))
    assert torch.equal(layer(x), x)
    assert repr(layer) == "MyOp(3)"
    assert list(layer.state_dict()) == ["weight"]
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), x)


# What the battery asks of every argument is not repeated.
BAD_INPUT = [
    ({"weight": torch.ones(3)}, ValueError, r"weight must have shape \(4,\), got \(3,\)"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    """The exact text of every rule of its own."""
    arguments = {"x": torch.zeros(2, 4, 8, 8), "weight": torch.ones(4), **change}
    with pytest.raises(error, match=f"my_op: {text}"):
        ops.my_op(**arguments)
