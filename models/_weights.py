"""Weights in and out: our own files and the layouts of public implementations."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inpaint_ops._atomic import write_atomically
from inpaint_ops.models._layouts import (
    Checkpoint,
    Layout,
    Place,
    State,
    read_checkpoint,
    safetensors_package,
)

if TYPE_CHECKING:
    from inpaint_ops.models._model import InpaintingModel

# Our own layout: the model's state dict, or part of it, with a metadata record.
NATIVE = "inpaint_ops"


def _native_options(cls: type[InpaintingModel], checkpoint: Checkpoint) -> dict[str, Any]:
    method = checkpoint.metadata.get("method")
    if method != cls.name:
        raise ValueError(f"load_weights: {checkpoint.origin} is of {method}, not of {cls.name}")
    try:
        options: dict[str, Any] = json.loads(checkpoint.metadata["options"])
    except (KeyError, ValueError) as exc:
        raise ValueError(f"load_weights: {checkpoint.origin} has damaged metadata") from exc
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def implied_options(cls: type[InpaintingModel], checkpoint: Checkpoint) -> dict[str, Any]:
    """Constructor options that a file implies.

    Raises:
        ValueError: no layout of the method fits, or two networks imply different options.
    """
    if checkpoint.metadata.get("layout") == NATIVE:
        return _native_options(cls, checkpoint)
    options: dict[str, Any] = {}
    for layout, state in _matches(cls, checkpoint, "auto"):
        implied = {"channel_order": layout.channel_order, **layout.options(state)}
        for key, value in implied.items():
            if options.setdefault(key, value) != value:
                raise ValueError(
                    f"load_weights: {checkpoint.origin} implies {key} {options[key]} and {value}"
                )
    return options


def _matches(
    cls: type[InpaintingModel], checkpoint: Checkpoint, layout: str
) -> list[tuple[Layout, State]]:
    name, _, network = layout.partition("/")
    known = [one for one in cls.layouts if name in ("auto", one.name)]
    known = [one for one in known if not network or one.network == network]
    if not known:
        names = ", ".join(sorted({one.name for one in cls.layouts} | {NATIVE}))
        raise ValueError(f"load_weights: layout must be auto or of {names}, got {layout!r}")
    found: dict[str, tuple[Layout, State]] = {}
    for one in known:
        state = one.find(checkpoint)
        if state is not None:
            found.setdefault(one.network, (one, state))
    if found:
        return list(found.values())
    keys = sorted({k for one in known for s in checkpoint.dicts(one.nesting) for k in s})
    wanted = [(one, key) for one in known for key in one.signature]
    close = [
        f"{one.name}/{one.network} has {key} (closest here: "
        f"{', '.join(difflib.get_close_matches(key, keys, 1, 0.0)) or 'none'})"
        for one, key in wanted[:8]
    ]
    raise ValueError(
        f"load_weights: {checkpoint.origin} has no known layout of {cls.name}: " + "; ".join(close)
    )


def load_weights(
    model: InpaintingModel,
    weights: str | os.PathLike[str] | Mapping[str, Any] | Checkpoint,
    *,
    layout: str = "auto",
) -> list[str]:
    """Fills a model, or those of its networks that the file holds.

    Args:
        model: from `create_model`, with the options that the file implies.
        weights: .safetensors or PyTorch file (read with weights_only), or a loaded dict; nested
            dicts and DataParallel's prefixes are recognised.
        layout: "auto", the name of a layout, or "name/network" where one name has several.

    Returns:
        The networks that were filled.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: neither path nor dict.
        ValueError: damaged file, unknown layout, other options than the model's, missing, unknown
            or misshapen keys; the model is unchanged then.
    """
    checkpoint = read_checkpoint(weights)
    native = checkpoint.metadata.get("layout") == NATIVE and layout == "auto"
    if native or layout == NATIVE:
        return _load_native(model, checkpoint)
    prepared = []
    for one, state in _matches(type(model), checkpoint, layout):
        implied = {"channel_order": one.channel_order, **one.options(state)}
        for key, value in implied.items():
            if getattr(model, key) != value:
                raise ValueError(
                    f"load_weights: {checkpoint.origin} ({one.name}) needs a model with "
                    f"{key}={value!r}, this one has {getattr(model, key)!r}"
                )
        prepared.append((one.network, _translate(model, one, state, checkpoint.origin)))
    for network, ours in prepared:
        model.get_submodule(network).load_state_dict(ours)
    return [network for network, _ in prepared]


def _load_native(model: InpaintingModel, checkpoint: Checkpoint) -> list[str]:
    (state,) = checkpoint.dicts(())
    own = model.state_dict()
    networks = sorted({key.partition(".")[0] for key in state})
    wanted = {key for key in own if key.partition(".")[0] in networks}
    _report(checkpoint.origin, NATIVE, wanted - set(state), set(state) - wanted)
    _check_shapes(checkpoint.origin, {key: (own[key], state[key]) for key in state})
    model.load_state_dict({**own, **state})
    return networks


def _fits(patterns: tuple[str, ...], key: str) -> bool:
    return any(re.search(pattern, key) for pattern in patterns)


def _report(origin: str, layout: str, missing: set[str], unknown: set[str]) -> None:
    if not missing and not unknown:
        return
    parts = []
    for label, keys in (("missing", missing), ("unknown", unknown)):
        if keys:
            shown = ", ".join(sorted(keys)[:12])
            parts.append(f"{len(keys)} {label}: {shown}{', ...' if len(keys) > 12 else ''}")
    raise ValueError(f"load_weights: {origin} does not fit {layout}; " + "; ".join(parts))


def _check_shapes(origin: str, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    wrong = [
        f"{key} must be {tuple(ours.shape)}, got {tuple(theirs.shape)}"
        for key, (ours, theirs) in pairs.items()
        if ours.shape != theirs.shape
    ]
    if wrong:
        raise ValueError(f"load_weights: {origin}: " + "; ".join(wrong[:6]))
    for key, (_, theirs) in pairs.items():
        if theirs.is_floating_point() and not bool(torch.isfinite(theirs).all()):
            raise ValueError(f"load_weights: {origin}: {key} must be finite")


def _translate(model: InpaintingModel, layout: Layout, state: State, origin: str) -> State:
    network = model.get_submodule(layout.network)
    own = network.state_dict()
    places = dict(layout.keys(network))
    # Old spectral normalisation also stores the normalised weight.
    derived = {k for k in state if k.endswith("weight") and f"{k}_orig" in state} - set(places)
    dropped = {k for k in state if _fits(layout.ignored, k)} - set(places) | derived
    given = {k: v for k, v in state.items() if k not in dropped}
    given = layout.convert(given)
    absent = {key for key in set(places) - set(given) if not _fits(layout.optional, key)}
    _report(
        origin,
        f"{layout.name}/{layout.network}",
        {layout.prefix + key for key in absent},
        set(given) - set(places),
    )
    ours: State = {}
    pairs = {}
    parts: dict[str, dict[int, Tensor]] = {}
    for key, place in places.items():
        if key not in given:
            continue
        if isinstance(place, str):
            ours[place], pairs[layout.prefix + key] = given[key], (own[place], given[key])
        else:
            name, index, count = place
            pairs[layout.prefix + key] = (own[name].chunk(count)[index], given[key])
            parts.setdefault(name, {})[index] = given[key]
    _check_shapes(origin, pairs)
    ours.update({n: torch.cat([got[i] for i in sorted(got)]) for n, got in parts.items()})
    for name, value in own.items():
        if name not in ours:
            ours[name] = _derive(network, name, value, ours, places, state)
    return ours


def _derive(
    network: nn.Module,
    name: str,
    value: Tensor,
    ours: State,
    places: Mapping[str, Place],
    state: Mapping[str, Tensor],
) -> Tensor:
    """What a file leaves out: counters, and the second vector of a spectral normalisation."""
    base = name.removesuffix(".0._v")
    if base == name:
        return value
    original = ours[f"{base}.original"]
    dim: int = network.get_submodule(f"{base}.0").dim  # type: ignore[assignment]
    matrix = original.movedim(dim, 0).flatten(1)
    v: Tensor = matrix.T @ ours[f"{base}.0._u"]
    sigma = v.norm()
    v = v / sigma.clamp_min(1e-12)
    public = next(key for key, place in places.items() if place == f"{base}.original")
    effective = state.get(public.removesuffix("_orig")) if public.endswith("_orig") else None
    if effective is not None:
        # PyTorch 1.0 kept the normalised weight instead of v: its scale gives sigma.
        kept = effective.abs() > 1e-12
        v = v * (original[kept] / effective[kept]).mean() / sigma
    return v


def public_state(model: InpaintingModel, layout: Layout) -> State:
    """The state dict of one network under a layout's names."""
    network = model.get_submodule(layout.network)
    own = network.state_dict()
    state: State = {}
    for key, place in layout.keys(network).items():
        if isinstance(place, str):
            state[key] = own[place]
        else:
            name, index, count = place
            state[key] = own[name].chunk(count)[index]
    state = layout.restore(state)
    state.update(layout.emitted(network))
    return {f"{layout.prefix}{key}": value for key, value in state.items()}


