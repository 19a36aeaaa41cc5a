"""Calls with something wrong: they must raise a ValueError or a TypeError that names the operator.

A case is drawn as ever, then one option or one tensor is replaced. Not all that comes of it is
wrong (a tuple may stand for a list): then the call must succeed, as on the reference backend.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

import inpaint_ops
from fuzz.case import Entry, Failure, entries
from fuzz.draws import Case, Draw
from fuzz.tensors import make

_INTS: tuple[Any, ...] = (-1, 0, 2**31, 2**40, 2**63, 10**30, "1", 1.5, None, True, [1, 2])
_PAIRS: tuple[Any, ...] = (
    *([-1, 1], [1], [1, 2, 3], [1, 2**31], [2**40, 1], [2**63, 2**63], [10**30, 1]),
    *(["1", 1], [1.0, 1], [True, 1], [None, None], 1.5, None, -1, "nonsense", 2**31),
)
_FLOATS: tuple[Any, ...] = (math.nan, math.inf, -math.inf, "x", None, -1.0, 0.0, True)
_BOOLS: tuple[Any, ...] = (1, "x", None)
_WORDS: tuple[Any, ...] = ("nonsense", "", 3, None)
# Only for the layer that is nn.Conv2d: what that raises is not ours.
_FOREIGN = ("PartialConv2d",)
# Of layers: parameters, and halves that the entry itself puts together.
_PARAMETERS = ("weight", "bias", "decoder", "encoder")
_TENSORS = (
    *("int64", "complex64", "float64", "float16", "no dimension", "one dimension more"),
    *("one channel more", "no channels", "one row less", "one sample more", "transposed"),
    *("list", "None", "number", "value 2", "value -1", "meta", "numpy"),
)


def spoil(d: Draw, entry: Entry, case: Case) -> None:
    """Draws what is wrong."""
    options = case.get("options", {})
    if options and d.chance(0.5) and entry.name not in _FOREIGN:
        name = d.of(sorted(options))
        case["spoil"] = ["option", name, d.of(_choices(options[name]))]
    else:
        names = [n for n in sorted(entry.specs(case)) if not (entry.layer and n in _PARAMETERS)]
        case["spoil"] = ["tensor", d.of(names), d.of(_TENSORS)]


def _choices(value: Any) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return _BOOLS
    if isinstance(value, int):
        return _INTS
    if isinstance(value, float):
        return _FLOATS
    if isinstance(value, list) or value == "same":
        return _PAIRS
    return _WORDS


def _spoiled(x: Tensor, how: str) -> Any:
    if how in ("int64", "complex64", "float64", "float16"):
        return x.to(getattr(torch, how))
    if how == "no dimension":
        return x.flatten()[0] if x.numel() else torch.zeros((), dtype=x.dtype)
    if how == "one dimension more":
        return x[None]
    if how in ("one channel more", "one sample more"):
        axis = min(x.dim() - 1, 1 if how == "one channel more" else 0)
        return torch.cat([x, x.narrow(axis, 0, min(1, x.shape[axis]))], axis)
    if how == "no channels":
        return x.narrow(min(1, x.dim() - 1), 0, 0)
    if how == "one row less":
        return x.narrow(max(0, x.dim() - 2), 0, max(0, x.shape[max(0, x.dim() - 2)] - 1))
    if how == "transposed":
        return x.transpose(-1, -2) if x.dim() > 1 else x
    if how in ("value 2", "value -1"):
        x = x.clone()
        if x.dtype != torch.bool and x.numel():
            x.view(-1)[0] = float(how[6:]) if x.is_floating_point() else int(how[6:]) % 256
        return x
    if how == "meta":
        return x.to("meta")
    if how == "numpy":
        return x.numpy() if x.dtype != torch.bfloat16 else x.float().numpy()
    return {"list": [1.0], "None": None, "number": 3.0}[how]


def _outcome(entry: Entry, case: Case, tensors: dict[str, Any], backend: str) -> tuple[str, Any]:
    try:
        with inpaint_ops.backend(backend), torch.no_grad():
            return "done", [tuple(y.shape) for y in entry.call(case, tensors)]
    except Exception as error:
        return type(error).__name__, str(error)


def check_error(case: Case) -> None:
    """Runs a spoiled case on its backend and on the reference."""
    entry = entries()[case["op"]]
    what, name, value = case["spoil"]
    sound = {k: v for k, v in case.items() if k != "spoil"}
    made = {n: make(sound, n, spec) for n, spec in entry.specs(sound).items()}
    entry.prepare(sound, made)
    tensors: dict[str, Any] = {n: one.tensor for n, one in made.items()}
    if what == "option":
        sound = {**sound, "options": {**sound["options"], name: value}}
    else:
        tensors[name] = _spoiled(tensors[name].contiguous(), value)
    got = _outcome(entry, sound, tensors, case["run"]["backend"])
    want = _outcome(entry, sound, tensors, "reference")
    if got[0] != want[0] or (got[0] == "done" and got[1] != want[1]):
        raise Failure(f"spoiled: {got[0]}: {got[1]}; on the reference {want[0]}: {want[1]}")
    for kind, text in (got, want):
        if kind == "done":
            continue
        if kind not in ("ValueError", "TypeError"):
            raise Failure(f"spoiled: raises {kind}: {text}")
        if not any(
            text.startswith(f"{one}:") for one in (*entries(), "partial_conv2d", "reduce_hole")
        ):
            raise Failure(f"spoiled: names no operator: {kind}: {text}")
