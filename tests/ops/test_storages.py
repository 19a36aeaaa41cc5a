"""Operators leave tensors as they were: storages resizable, results no views, kinds checked."""

import gc

import pytest
import torch
from operators import CALLS, EVERY_TENSOR, OPERATORS, bits, draw, run
from torch import nn
from torch._subclasses import FakeTensorMode

import inpaint_ops
from inpaint_ops import layers
from inpaint_ops.ops import dispatch, recording, shortcut

LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
}


def laid_out(tensors, layout):
    return {
        name: LAYOUTS[layout](t) if t.dim() == 4 and t.is_floating_point() else t
        for name, t in tensors.items()
    }


def check_resizable(tensors):
    for name, tensor in tensors.items():
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        assert storage.resizable(), name
        storage.resize_(2 * size)
        storage.resize_(0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("op", OPERATORS)
def test_storages_stay_resizable(op, dtype, layout):
    tensors = {
        name: t.to(dtype) if t.is_floating_point() else t
        for name, t in laid_out(OPERATORS[op].tensors(), layout).items()
    }
    results = run(op, tensors)
    held = dict(tensors) | {f"result {i}": result for i, result in enumerate(results)}
    if results[0].is_floating_point():
        leaves = {
            name: t.clone().requires_grad_()
            for name, t in tensors.items()
            if t.is_floating_point() and name not in ("hole", "valid", "where")
        }
        first = run(op, tensors | leaves)[0]
        first.sum().backward()
        held["recorded result"] = first.detach()
        held["upstream"] = upstream = torch.ones_like(first)
        held |= leaf_gradients(leaves)
        torch.autograd.grad(
            run(op, tensors | leaves)[0], list(leaves.values()), upstream, allow_unused=True
        )
        held |= {f"leaf {name}": leaf.detach() for name, leaf in leaves.items()}
    check_resizable(held)


def leaf_gradients(leaves):
    return {f"gradient of {name}": t.grad for name, t in leaves.items() if t.grad is not None}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", ["partial_conv2d", "shift_connection", "contextual_attention"])
def test_masks_stay_resizable(op, dtype):
    tensors = OPERATORS[op].tensors()
    name = "valid" if op == "partial_conv2d" else "hole"
    tensors[name] = tensors[name].to(dtype)
    results = run(op, tensors)
    check_resizable(tensors | {f"result {i}": result for i, result in enumerate(results)})


def test_pictures_stay_resizable():
    image, hole = torch.rand(1, 3, 24, 24), torch.zeros(1, 1, 24, 24, dtype=torch.bool)
    hole[..., 8:14, 8:14] = True
    filled = inpaint_ops.fill_exemplar(image, hole)
    check_resizable({"image": image, "hole": hole, "filled": filled})


def test_blending_leaves_its_arguments_resizable():
    pytest.importorskip("scipy")
    from inpaint_ops.blending import poisson_blend

    hole = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    hole[..., 4:8, 4:8] = True
    held = {"prediction": torch.rand(1, 3, 12, 12).double(), "image": torch.rand(1, 3, 12, 12)}
    held["image"] = held["image"].double()
    result = poisson_blend(held["prediction"], held["image"], hole)
    check_resizable(held | {"hole": hole, "result": result})


def test_tensors_can_be_swapped_after_a_call():
    layer = layers.InstanceNorm2d(4, affine=True)
    x = draw(1, 4, 6, 6).contiguous(memory_format=torch.channels_last)
    y = layer(x).detach()
    expected = y.clone()
    gc.collect()
    torch.utils.swap_tensors(x, torch.zeros(2))
    torch.utils.swap_tensors(y, other := torch.zeros(3))
    assert x.shape == (2,)
    assert torch.equal(other, expected)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("op", CALLS)
@pytest.mark.parametrize("plain", [True, False], ids=["short way", "dispatcher"])
def test_results_are_no_views(op, backend, layout, plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(shortcut, "AVAILABLE", False)
    seen = []
    original = dispatch._owned

    def watched(results, args):
        results = original(results, args)
        alone = isinstance(results, torch.Tensor)
        seen.extend(recording.tensors_of([results] if alone else list(results)))
        return results

    monkeypatch.setattr(dispatch, "_owned", watched)
    call, tensors = CALLS[op]
    leaves = [(LAYOUTS[layout](t) if t.dim() == 4 else t).clone().requires_grad_() for t in tensors]
    with inpaint_ops.backend(backend):
        y = call(*leaves)
        y.sum().backward()
    if not seen:  # the extension has taken the call as a whole
        seen = [y, *(leaf.grad for leaf in leaves)]
    assert len(seen) >= 2
    assert not any(result._is_view() for result in seen)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("op", [op for op, entry in OPERATORS.items() if entry.leaves])
@pytest.mark.parametrize("plain", [True, False], ids=["short way", "dispatcher"])
def test_results_may_be_changed_in_place(op, backend, layout, plain, monkeypatch):
    if not plain:
        monkeypatch.setattr(shortcut, "AVAILABLE", False)
    tensors = laid_out(OPERATORS[op].tensors(), layout)
    options = dict(OPERATORS[op].options)
    if op.startswith("fused"):  # a fused activation needs its result, as torch's own does
        options["activation"] = "identity"
    names = [n for n in tensors if n not in ("hole", "valid") and tensors[n].is_floating_point()]
    gradients = []
    for in_place in (True, False):
        leaves = {name: tensors[name].clone().requires_grad_() for name in names}
        with inpaint_ops.backend(backend):
            y = run(op, tensors | leaves, options)[0] - (1 if op == "id_mrf_loss" else 0)
            y = nn.ReLU(inplace=in_place)(y)
            y.square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves.values()])
    for a, b in zip(*gradients):
        assert (a is None and b is None) or torch.equal(a, b)


