"""GPU kernels as torch.compile and torch.export meet them: opaque operators with a promise."""

import pytest
import torch
from functorch.compile import make_boxed_func
from gpu_calls import WAYS
from operators import OPERATORS, run
from recording import Recorder, check_operators, is_backward
from torch._dynamo.backends.common import aot_autograd

import inpaint_ops


def with_gradients(op, function):
    """Results of a call with an operator's tensors, and the gradients of its leaves."""
    names = OPERATORS[op].leaves
    tensors = {n: x.requires_grad_(n in names) for n, x in OPERATORS[op].tensors().items()}
    made = [*function(tensors)]
    leaves = [tensors[name] for name in names]
    return [*made, *(torch.autograd.grad(made[0].sum(), leaves) if leaves else ())]


@pytest.mark.parametrize(("op", "choice"), WAYS)
def test_registered_operators_pass_opcheck(op, choice, monkeypatch):
    """Schema, fake kernel and tracing of each operator that a call and its gradients reach."""
    monkeypatch.setenv("INPAINT_OPS_CONV", choice)
    with inpaint_ops.backend("triton"):
        with Recorder() as recorder:
            with_gradients(op, lambda tensors: run(op, tensors))
        calls = recorder.calls
        assert {*map(is_backward, calls)} == ({False, True} if OPERATORS[op].leaves else {False})
        check_operators(calls)


@pytest.mark.parametrize(("op", "choice"), WAYS)
def test_compiled_calls_give_the_same(op, choice, monkeypatch):
    """torch.compile sees one opaque operator forward and one backward."""
    monkeypatch.setenv("INPAINT_OPS_CONV", choice)
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, backend="aot_eager")
    def compiled(tensors):
        return run(op, tensors)

    with inpaint_ops.backend("triton"):
        expected = with_gradients(op, lambda tensors: run(op, tensors))
        for got, want in zip(with_gradients(op, compiled), expected, strict=True):
            assert torch.equal(got, want)


@pytest.mark.parametrize(("op", "choice"), WAYS)
def test_inductor_gets_no_copies_and_may_record_graphs(op, choice, monkeypatch):
    """Operators change nothing that they are given, so making them functional adds no copies."""
    monkeypatch.setenv("INPAINT_OPS_CONV", choice)
    torch._dynamo.reset()
    called = []

    def noted(graph, _):
        called.extend(node.target for node in graph.graph.nodes if node.op == "call_function")
        return make_boxed_func(graph.forward)

    compiled = torch.compile(
        lambda tensors: run(op, tensors), fullgraph=True, backend=aot_autograd(fw_compiler=noted)
    )
    with inpaint_ops.backend("triton"):
        with_gradients(op, compiled)
    names = {str(target) for target in called}
    assert any(name.startswith("inpaint_ops.") for name in names)
    assert not [name for name in names if "copy_" in name or "functionalized" in name]
    for target in called:
        assert torch.Tag.cudagraph_unsafe not in getattr(target, "tags", ())
