"""The battery's errors: wrong tensors and options of every operator, refused by name."""

import inspect
import math
import typing

import pytest
import torch
from operators import OPERATORS, run

from inpaint_ops import ops

# How a tensor is spoilt, the error, and what its text says after the name.
BAD_TENSORS = {
    "number": (lambda t: 1, TypeError, "must be a Tensor.*, got int"),
    "integers": (
        lambda t: t.to(torch.int32),
        TypeError,
        "must have .*dtype|must be .*floating",
    ),
    "rank": (lambda t: t[0], ValueError, "must have"),
    "double": (lambda t: t.double(), TypeError, "must have .*dtype"),
    "meta": (lambda t: t.to("meta"), ValueError, "must be on (one device|cpu)"),
    "channels": (lambda t: t[:, :-1], ValueError, "must"),
    "size": (lambda t: t[..., :-1], ValueError, "must have shape"),
}


def bad_kinds(op, name, tensor):
    """Ways in which a tensor can be wrong: masks may have other types, weights other sizes."""
    if name in OPERATORS[op].masks:
        return ["number", "integers", "rank", "meta", "size"]
    kinds = ["number", "integers", "rank", "double", "meta"]
    if not tensor.is_floating_point():
        return [*kinds, "size"]
    return kinds if tensor.dim() < 2 else [*kinds, "channels"]


BAD_CALLS = [
    (op, name, kind)
    for op, entry in OPERATORS.items()
    for name, tensor in entry.tensors().items()
    for kind in bad_kinds(op, name, tensor)
]


@pytest.mark.parametrize(("op", "name", "kind"), BAD_CALLS)
def test_bad_input_tensors_are_refused_by_name(op, name, kind):
    spoil, error, text = BAD_TENSORS[kind]
    tensors = OPERATORS[op].tensors()
    with pytest.raises(error, match=f"^{op}: .*({text})") as caught:
        run(op, {**tensors, name: spoil(tensors[name])})
    # The other of two tensors that must agree is named as well, or alone.
    assert kind == "channels" or name in str(caught.value).partition("got")[0]


BAD_OPTIONS = {
    float: (
        (math.nan, ValueError, "finite, got nan"),
        (math.inf, ValueError, "finite, got inf"),
        ("1", TypeError, "a number, got str"),
    ),
    int: (
        (1.5, TypeError, "an int.*, got float"),
        ("1", TypeError, "an int.*, got str"),
        (True, TypeError, "an int.*, got bool"),
        (-1, ValueError, ".*, got -1"),
    ),
    bool: ((1, TypeError, "a bool, got int"),),
    str: (("no such word", ValueError, "one of .*, got 'no such word'"),),
}


# Options that only choose what is returned, by their truth.
UNCHECKED = {"return_index"}


def bad_options():
    for op in OPERATORS:
        function = getattr(ops, op)
        hints = typing.get_type_hints(function)
        for name, parameter in inspect.signature(function).parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY and name not in UNCHECKED:
                for value, error, text in BAD_OPTIONS.get(hints[name], ()):
                    yield pytest.param(op, name, value, error, text, id=f"{op}-{name}-{value}")


@pytest.mark.parametrize(("op", "name", "value", "error", "text"), list(bad_options()))
def test_bad_input_options_are_refused_by_name(op, name, value, error, text):
    options = {**OPERATORS[op].options, name: value}
    with pytest.raises(error, match=f"^{op}: {name} must be {text}"):
        run(op, OPERATORS[op].tensors(), options)
