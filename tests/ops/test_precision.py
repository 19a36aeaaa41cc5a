"""Dtypes of operators: the table of docs/reference/precision.md, and what it promises."""

import re
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import torch
from operators import OPERATORS, run
from precision import HALVES, autocast, word
from support import check_close
from torch._subclasses import FakeTensorMode

from inpaint_ops import backend, fused_conv2d, gated_conv2d, ops

DTYPES = (*HALVES, torch.float32, torch.float64)
DOCUMENT = Path(__file__).parents[2] / "docs" / "reference" / "precision.md"
# The names of an operator's results where it has several.
RESULTS = {
    "partial_conv2d": ("y", "valid_out"),
    "shift_connection": ("shifted", "index"),
    "contextual_attention": ("y", "index"),
    "id_mrf_loss": ("loss",),
    "nearest_patch": ("index", "score"),
    "refine_patch": ("index", "distance"),
}


def tensors_of(op, dtype, grad=False):
    """The operator's tensors with everything but its masks and indices in a dtype."""
    entry = OPERATORS[op]
    made = {}
    for name, tensor in entry.tensors().items():
        if tensor.is_floating_point() and name not in entry.masks:
            tensor = tensor.to(dtype)
        made[name] = tensor.requires_grad_() if grad and name in entry.leaves else tensor
    return made


@contextmanager
def gpu_autocast(dtype):
    """Autocast on GPUs where there are none, which torch.autocast refuses."""
    torch.set_autocast_dtype("cuda", dtype)
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def measured_rows(operators, *, device="cpu"):
    """The rows of the table; on "cuda" by tensors without memory, which run no kernel."""
    rows = []
    lower = autocast if device == "cpu" else gpu_autocast

    def words(op, dtype):
        given = tensors_of(op, dtype)
        if device != "cpu":
            given = {name: torch.empty_like(one, device=device) for name, one in given.items()}
        return [word(t.dtype) for t in run(op, given)]

    for op in operators:
        columns = [words(op, dtype) for dtype in DTYPES]
        for dtype in HALVES:
            with lower(dtype):
                columns.append(words(op, torch.float32))
        for i, results in enumerate(zip(*columns, strict=True)):
            name = RESULTS[op][i] if op in RESULTS else "y"
            rows.append([f"`{op}`", f"`{name}`", *results])
    return rows


def documented_rows():
    lines = DOCUMENT.read_text().splitlines()
    rows = [line for line in lines if re.match(r"\| `\w+` \| `\w+` \|", line)]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_the_table_of_dtypes():
    assert documented_rows() == measured_rows(OPERATORS)


def test_the_table_holds_for_gpus():
    ours = [op for op, entry in OPERATORS.items() if entry.ours]
    with FakeTensorMode():
        measured = measured_rows(ours, device="cuda")
    assert measured == [row for row in documented_rows() if row[0].strip("`") in ours]


def with_casts(op, given, dtype):
    """The operator's tensors, given in a dtype, as autocast's rule for it takes them."""
    rule = dtype if OPERATORS[op].autocast == "lower" else torch.float32
    return {
        name: one if one.dtype != given or name in OPERATORS[op].masks else one.to(rule)
        for name, one in tensors_of(op, given).items()
    }


@pytest.mark.parametrize("which", ["auto", "reference"])
@pytest.mark.parametrize("dtype", HALVES, ids=word)
@pytest.mark.parametrize("given", [torch.float32, *HALVES], ids=word)
@pytest.mark.parametrize("op", OPERATORS)
def test_autocast_is_a_call_in_the_dtype_of_its_rule(op, given, dtype, which):
    with backend(which) if which != "auto" else nullcontext():
        with autocast(dtype):
            got = run(op, tensors_of(op, given))
        expected = run(op, with_casts(op, given, dtype))
    for one, other in zip(got, expected, strict=True):
        kept = OPERATORS[op].autocast == "kept" and one.is_floating_point()
        assert one.dtype == (given if kept else other.dtype)
        assert torch.equal(one, other.to(one.dtype))


DIFFERENTIABLE = [op for op, entry in OPERATORS.items() if entry.leaves]