def model_options(model: InpaintingModel) -> dict[str, Any]:
    """The constructor options of a model."""
    names = inspect.signature(type(model).__init__).parameters
    return {name: getattr(model, name) for name in names if name != "self"}


def save_weights(
    model: InpaintingModel, path: str | os.PathLike[str], *, layout: str = NATIVE
) -> None:
    """Writes a .safetensors file with a record of method, options and layout.

    Args:
        model: what is saved.
        path: ends in .safetensors; replaced as a whole if it exists.
        layout: "inpaint_ops" for everything, or "name/network" (or a name with one network) for
            one network in a public layout.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be written.
        ValueError: wrong suffix or layout.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"save_weights: path must end in .safetensors, got {path.name}")
    metadata = {
        "method": model.name,
        "options": json.dumps(model_options(model)),
        "layout": layout,
        "channel_order": model.channel_order,
    }
    if layout == NATIVE:
        state = model.state_dict()
    else:
        name, _, network = layout.partition("/")
        chosen = [x for x in model.layouts if x.name == name and network in ("", x.network)]
        if len(chosen) != 1:
            names = ", ".join(f"{x.name}/{x.network}" for x in model.layouts)
            raise ValueError(f"save_weights: layout must be {NATIVE} or of {names}, got {layout!r}")
        state = public_state(model, chosen[0])
        metadata["licence"] = chosen[0].licence
    safetensors_package()
    from safetensors.torch import save

    values = {k: v.detach().contiguous().clone() for k, v in state.items()}
    with write_atomically(path) as file:
        file.write(save(values, metadata))
