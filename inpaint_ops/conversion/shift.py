"""Recognition of shift layers, whose mask is set before they are called."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.conversion import recognition
from inpaint_ops.conversion.leaves import Watch, served
from inpaint_ops.conversion.record import Converted, Record, record_of
from inpaint_ops.conversion.sample import LAYER_TOLERANCE
from inpaint_ops.conversion.signatures import call_of, parameters_of
from inpaint_ops.layers import ShiftConnection

_SIDE = 8


def recognise(module: nn.Module) -> tuple[type[Converted], Record] | str | None:
    """Recognise forward(x) to [x, shifted], of a module whose mask is an attribute."""
    known = parameters_of(module)
    setter = getattr(module, "set_mask", None)
    if known is None or not known or any(p.default is p.empty for p in known[1:]):
        return None
    if setter is None or not callable(setter) or list(module.parameters()):
        return None
    twin: Any = recognition.probed(module)
    if twin is None:
        return None
    generator = torch.Generator().manual_seed(7)
    names: set[str] | None = None
    rounds = []
    for top, left, factor in ((2, 1, 8), (1, 3, 8)):
        x = torch.randn(1, 12, _SIDE, _SIDE, generator=generator, dtype=torch.float32)
        mask = torch.zeros(1, 1, _SIDE, _SIDE, dtype=torch.float32)
        mask[:, :, top : top + 4, left : left + 3] = 1
        large = mask.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
        for value in (large, large[0]):
            try:
                twin.set_mask(value)
                theirs = twin(x)
            except Exception:
                continue
            break
        else:
            return None
        if not isinstance(theirs, Tensor) or theirs.shape != (1, 18, _SIDE, _SIDE):
            return None
        found = {
            name
            for name, value in {**twin.__dict__, **twin._buffers}.items()
            if isinstance(value, Tensor)
            and value.numel() == mask.numel()
            and torch.equal(value.reshape(mask.shape).float(), mask)
        }
        names = found if names is None else names & found
        rounds.append((x, value))
    if not names:
        return "its mask is no attribute of the size of its features"
    for name in sorted(names):
        for scale in (float(getattr(module, "triple_weight", 1.0)), 1.0):
            options = {"mask": name, "gradient_scale": scale}
            if all(_agrees(twin, options, x, value) for x, value in rounds):
                return ConvertedShift, Record("shift_connection", None, options)
    return "its values are not those of a shift layer"


def _agrees(twin: Any, options: dict[str, Any], x: Tensor, mask: Tensor) -> bool:
    twin.set_mask(mask)
    x = x.clone().requires_grad_()
    gap = recognition.agreement(lambda: _run(twin, options, x), lambda: twin(x), [x])
    return gap is not None and gap <= LAYER_TOLERANCE


def _mask(module: Any, options: dict[str, Any], x: Tensor) -> Tensor | None:
    """Return the mask that is set, (N or 1, 1, h, w), or None if it does not fit."""
    mask = getattr(module, options["mask"], None)
    size = x.shape[2] * x.shape[3]
    if not isinstance(mask, Tensor) or mask.device != x.device:
        return None
    if mask.shape[-2:] != x.shape[2:] or mask.numel() not in (size, size * x.shape[0]):
        return None
    return mask.reshape(-1, 1, *x.shape[2:]) != 0


def _run(module: Any, options: dict[str, Any], x: Tensor) -> Any:
    hole = _mask(module, options, x)
    if hole is None:
        raise ValueError("no mask is set")
    return ShiftConnection(options["gradient_scale"])(x, hole)[0]


class ConvertedShift(Converted):
    """A layer that was recognised as a shift connection."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the class it stands for."""
        module: Any = self
        record = record_of(module)
        call = call_of(module, args, kwargs, 1)
        if Watch.observer is not None and call:
            Watch.observer.note(module, recognition.CALL, *call)
        if record is not None and recognition.may_run(module) and _fits(module, record, call):
            return _run(module, record.options, call[0])
        return super().forward(*args, **kwargs)  # type: ignore[misc]


def _fits(module: Any, record: Record, call: list[Any]) -> bool:
    if len(call) != 1 or not served(call[0]) or call[0].shape[1] % 2:
        return False
    weight = float(getattr(module, "triple_weight", record.options["gradient_scale"]))
    if weight != record.options["gradient_scale"]:
        return False
    hole = _mask(module, record.options, call[0])
    # The public layer fails without a hole; what it does with nothing known is its own.
    return hole is not None and bool(hole.any()) and not bool(hole.all())
