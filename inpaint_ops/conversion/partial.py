"""Recognition of partial convolutions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops.conversion import recognition
from inpaint_ops.conversion.leaves import Watch, served
from inpaint_ops.conversion.record import Converted, Record, base_class, record_of
from inpaint_ops.conversion.sample import LAYER_TOLERANCE
from inpaint_ops.conversion.signatures import call_of, parameters_of
from inpaint_ops.ops.partial_conv2d import partial_conv2d


def _convolutions(module: nn.Module) -> tuple[nn.Module, nn.Module | None] | None:
    """Return what holds the weights, and the convolution of the mask where there is one."""
    children = list(module.children())
    own = {name for name, p in module._parameters.items() if p is not None}
    if isinstance(module, nn.Conv2d):
        return (module, None) if not children else None
    convolutions = [m for m in children if issubclass(base_class(m), nn.Conv2d)]
    if own or len(children) != len(convolutions) or not 1 <= len(convolutions) <= 2:
        return None
    if any(base_class(m) is not nn.Conv2d for m in convolutions):
        return None
    counting = [m for m in convolutions if _is_counting(m)]
    rest = [m for m in convolutions if m not in counting]
    if len(rest) != 1 or len(counting) > 1:
        return None
    return rest[0], counting[0] if counting else None


def _is_counting(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.requires_grad:
        return False
    return bool((weight == 1).all()) and getattr(module, "bias", None) is None


def recognise(module: nn.Module) -> tuple[type[Converted], Record] | str | None:
    """Recognise a partial convolution: forward(x, mask) to y, or to (y, mask)."""
    known = parameters_of(module)
    if known is None or len(known) < 2 or base_class(module) is nn.Conv2d:
        return None
    if any(p.default is p.empty for p in known[2:]):
        return None
    parts = _convolutions(module)
    if parts is None:
        return None
    layer = parts[0]
    assert isinstance(layer, nn.Conv2d)
    if layer.padding_mode != "zeros" or layer.weight.dtype is not torch.float32:
        return None
    path = next(name for name, m in module.named_modules() if m is layer)
    for channels in (1, layer.in_channels):
        for rule in ("window", "sum"):
            options = {"layer": path, "channels": channels, "normalise": rule}
            result = _agrees(module, options)
            if result is not None:
                return ConvertedPartial, Record("partial_conv2d", None, {**options, **result})
    return "its values are not those of a partial convolution"


def _masks(channels: int, size: tuple[int, int]) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(5)
    for share in (0.35, 0.8):
        mask = torch.rand((2, channels, *size), generator=generator, dtype=torch.float32)
        mask = (mask < share).float()
        mask[:, :, : size[0] // 2, : size[1] // 2] = 0
        yield mask
    yield torch.ones(2, channels, *size, dtype=torch.float32)
    yield torch.zeros(2, channels, *size, dtype=torch.float32)


def _agrees(module: nn.Module, options: dict[str, Any]) -> dict[str, Any] | None:
    """Return the rest of the options if these are the module's, or None."""
    twin = recognition.probed(module)
    if twin is None:
        return None
    layer = twin.get_submodule(options["layer"])
    assert isinstance(layer, nn.Conv2d)
    # Filters of the size that leaves results of order one, and a bias that shows.
    generator = torch.Generator().manual_seed(11)
    for p in layer.parameters():
        with torch.no_grad():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float32).to(p))
    reach = [d * (k - 1) + 2 for d, k in zip(layer.dilation, layer.kernel_size)]
    size = (max(12, reach[0]), max(11, reach[1]))
    device = layer.weight.device
    answer: dict[str, Any] = {}
    for mask in _masks(options["channels"], size):
        shape = (2, layer.in_channels, *size)
        x = torch.randn(shape, generator=generator, dtype=torch.float32).to(device)
        x, mask = x.requires_grad_(), mask.to(device)
        try:
            theirs = twin(x, mask)
        except Exception:
            return None
        if isinstance(theirs, (tuple, list)):
            if len(theirs) != 2 or not isinstance(theirs[1], Tensor) or theirs[1].dim() != 4:
                return None
            seen: dict[str, Any] = {"returned": theirs[1].shape[1], "form": type(theirs)}
        else:
            seen = {"returned": 0, "form": Tensor}
        if answer and answer != seen:
            return None
        answer = seen
        if seen["returned"] not in (0, 1, layer.out_channels):
            return None
        wanted = [x, *(p for p in layer.parameters() if p.requires_grad)]
        record = Record("partial_conv2d", None, {**options, **answer})

        def ours(x: Tensor = x, mask: Tensor = mask, record: Record = record) -> Any:
            return run_partial(layer, record, x, mask)

        def again(x: Tensor = x, mask: Tensor = mask) -> Any:
            return twin(x, mask)

        gap = recognition.agreement(ours, again, wanted)
        if gap is None or not gap <= LAYER_TOLERANCE:
            return None
    return answer


