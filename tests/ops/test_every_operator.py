"""The battery: what holds for every operator, each of which joins by its entry in `operators`."""

import inspect

import pytest
import torch
from layouts import LAYOUTS, same_bits
from operators import OPERATORS, options_of, run, run_reference
from recording import Recorder, check_operators, is_backward
from support import check_close

import inpaint_ops
from inpaint_ops import ops

DIFFERENTIABLE = [op for op, entry in OPERATORS.items() if entry.leaves]
OURS = [op for op, entry in OPERATORS.items() if entry.ours]
WITH_OPTIONS = [
    pytest.param(op, options, id=f"{op}-{i}")
    for op in OPERATORS
    for i, options in enumerate(options_of(op))
]


def upstream(y):
    """A gradient for y."""
    generator = torch.Generator().manual_seed(99)
    return torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)


def to_dtype(tensors, dtype):
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


def optional_tensors(op):
    """The names of tensors that may be None."""
    parameters = inspect.signature(getattr(ops, op)).parameters
    return [name for name in OPERATORS[op].tensors() if parameters[name].default is None]


def images(op):
    """The names of tensors with an axis of images."""
    return [name for name in OPERATORS[op].tensors() if name not in OPERATORS[op].shared]


def with_gradients(op, tensors, options=None, *, call=run, gradient=upstream, wanted=None):
    """All results and the gradients of all leaves, or of those wanted."""
    names = [
        n for n in (OPERATORS[op].leaves if wanted is None else wanted) if tensors[n] is not None
    ]
    leaves = {name: tensors[name].detach().requires_grad_() for name in names}
    results = call(op, {**tensors, **leaves}, options)
    found = [result.detach() for result in results]
    if leaves:
        held = list(leaves.values())
        found += torch.autograd.grad(results[0], held, gradient(results[0]))
    return found


def check_equal(op, actual, expected):
    for got, want in zip(actual, expected, strict=True):
        if OPERATORS[op].ours:
            assert same_bits(got, want)
        else:
            torch.testing.assert_close(got, want)


def results_alone(op, tensors, options=None):
    """Pairs of results, of the kernels and of the reference path."""
    ours = run(op, tensors, options)
    with inpaint_ops.backend("reference"):
        return list(zip(ours, run(op, tensors, options), strict=True))


def check_all_close(op, actual, expected, dtype=None):
    for got, want in zip(actual, expected, strict=True):
        assert got.shape == want.shape
        if got.is_floating_point():
            check_close(got, want, terms=OPERATORS[op].terms, dtype=dtype)
        else:
            assert torch.equal(got, want)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("op", "options"), WITH_OPTIONS)
def test_agrees_with_its_reference(op, options, backend):
    tensors = OPERATORS[op].tensors()
    with inpaint_ops.backend(backend):
        actual = with_gradients(op, tensors, options)
    wide = to_dtype(tensors, torch.float64)
    expected = with_gradients(op, wide, options, call=run_reference)
    check_all_close(op, actual, expected)


@pytest.mark.parametrize("op", OPERATORS)
def test_optional_tensors_may_be_absent(op):
    tensors = OPERATORS[op].tensors()
    optional = optional_tensors(op)
    for absent in [*([name] for name in optional), optional]:
        given = {n: None if n in absent else t for n, t in tensors.items()}
        wide = {n: None if n in absent else t for n, t in to_dtype(tensors, torch.float64).items()}
        actual = with_gradients(op, given)
        check_all_close(op, actual, with_gradients(op, wide, call=run_reference))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_dtypes(op, dtype):
    tensors = to_dtype(OPERATORS[op].tensors(), dtype)
    actual = with_gradients(op, tensors)
    wide = to_dtype(tensors, torch.float64)
    expected = with_gradients(op, wide, call=run_reference)
    if OPERATORS[op].leaves:
        gradients = actual[-len(OPERATORS[op].leaves) :]
        assert all(t.dtype == dtype for t in gradients)
    check_all_close(op, actual, expected, dtype)
    for ours, plain in results_alone(op, tensors):
        assert ours.dtype == plain.dtype


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("op", "options"), WITH_OPTIONS)
def test_layouts_give_equal_values(op, options, layout):
    tensors = OPERATORS[op].tensors()
    expected = with_gradients(op, tensors, options)
    arrange = LAYOUTS[layout]

    def moved(t):
        return arrange(t) if t.dim() == 4 else t

    def gradient(y):
        return moved(upstream(y))

    laid_out = {name: moved(t) for name, t in tensors.items()}
    check_equal(op, with_gradients(op, laid_out, options, gradient=gradient), expected)
    for ours, plain in results_alone(op, laid_out, options):
        assert ours.dim() != 4 or ours.stride() == plain.stride()
    # Only one of the tensors.
    for name, tensor in laid_out.items():
        check_equal(op, with_gradients(op, {**tensors, name: tensor}, options), expected)


