"""Convolutions and norms of torch.nn that compute with our operators.

Each keeps its own `forward` for all inputs but those that our operators are for, and takes the
chain around it as a keyword, so that its hooks run as before: spectral norm, weight norm and
pruning form the weight in one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.conversion import chains
from inpaint_ops.conversion.chains import ALONE, Chain
from inpaint_ops.conversion.record import Converted, Record, record_of
from inpaint_ops.ops import triton

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Observer:
    """Notes the calls of converted layers while a sample runs: (layer, chain) to its input."""

    def __init__(self) -> None:
        self.calls: dict[tuple[nn.Module, Any], tuple[Any, ...]] = {}

    def note(self, layer: nn.Module, key: Any, *inputs: Any) -> None:
        """Keep the inputs of the first call: of chains shape and layout, of others the values."""
        if isinstance(key, Chain):
            inputs = tuple(torch.empty_like(t, device="meta") for t in inputs)
        self.calls.setdefault((layer, key), inputs)


class Watch:
    """Holds the observer in force, and whether all runs as before the conversion."""

    observer: Observer | None = None
    off: bool = False


def served(x: Any, *others: Any) -> bool:
    """Return whether our operators are for these tensors, here and now."""
    if type(x) not in (Tensor, nn.Parameter) or x.dim() != 4 or x.dtype not in _DTYPES:
        return False
    if not _has_kernels(x.device.type) or torch.is_autocast_enabled(x.device.type):
        return False
    for t in others:
        if t is None:
            continue
        if type(t) not in (Tensor, nn.Parameter) or (t.dtype, t.device) != (x.dtype, x.device):
            return False
    return not elsewhere()


# Devices that there are kernels for; a GPU's are known when one is asked for.
_KERNELS = {"cpu": True}


def _has_kernels(device: str) -> bool:
    if device == "cuda" and device not in _KERNELS:
        _KERNELS[device] = triton.missing() is None
    return _KERNELS.get(device, False)


def elsewhere() -> bool:
    """Return whether a program is being recorded, exported or transformed, not run."""
    return (
        torch.jit.is_tracing()  # type: ignore[attr-defined]
        or torch.jit.is_scripting()  # type: ignore[attr-defined]
        or torch.compiler.is_exporting()
        or torch._C._functorch.maybe_current_level() is not None
    )


def allowed(layer: nn.Module, chain: Any) -> bool:
    """Return whether a converted layer may run a chain fused."""
    record = record_of(layer)
    return record is not None and not Watch.off and record.allows(chain)


def _watched(layer: nn.Module, chain: Any, *inputs: Any) -> None:
    if Watch.observer is not None:
        Watch.observer.note(layer, chain, *inputs)


class ConvertedConv2d(Converted, nn.Conv2d):
    """nn.Conv2d by `fused_conv2d` or `gated_conv2d`."""

    def forward(self, input: Any, *, chain: Any = ALONE, gate: Any = None) -> Any:
        """As nn.Conv2d; `chain`: what stands around it; "parameters": return those of a gate."""
        if chain == "parameters":
            return self.weight, self.bias
        if isinstance(chain, tuple) and not isinstance(chain, Chain):
            chain = Chain(*chain)
        _watched(self, chain, input)
        # Formed once a call: under spectral norm each look at the weight is a step of its own.
        weights = (self.weight, self.bias)
        fused = allowed(self, chain) and _convolution(self) is None
        if fused and served(input, *weights, *(gate or ())):
            return chains.fused_conv2d_chain(self, input, weights, chain, gate)
        return chains.plain_conv2d(self, input, weights, chain, gate)


class ConvertedConvTranspose2d(Converted, nn.ConvTranspose2d):
    """nn.ConvTranspose2d by `fused_conv_transpose2d`."""

    def forward(self, input: Any, output_size: Any = None, *, chain: Any = ALONE) -> Any:
        """As nn.ConvTranspose2d; `chain`: what stands around it."""
        chain = Chain(*chain)
        _watched(self, chain, input)
        fused = output_size is None and allowed(self, chain) and _transposed(self) is None
        if fused and served(input):
            weights = (self.weight, self.bias)
            if served(input, *weights):
                return chains.fused_conv_transpose2d_chain(self, input, weights, chain)
            return chains.plain_conv_transpose2d(self, input, weights, chain)
        return chains.activate(super().forward(input, output_size), chain.activation)


class ConvertedInstanceNorm2d(Converted, nn.InstanceNorm2d):
    """nn.InstanceNorm2d by `instance_norm`."""

    def forward(self, input: Any, *, chain: Any = ALONE, residual: Any = None) -> Any:
        """As nn.InstanceNorm2d; `chain`: what follows it."""
        chain = Chain(*chain)
        _watched(self, chain, input)
        weights = (self.weight, self.bias)
        others = (*weights, residual)
        if (
            served(input, *others)
            and input.shape[1] == self.num_features
            and input.shape[2] * input.shape[3] > 1
            and (residual is None or residual.shape == input.shape)
            and allowed(self, chain)
            and _norm(self) is None
        ):
            return chains.fused_instance_norm(self, input, weights, chain, residual)
        y = chains.activate(super().forward(input), chain.activation)
        return y if residual is None else residual + y


def _convolution(layer: nn.Conv2d) -> str | None:
    if layer.padding_mode not in ("zeros", "reflect", "replicate"):
        return f"padding_mode {layer.padding_mode!r}"
    return None


def _transposed(layer: nn.ConvTranspose2d) -> str | None:
    pairs = {"stride": layer.stride, "padding": layer.padding}
    for name, pair in pairs.items():
        if pair[0] != pair[1]:
            return f"{name} differs between height and width"
    fixed = {"output_padding": (0, 0), "dilation": (1, 1), "groups": 1, "padding_mode": "zeros"}
    for name, value in fixed.items():
        if getattr(layer, name) != value:
            return f"{name} is {getattr(layer, name)}"
    return None


def _norm(layer: nn.InstanceNorm2d) -> str | None:
    if layer.track_running_stats or layer.running_mean is not None:
        return "it tracks statistics"
    return None if layer.eps > 0 else "eps is 0"


_KINDS: dict[type, tuple[type[Converted], str, Any]] = {
    nn.Conv2d: (ConvertedConv2d, "conv2d", _convolution),
    nn.ConvTranspose2d: (ConvertedConvTranspose2d, "conv_transpose2d", _transposed),
    nn.InstanceNorm2d: (ConvertedInstanceNorm2d, "instance_norm", _norm),
}
NAMES = {name for _, name, _ in _KINDS.values()}
PLAIN: dict[type, Any] = {
    ConvertedConv2d: chains.plain_conv2d,
    ConvertedConvTranspose2d: chains.plain_conv_transpose2d,
    ConvertedInstanceNorm2d: chains.plain_instance_norm,
}
FUSED: dict[type, Any] = {
    ConvertedConv2d: chains.fused_conv2d_chain,
    ConvertedConvTranspose2d: chains.fused_conv_transpose2d_chain,
    ConvertedInstanceNorm2d: chains.fused_instance_norm,
}


def match(cls: type, layer: nn.Module) -> tuple[type[Converted], Record] | str | None:
    """Return the role and record for a layer of torch.nn, why it has none, or None for others."""
    if cls not in _KINDS:
        return None
    if "forward" in layer.__dict__:
        return "its forward was replaced"
    dtypes = {p.dtype for p in layer.parameters(recurse=False)} - set(_DTYPES)
    if dtypes:
        return f"its parameters are {dtypes.pop()}"
    role, kind, check = _KINDS[cls]
    reason = check(layer)
    return reason if isinstance(reason, str) else (role, Record(kind))