def run_partial(
    layer: nn.Conv2d, record: Record, x: Any, mask: Any, upsample: Any = 1, views: bool = False
) -> Any:
    """Return what a recognised layer returns; x and mask may be tuples of parts.

    With `views` the planes of the mask that is returned are the same memory.
    """
    options = record.options
    mask = tuple(map(_plane, mask)) if isinstance(mask, tuple) else _plane(mask)
    y, valid = partial_conv2d(
        x,
        mask,
        layer.weight,
        layer.bias,
        stride=_pair(layer.stride),
        padding=(0, 0) if layer.padding == "valid" else layer.padding,  # type: ignore[arg-type]
        dilation=_pair(layer.dilation),
        groups=layer.groups,
        normalise=options["normalise"],
        upsample=upsample,
    )
    if not options["returned"]:
        return y
    if options["returned"] > 1:
        valid = valid.expand(-1, options["returned"], -1, -1)
        valid = valid if views else valid.contiguous()
    return (y, valid) if options["form"] is tuple else [y, valid]


def _plane(mask: Tensor) -> Tensor:
    """Return the one plane of a mask whose planes are the same memory."""
    return mask[:, :1] if mask.stride(1) == 0 else mask


def _pair(value: Any) -> tuple[int, int]:
    return value[0], value[1]


class ConvertedPartial(Converted):
    """A layer that was recognised as a partial convolution."""

    def forward(self, *args: Any, upsample: Any = None, views: bool = False, **kwargs: Any) -> Any:
        """As the class it stands for; with `upsample` x and mask are tuples of parts."""
        module: Any = self
        record = record_of(module)
        call = call_of(module, args, kwargs, 2)
        if upsample is not None:
            if record and Watch.observer is None and _fit(module, record, *call):
                layer = _formed(module, record, call[0][0])
                return run_partial(layer, record, call[0], call[1], upsample, views)
            call = [_joined(parts, upsample) for parts in call]
            args, kwargs = tuple(call), {}
        if Watch.observer is not None and call:
            Watch.observer.note(module, recognition.CALL, *call)
        if record and call and _fit(module, record, (call[0],), (call[1],)):
            layer = _formed(module, record, call[0])
            return run_partial(layer, record, call[0], call[1], 1, views)
        return super().forward(*args, **kwargs)  # type: ignore[misc]


def _joined(parts: tuple[Tensor, ...], upsample: tuple[int, ...]) -> Tensor:
    doubled = (
        F.interpolate(x, scale_factor=2.0, mode="nearest") if factor == 2 else x
        for x, factor in zip(parts, upsample)
    )
    return torch.cat(list(doubled), 1)


def _formed(module: Any, record: Any, x: Tensor) -> Any:
    layer = module.get_submodule(record.options["layer"])
    # As its own call would: spectral and weight norm form the weight in hooks.
    return layer if layer is module else _Formed(layer, x)


def _fit(module: Any, record: Record | None, xs: Any, masks: Any) -> bool:
    """Return whether the operator is for these pictures and masks."""
    if record is None or not recognition.may_run(module):
        return False
    layer: Any = module.get_submodule(record.options["layer"])
    if len(xs) != len(masks) or not served(xs[0], layer.weight, layer.bias, *xs[1:]):
        return False
    if not all(_fits(record, x, mask) for x, mask in zip(xs, masks)):
        return False
    channels = record.options["channels"]
    return (channels == 1 and len(xs) == 1) or sum(m.shape[1] for m in masks) == channels


def _fits(record: Record, x: Tensor, mask: Any) -> bool:
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[2:] != x.shape[2:]:
        return False
    if mask.requires_grad or mask.device != x.device or mask.shape[0] not in (1, x.shape[0]):
        return False
    if record.options["channels"] > 1 and mask.shape[1] != x.shape[1]:
        return False
    # The mask convolution of a port returns a mask for each sample.
    whole: bool = record.options["normalise"] == "window" or mask.shape[0] == x.shape[0]
    return whole and mask.dtype == x.dtype


class _Formed:
    """The parameters of a layer after its hooks ran, and its geometry."""

    def __init__(self, layer: nn.Conv2d, x: Tensor) -> None:
        for hook in layer._forward_pre_hooks.values():
            hook(layer, (x,))
        self._layer = layer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)