@pytest.mark.parametrize("op", OPERATORS)
def test_expanded_tensors_give_equal_values(op):
    tensors = OPERATORS[op].tensors()
    expanded = {
        name: t[:1].expand_as(t) if name in images(op) else t for name, t in tensors.items()
    }
    packed = {name: t.contiguous() for name, t in expanded.items()}
    check_equal(op, with_gradients(op, expanded), with_gradients(op, packed))


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_gradients_of_any_strides_are_taken(op):
    """An expanded one is that of a sum, a negated view that of a difference of complex parts."""
    tensors = OPERATORS[op].tensors()
    ones = with_gradients(op, tensors, gradient=torch.ones_like)
    for gradient in (
        lambda y: torch.ones(()).expand(y.shape),
        lambda y: torch._neg_view(-torch.ones_like(y)),
    ):
        check_equal(op, with_gradients(op, tensors, gradient=gradient), ones)


@pytest.mark.parametrize("op", OPERATORS)
def test_calls_and_threads_give_equal_bits(op):
    entry = OPERATORS[op]
    tensors = (entry.large or entry.tensors)()
    torch.set_num_threads(1)
    expected = with_gradients(op, tensors)
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        check_equal(op, with_gradients(op, tensors), expected)


@pytest.mark.parametrize("op", OPERATORS)
def test_arguments_stay_as_they_are(op):
    tensors = OPERATORS[op].tensors()
    before = {name: (t.clone(), t._version) for name, t in tensors.items()}
    grads = []

    def gradient(y):
        grads.append(upstream(y))
        return grads[0]

    with_gradients(op, tensors, gradient=gradient)
    for name, tensor in tensors.items():
        assert same_bits(tensor, before[name][0]), name
        assert tensor._version == before[name][1], name
    assert all(same_bits(g, upstream(g)) for g in grads)


@pytest.mark.parametrize("op", OPERATORS)
def test_empty_batches(op):
    names = images(op)
    full = OPERATORS[op].tensors()
    tensors = {
        n: t[:0] if n in names and t.shape[0] > 1 else t[:1] if n in names else t
        for n, t in full.items()
    }
    expected = with_gradients(op, full)
    actual = with_gradients(op, tensors)
    results = len(actual) - len(OPERATORS[op].leaves)
    for got, want in zip(actual[:results], expected[:results], strict=True):
        # What all images have in common, as a mask of one image, may stay.
        assert got.shape[1:] == want.shape[1:]
        assert got.dtype == want.dtype
    assert actual[0].numel() == 0
    for name, gradient in zip(OPERATORS[op].leaves, actual[results:], strict=True):
        assert gradient.shape == tensors[name].shape
        assert not gradient.any()


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("op", "name"), [(op, name) for op, entry in OPERATORS.items() for name in entry.masks]
)
def test_masks_of_any_type_say_the_same(op, name, kind):
    tensors = OPERATORS[op].tensors()
    expected = with_gradients(op, tensors)
    other = with_gradients(op, {**tensors, name: tensors[name].to(kind)})
    assert all(torch.equal(a, b.to(a.dtype)) for a, b in zip(expected, other, strict=True))


# Other places in memory and another type with the entry's own options, the variants with one.
KINDS = {
    "channels_last": LAYOUTS["channels_last"],
    "sliced": LAYOUTS["sliced"],
    "bfloat16": torch.Tensor.bfloat16,
    "absent": torch.clone,
}
CHECKED = [(op, i, "contiguous") for op in OURS for i in range(len(options_of(op)))]
CHECKED += [(op, 0, kind) for op in OURS for kind in KINDS]


