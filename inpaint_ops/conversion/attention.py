"""Recognition of contextual attention layers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops.conversion import recognition
from inpaint_ops.conversion.leaves import Watch, served
from inpaint_ops.conversion.record import Converted, Record, record_of
from inpaint_ops.conversion.sample import LAYER_TOLERANCE, difference, tensors_in
from inpaint_ops.conversion.signatures import call_of, parameters_of
from inpaint_ops.layers import ContextualAttention

# Features and mask of the probes: cells of 2 and 1 pixels, of masks 4, 8, 2 and 1 times as large.
_SIDE = 16
_FACTORS = (4, 8, 2, 1)


def recognise(module: nn.Module) -> tuple[type[Converted], Record] | str | None:
    """Recognise forward(f, b, mask) to (y, flow), of a module without parameters."""
    known = parameters_of(module)
    if known is None or len(known) < 2 or list(module.parameters()):
        return None
    if len(known) < 3 or any(p.default is p.empty for p in known[3:]):
        return None
    if not isinstance(getattr(module, "rate", None), int):
        return None
    twin = recognition.probed(module)
    if twin is None:
        return None
    generator = torch.Generator().manual_seed(3)
    f, b = (
        torch.randn(2, 6, _SIDE, _SIDE, generator=generator, dtype=torch.float32) for _ in range(2)
    )
    for factor in _FACTORS:
        masks = _masks(_SIDE * factor)
        try:
            with torch.no_grad():
                seen = [twin(f, f, masks[:1]), twin(f, b, masks), twin(f.mul(0.01), b, masks)]
        except Exception:
            continue
        if not isinstance(seen[0], tuple) or len(seen[0]) != 2:
            return None
        inputs = [(f, f, masks[:1]), (f, b, masks), (f.mul(0.01), b, masks)]
        for options in _candidates(module, factor):
            if _agrees(twin, options, inputs, seen):
                return ConvertedAttention, Record("contextual_attention", None, options)
        return "its values are those of no known contextual attention"
    return None


def _masks(side: int) -> Tensor:
    masks = torch.zeros(2, 1, side, side, dtype=torch.float32)
    masks[0, :, side // 4 : side // 2, side // 4 : 3 * side // 4] = 1
    masks[1, :, side // 2 :, : side // 3] = 1
    return masks


def _candidates(module: nn.Module, factor: int) -> Iterator[dict[str, Any]]:
    n_down = {1: 0, 2: 1, 4: 2, 8: 3}[factor]
    scale = getattr(module, "softmax_scale", 10.0)
    fuse = getattr(module, "fuse", True)
    choices = product(
        ("floor", "align_corners"),
        ("max", "sum"),
        (("zero", "constant"), ("exclude", "count")),
        (True, False),
        (False, True),
    )
    for pick, norm, (hole_mode, overlap), first, flow in choices:
        yield {
            "rate": module.rate,
            "softmax_scale": scale,
            "fuse": bool(fuse),
            "n_down": n_down,
            "return_flow": flow,
            "pick": pick,
            "key_norm": norm,
            "hole_mode": hole_mode,
            "overlap": overlap,
            "first_mask": first,
        }


def _layer(options: dict[str, Any]) -> ContextualAttention:
    return ContextualAttention(**{k: v for k, v in options.items() if k != "first_mask"})


def _run(options: dict[str, Any], f: Tensor, b: Tensor, mask: Tensor | None) -> Any:
    if mask is not None and options["first_mask"]:
        mask = mask[:1]  # the public layers take the mask of the first sample for all
    return _layer(options)(f, b, mask)


def _agrees(
    twin: nn.Module,
    options: dict[str, Any],
    inputs: list[tuple[Tensor, Tensor, Tensor]],
    seen: list[Any],
) -> bool:
    for arguments, theirs in zip(inputs, seen):
        with torch.no_grad():
            ours = _run(options, *arguments)
        if [type(v) for v in ours] != [type(v) for v in theirs]:
            return False
        if not difference(tensors_in(ours), tensors_in(theirs)) <= LAYER_TOLERANCE:
            return False
    f, b, masks = inputs[1]
    f, b = f.clone().requires_grad_(), b.clone().requires_grad_()
    gap = recognition.agreement(
        lambda: _run(options, f, b, masks)[0], lambda: twin(f, b, masks)[0], [f, b]
    )
    return gap is not None and gap <= LAYER_TOLERANCE


class ConvertedAttention(Converted):
    """A layer that was recognised as contextual attention."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the class it stands for."""
        module: Any = self
        record = record_of(module)
        call = call_of(module, args, kwargs, 3)
        if Watch.observer is not None and call:
            Watch.observer.note(module, recognition.CALL, *call)
        if record is not None and recognition.may_run(module) and _fits(module, record, call):
            return _run(record.options, *call)
        return super().forward(*args, **kwargs)  # type: ignore[misc]


def _fits(module: Any, record: Record, call: list[Any]) -> bool:
    if len(call) != 3 or not served(call[0], call[1]):
        return False
    f, b, mask = call
    options = record.options
    if (module.rate, bool(getattr(module, "fuse", True))) != (options["rate"], options["fuse"]):
        return False
    if getattr(module, "softmax_scale", 10.0) != options["softmax_scale"]:
        return False
    if not isinstance(mask, Tensor) or mask.dim() != 4 or mask.shape[1] != 1:
        return False
    # Probed with whole cells only: what the public layers do to others is their own.
    step = options["rate"]
    whole = all(n % step == 0 for x in (f, b) for n in x.shape[2:])
    sides = tuple(n * 2 ** options["n_down"] for n in b.shape[2:])
    one = options["first_mask"] or mask.shape[0] in (1, f.shape[0])
    return whole and one and tuple(mask.shape[2:]) == sides and b.shape[:2] == f.shape[:2]