def sparse(t):
    return t.to_sparse()


def freed(t):
    t = t.clone()
    t.untyped_storage().resize_(0)
    return t


def fake(t):
    with FakeTensorMode() as mode:
        return mode.from_tensor(t)


def batched(t):
    kept = []
    torch.vmap(lambda v: kept.append(v) or v)(t[None])
    return kept[0]


KINDS = {
    "sparse": (sparse, "dense"),
    "mkldnn": (lambda t: t.float().to_mkldnn(), "dense"),
    "freed": (freed, "must have memory"),
    "fake": (fake, "must have memory"),
    "meta": (lambda t: t.to("meta"), "must be on"),
    "complex": (lambda t: t.to(torch.complex64), "dtype|floating|number"),
    "quantized": (
        lambda t: torch.quantize_per_tensor(t.float(), 0.1, 0, torch.quint8),
        "dtype|floating",
    ),
    "array": (lambda t: t.numpy(), "must be a Tensor"),
    "outlived": (batched, "must not outlive"),
}
if hasattr(torch.Tensor, "rename"):
    KINDS["named"] = (
        lambda t: t.rename(*"NCHWXYZ"[: t.dim()]) if t.dim() else t,
        "named dimensions",
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("op", "name"), EVERY_TENSOR)
def test_other_kinds_of_tensors_are_refused_by_name(op, name, kind):
    make, message = KINDS[kind]
    if name == "guess" and kind == "mkldnn":
        pytest.skip("mkldnn holds no integers")
    tensors = OPERATORS[op].tensors()
    # What is no device of its own is a type that does not fit.
    error = ValueError if kind == "meta" else TypeError
    with pytest.raises(error, match=f"^{op}: .*{message}") as caught:
        run(op, tensors | {name: make(tensors[name])})
    assert name in str(caught.value).partition("got")[0]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda t: t.numpy(), "incompatible function arguments"),
        (lambda t: t.double(), "incompatible function arguments"),
        (lambda t: t.to("meta"), "it is elsewhere"),
        (sparse, "doesn't have storage|strides"),
        (freed, "its storage is empty"),
        (torch._neg_view, "its values are negated"),
        (lambda t: t.view(1, 1, 1, 2, 3), "more than four dimensions"),
    ],
    ids=["array", "dtype", "meta", "sparse", "freed", "negated", "five dimensions"],
)
def test_the_binding_refuses_what_it_cannot_address(make, reason):
    from inpaint_ops import _C

    known = torch.empty(2, 3, dtype=torch.uint8)
    assert _C.known_bytes(torch.eye(2, 3), known)
    assert torch.equal(known, torch.eye(2, 3).to(torch.uint8))
    with pytest.raises(TypeError, match=reason):
        _C.known_bytes(make(torch.eye(2, 3)), known)
    # A dense tensor that autograd watches is only memory.
    assert _C.known_bytes(torch.eye(2, 3, requires_grad=True), known)


def test_negated_views_are_read_as_what_they_are():
    for op, entry in OPERATORS.items():
        tensors = {n: t for n, t in entry.tensors().items() if n not in ("hole", "valid", "where")}
        if op == "partial_conv2d":
            tensors["valid"] = torch.ones(1, 1, 6, 6)
        negated = {
            name: torch._neg_view(-t) if t.is_floating_point() else t for name, t in tensors.items()
        }
        if op == "shift_connection":
            tensors["hole"] = negated["hole"] = bits(1, 1, 6, 6)
        for a, b in zip(run(op, negated), run(op, tensors)):
            assert torch.equal(a, b)