@pytest.mark.parametrize(("op", "variant", "kind"), CHECKED)
def test_registered_operators_pass_opcheck(op, variant, kind):
    """Each operator that a call and its gradients reach, as they reach it."""
    arrange, leaves = KINDS.get(kind, torch.clone), OPERATORS[op].leaves
    tensors = {n: arrange(t) if t.dim() == 4 else t for n, t in OPERATORS[op].tensors().items()}
    if kind == "bfloat16":
        tensors = to_dtype(tensors, torch.bfloat16)
    elif kind == "absent":
        tensors |= dict.fromkeys(optional_tensors(op))
    options = options_of(op)[variant]
    with Recorder() as recorder:
        with_gradients(op, tensors, options)
    calls = recorder.calls
    assert {*map(is_backward, calls)} == ({False, True} if leaves else {False})
    if leaves and kind == "contiguous" and variant == 0:
        with Recorder() as recorder:
            with_gradients(op, tensors, options, wanted=leaves[1:2])
            # Nothing is kept then for a backward pass.
            with torch.no_grad():
                run(op, tensors, options)
        calls = [*calls, *filter(is_backward, recorder.calls), recorder.calls[-1]]
    check_operators(calls)


@pytest.mark.parametrize("op", OPERATORS)
def test_only_the_first_result_is_differentiable(op):
    tensors = OPERATORS[op].tensors()
    floating = {n: t.requires_grad_() for n, t in tensors.items() if t.is_floating_point()}
    first, *others = run(op, {**tensors, **floating})
    assert first.requires_grad == bool(OPERATORS[op].leaves)
    assert not any(result.requires_grad for result in others)
    with torch.no_grad():
        assert not run(op, tensors)[0].requires_grad
    if first.requires_grad:
        grads = torch.autograd.grad(first.sum(), list(floating.values()), allow_unused=True)
        wanted = {name for name, grad in zip(floating, grads) if grad is not None}
        assert wanted == set(OPERATORS[op].leaves)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_only_wanted_gradients_are_formed(op):
    tensors = OPERATORS[op].tensors()
    leaves = OPERATORS[op].leaves
    expected = with_gradients(op, tensors)[-len(leaves) :]
    for name, want in zip(leaves, expected, strict=True):
        leaf = tensors[name].clone().requires_grad_()
        first = run(op, {**tensors, name: leaf})[0]
        (gradient,) = torch.autograd.grad(first, leaf, upstream(first))
        check_equal(op, [gradient], [want])


@pytest.mark.parametrize(
    ("op", "options"), [p for p in WITH_OPTIONS if p.values[0] in DIFFERENTIABLE]
)
def test_gradcheck(op, options):
    tensors = to_dtype(OPERATORS[op].tensors(), torch.float64)
    names = OPERATORS[op].leaves
    leaves = [tensors[name].requires_grad_() for name in names]

    def call(*leaves):
        return run(op, {**tensors, **dict(zip(names, leaves, strict=True))}, options)[0]

    for layout in (torch.contiguous_format, torch.channels_last):
        laid_out = [
            t.detach().contiguous(memory_format=layout).requires_grad_() if t.dim() == 4 else t
            for t in leaves
        ]
        assert torch.autograd.gradcheck(call, laid_out, fast_mode=True)


@pytest.mark.parametrize("op", DIFFERENTIABLE)
@pytest.mark.parametrize("inside", ["reference", "direct"])
def test_the_backward_pass_keeps_the_backend_of_its_forward_pass(op, inside):
    tensors = OPERATORS[op].tensors()

    def under(outside):
        leaves = {n: tensors[n].clone().requires_grad_() for n in OPERATORS[op].leaves}
        with inpaint_ops.backend(inside):
            first = run(op, {**tensors, **leaves})[0]
        with inpaint_ops.backend(outside):
            return torch.autograd.grad(first, list(leaves.values()), upstream(first))

    assert all(map(torch.equal, under("auto"), under(inside)))
