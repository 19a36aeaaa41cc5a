"""GPU kernels as torch.compile and torch.export meet them: opaque operators with a promise."""

import pytest
import torch
from gpu_calls import WAYS
from operators import OPERATORS, run
from recording import Recorder, check_operators, is_backward

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