@pytest.mark.parametrize("inside", [True, False], ids=["backward inside", "backward outside"])
@pytest.mark.parametrize("dtype", HALVES, ids=word)
@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradients_under_autocast(op, dtype, inside):
    leaves = OPERATORS[op].leaves
    given = tensors_of(op, torch.float32, grad=True)
    with autocast(dtype):
        y = run(op, given)[0]
        if inside:
            y.float().square().sum().backward()
    if not inside:
        y.float().square().sum().backward()
    cast = with_casts(op, torch.float32, dtype)
    for name in leaves:
        cast[name] = cast[name].detach().requires_grad_()
    run(op, cast)[0].float().square().sum().backward()
    for name in leaves:
        assert given[name].grad.dtype == torch.float32
        assert torch.equal(given[name].grad, cast[name].grad.float()), name


@pytest.mark.parametrize("op", OPERATORS)
def test_autocast_leaves_float64(op):
    expected = run(op, tensors_of(op, torch.float64))
    with autocast(torch.bfloat16):
        got = run(op, tensors_of(op, torch.float64))
    for one, other in zip(got, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize("dtype", HALVES, ids=word)
@pytest.mark.parametrize("op", OPERATORS)
def test_half_precision_is_summed_in_float32(op, dtype):
    half = tensors_of(op, dtype)
    wide = {
        name: one.float() if one.dtype == dtype else one
        for name, one in tensors_of(op, dtype).items()
    }
    for one, other in zip(run(op, half), run(op, wide), strict=True):
        if OPERATORS[op].ours:
            assert torch.equal(one, other.to(one.dtype))
        else:
            check_close(one, other.double())


def test_operators_see_no_autocast():
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    place = ([1, 1], [1, 1, 1, 1], [1, 1], 1, "zeros", 1)
    call = torch.ops.inpaint_ops.fused_conv2d
    expected = call(x, weight, None, *place, "elu", False, "auto")[0]
    seen = []

    def watching(*args, **kwargs):
        seen.append(torch.is_autocast_enabled("cpu"))
        return convolve(*args, **kwargs)

    from inpaint_ops.ops.convolution import formulas

    convolve = formulas.convolve
    formulas.convolve = watching
    try:
        with autocast(torch.bfloat16), backend("reference"):
            got = call(x, weight, None, *place, "elu", False, "auto")[0]
    finally:
        formulas.convolve = convolve
    assert seen == [False]
    check_close(got, expected.double(), terms=64)


@pytest.mark.parametrize("op", ["gated_conv2d", "instance_norm", "contextual_attention"])
def test_compiled_under_autocast(op):
    entry = OPERATORS[op]
    given = tensors_of(op, torch.float32)

    def call(given):
        return getattr(ops, op)(**given, **entry.options)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    with autocast(torch.bfloat16):
        got, expected = compiled(given), call(given)
    first = [r[0] if isinstance(r, tuple) else r for r in (got, expected)]
    assert first[0].dtype == first[1].dtype
    assert torch.equal(*first)


def test_wrong_dtypes_are_refused_as_by_torch():
    x, weight = torch.randn(1, 4, 6, 6), torch.randn(4, 4, 3, 3)
    for call in (fused_conv2d, gated_conv2d):
        with pytest.raises(TypeError, match="x and weight must have one dtype"):
            call(x.bfloat16(), weight)
        with autocast(torch.bfloat16), pytest.raises(TypeError, match="must have one dtype"):
            call(x.double(), weight)


@pytest.mark.parametrize("default", [torch.float64, torch.bfloat16], ids=word)
@pytest.mark.parametrize("op", OPERATORS)
def test_the_default_dtype_changes_nothing(op, default):
    given = tensors_of(op, torch.float32, grad=True)
    again = tensors_of(op, torch.float32, grad=True)
    expected = run(op, given)
    if OPERATORS[op].leaves:
        expected[0].sum().backward()
    torch.set_default_dtype(default)
    try:
        got = run(op, again)
        if OPERATORS[op].leaves:
            got[0].sum().backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, got, expected))
    for name in OPERATORS[op].leaves:
        assert torch.equal(again[name].grad, given[name].grad)
