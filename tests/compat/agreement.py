"""A layer and its twin: signature, state dict both ways, results and gradients."""

import copy
import inspect

import torch
from support import check_close
from torch import nn


def randomised(module, seed=0):
    """The module with other weights than it starts from, vectors of norms left as they are."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.requires_grad and not name.endswith(("_u", "_v")):
                scale = 0.5 / max(1.0, parameter[0].numel() ** 0.5) if parameter.dim() > 1 else 0.3
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 2 * scale)
    return module


def exchange(layer, twin):
    """Strict loading both ways; the twin in float64 has the layer's numbers afterwards."""
    state = {key: value.clone() for key, value in layer.state_dict().items()}
    assert list(state) == list(twin.state_dict())
    twin.load_state_dict(state, strict=True)
    layer.load_state_dict(twin.state_dict(), strict=True)
    for key, value in layer.state_dict().items():
        assert torch.equal(value, state[key]), key
    assert [n for n, _ in layer.named_parameters()] == [n for n, _ in twin.named_parameters()]
    flags = ([p.requires_grad for p in m.parameters()] for m in (layer, twin))
    assert next(flags) == next(flags)
    return twin.double()


def agree(layer, twin, *inputs, calls=1, terms=256):
    """Compares a layer in float32 with its twin in float64, `calls` times; returns its results."""
    assert isinstance(layer, nn.Module)
    twin = exchange(randomised(layer), twin)
    for call in range(calls):
        layer.zero_grad()
        twin.zero_grad()
        mine = [x.clone() for x in inputs]
        wide = [x.double() for x in inputs]
        mine[0].requires_grad_()
        wide[0].requires_grad_()
        got, wanted = layer(*mine), twin(*wide)
        assert type(got) is type(wanted)
        results = got if isinstance(got, tuple) else (got,)
        expected = wanted if isinstance(wanted, tuple) else (wanted,)
        assert len(results) == len(expected)
        for one, other in zip(results, expected):
            if other is None:
                assert one is None
                continue
            assert one.shape == other.shape
            assert one.dtype == inputs[0].dtype
            check_close(one.detach(), other.detach(), terms=terms)
        grad = torch.randn(results[0].shape, generator=torch.Generator().manual_seed(call))
        results[0].backward(grad)
        expected[0].backward(grad.double())
        # Gradients sum over positions and channels both.
        check_close(mine[0].grad, wide[0].grad, terms=64 * terms)
        compare_gradients(layer, twin, 64 * terms)
        for key, value in twin.state_dict().items():
            mine_now = layer.state_dict()[key].double()
            check_close(mine_now, value.double(), terms=64 * terms, dtype=torch.float32)
    copy.deepcopy(layer)
    return got


def compare_gradients(layer, twin, terms):
    largest = max(p.grad.abs().max().item() for p in twin.parameters() if p.grad is not None)
    for (name, parameter), other in zip(layer.named_parameters(), twin.parameters()):
        assert (parameter.grad is None) == (other.grad is None), name
        if other.grad is None:
            continue
        if other.grad.abs().max() < 1e-10 * largest:  # a bias that a normalisation takes back
            assert parameter.grad.abs().max() <= 1e-4 * largest, name
        else:
            check_close(parameter.grad, other.grad, terms=terms)


def signature(callable_):
    """The arguments of a class or function in order, with their defaults, as text."""
    parts = []
    for name, parameter in inspect.signature(callable_).parameters.items():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            continue
        if parameter.default is inspect.Parameter.empty:
            parts.append(name)
        else:
            parts.append(f"{name}={parameter.default!r}")
    return ", ".join(parts)
