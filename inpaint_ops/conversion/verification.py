"""One layer with its chain, as our operators and as the model computed it, on equal inputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.conversion import leaves, recognition
from inpaint_ops.conversion.chains import Chain
from inpaint_ops.conversion.record import Converted, Record
from inpaint_ops.conversion.sample import Measured, measure


class Verifier:
    """Compares and times layers, each kind of them once.

    Args:
        trained: whether gradients are compared and timed.
        timed: whether anything is timed.
    """

    def __init__(self, trained: bool, timed: bool) -> None:
        self._trained = trained
        self._timed = timed
        self._known: dict[Any, Measured] = {}

    def measure(self, module: nn.Module, record: Record, key: Any, seen: Any) -> Measured:
        """Compare one layer in one chain; `seen`: inputs it had, None: made up here.

        Raises:
            Exception: what the layer or our operator raises.
        """
        if key == recognition.CALL:
            if seen is None:  # compared when it was recognised
                return Measured(0.0, None)
            return self._call(module, record, seen)
        role = next(r for r in type(module).__mro__ if r in leaves.FUSED)
        x = _input(module, key, None if seen is None else seen[0])
        mark = (role, key, tuple(x.shape), x.stride(), x.dtype, _options(module))
        if mark not in self._known:
            self._known[mark] = self._chain(module, role, key, x)
        return self._known[mark]

    def _chain(self, layer: Any, role: type, chain: Chain, x: Tensor) -> Measured:
        grad = self._trained or not self._timed
        x.requires_grad_(grad)
        weights = tuple(
            None if w is None else w.detach().clone().requires_grad_(grad)
            for w in (layer.weight, layer.bias)
        )
        extra: dict[str, Any] = {}
        others: list[Tensor] = []
        if chain.gate == "pair":
            gate = tuple(
                None if w is None else w.detach().flip(0).requires_grad_(grad) for w in weights
            )
            extra["gate"] = gate
            others = [w for w in gate if w is not None]
        if chain.residual:
            extra["residual"] = torch.randn_like(x, requires_grad=grad)
            others.append(extra["residual"])
        wanted = [x, *(w for w in weights if w is not None), *others] if grad else []

        def ours() -> Any:
            return leaves.FUSED[role](layer, x, weights, chain, **extra)

        def theirs() -> Any:
            return leaves.PLAIN[role](layer, x, weights, chain, **extra)

        def step() -> None:
            # A step changes the weights: what is made of them has to be made again.
            if self._trained and weights[0] is not None:
                with torch.no_grad():
                    weights[0].neg_()

        with torch.set_grad_enabled(grad):
            return measure(ours, theirs, wanted, x.device, self._timed, step)

    def _call(self, module: Any, record: Record, seen: tuple[Any, ...]) -> Measured:
        cls = next(
            c for c in type(module).__mro__ if issubclass(c, Converted) and "original" in vars(c)
        )
        seen = tuple(t.detach().clone() if isinstance(t, Tensor) else t for t in seen)
        shapes = tuple((tuple(t.shape), t.stride()) if isinstance(t, Tensor) else t for t in seen)
        options = tuple(sorted((k, str(v)) for k, v in record.options.items()))
        mark = (cls.original, options, shapes, _options(module))
        if mark in self._known:
            return self._known[mark]
        grad = self._trained
        wanted = [t.requires_grad_() for t in seen[:1]] if grad else []
        wanted += [p for p in module.parameters() if p.requires_grad] if grad else []

        def ours() -> Any:
            return module(*seen)

        def theirs() -> Any:
            record.allowed = set()
            try:
                return module(*seen)
            finally:
                record.allowed = None

        from inpaint_ops.conversion.sample import preserved

        with preserved(module), torch.set_grad_enabled(grad):
            self._known[mark] = measure(ours, theirs, wanted, seen[0].device, self._timed)
        return self._known[mark]


def _options(module: nn.Module) -> tuple[Any, ...]:
    """Return what tells layers of one size apart."""
    found: list[Any] = []
    for m in module.modules():
        found += [
            (n, tuple(p.shape), p.requires_grad) for n, p in m.named_parameters(recurse=False)
        ]
        names = ("stride", "padding", "dilation", "groups", "padding_mode", "eps", "num_features")
        found += [str(getattr(m, name, None)) for name in names]
    return tuple(found)


def _device(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _input(module: Any, chain: Chain, seen: Tensor | None) -> Tensor:
    """Return a random input: of the shape and layout that was seen, or of a few pixels."""
    if seen is not None:
        return torch.randn_like(seen, device=_device(module))
    like = module.weight if isinstance(module.weight, Tensor) else torch.empty(0)
    channels = getattr(module, "in_channels", None) or module.num_features
    size: tuple[int, ...] = (9, 10)
    if isinstance(module, nn.Conv2d):
        pads: Any = chain.padding
        if pads is None:
            pads = (0, 0) if isinstance(module.padding, str) else module.padding
        reach = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size)]
        size = tuple(max(n, p + 2, r - 2 * p + 1) for n, p, r in zip(size, pads, reach))
    shape = (2, channels, *size)
    return torch.randn(shape, dtype=like.dtype, device=like.device)
