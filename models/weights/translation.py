"""State dicts of our networks from those of files: keys mapped, shapes and values checked."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from inpaint_ops.checkpoints import State
from inpaint_ops.models.weights.layouts import Layout, Place


def translate_own(network: nn.Module, state: State, origin: str, prefix: str, method: str) -> State:
    """The state dict of a network from one with its own keys.

    Args:
        network: of the right shapes; its values are not read, it may be on the meta device.
        state: keys of the network.
        origin: for messages.
        prefix: of the keys, for messages.
        method: name of the model, for messages.

    Raises:
        ValueError: missing, unknown or misshapen keys, or values that are no finite numbers.
    """
    own = network.state_dict()
    missing, unknown = set(own) - set(state), set(state) - set(own)
    report(
        origin,
        method,
        {prefix + key for key in missing},
        {prefix + key for key in unknown},
        "; give the options that the model had when it was saved",
    )
    return _converted(origin, {prefix + key: (key, own[key], state[key]) for key in own})


def translate(
    network: nn.Module, layout: Layout, state: State, origin: str, prefix: str, method: str
) -> State:
    """Return the values of a network in a public state dict, under our keys.

    Args, Raises: as `translate_own`. Keys that the layout lets be missing may be absent from the
    result.
    """
    places = _places(network, layout, origin)
    # Old spectral normalisation also stores the normalised weight.
    derived = {k for k in state if k.endswith("weight") and f"{k}_orig" in state} - set(places)
    dropped = {k for k in state if _fits(layout.ignored, k)} - set(places) | derived
    given = {k: v for k, v in state.items() if k not in dropped}
    for key in given.keys() & places.keys():
        _check_kind(origin, prefix + key, given[key])
    given = layout.convert(given)
    absent = {key for key in set(places) - set(given) if not _fits(layout.optional, key)}
    missing = {prefix + key for key in absent}
    report(origin, f"{method} ({layout.label})", missing, set(given) - set(places))
    own = network.state_dict()
    whole = {
        prefix + key: (place, own[place], given[key])
        for key, place in places.items()
        if key in given and isinstance(place, str)
    }
    ours = _converted(origin, whole)
    parts: dict[str, dict[int, Tensor]] = {}
    for key, place in places.items():
        if key in given and not isinstance(place, str):
            name, index, count = place
            target = own[name].chunk(count)[index]
            value = _converted(origin, {prefix + key: (name, target, given[key])})
            parts.setdefault(name, {})[index] = value[name]
    ours.update({n: torch.cat([got[i] for i in sorted(got)]) for n, got in parts.items()})
    for name in own:
        if name not in ours and name.endswith(".0._v"):
            ours[name] = _second_vector(network, name, ours, places, state)
    return ours


def _places(network: nn.Module, layout: Layout, origin: str) -> dict[str, Place]:
    try:
        return dict(layout.keys(network))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as exc:
        raise ValueError(
            f"load_weights: {origin} ({layout.label}) is of another variant than this model"
        ) from exc


def _fits(patterns: tuple[str, ...], key: str) -> bool:
    return any(re.search(pattern, key) for pattern in patterns)


def report(origin: str, target: str, missing: set[str], unknown: set[str], hint: str = "") -> None:
    """Raises ValueError that lists keys, if there are any."""
    if not missing and not unknown:
        return
    parts = []
    for label, keys in (("missing", missing), ("unknown", unknown)):
        if keys:
            shown = ", ".join(sorted(keys)[:12])
            parts.append(f"{len(keys)} {label}: {shown}{', ...' if len(keys) > 12 else ''}")
    raise ValueError(f"load_weights: {origin} does not fit {target}; " + "; ".join(parts) + hint)


def _check_kind(origin: str, key: str, value: Tensor) -> None:
    if value.layout is not torch.strided or value.is_nested:
        kind = str(value.layout).removeprefix("torch.")
        raise ValueError(f"load_weights: {origin}: {key} must be a dense tensor, got {kind}")
    if value.device.type == "meta":
        raise ValueError(f"load_weights: {origin}: {key} must have values, got a meta tensor")


def _converted(origin: str, pairs: Mapping[str, tuple[str, Tensor, Tensor]]) -> State:
    """Return the values of a file by our names, in our dtypes.

    `pairs`: the file's key, for messages, to our key, our tensor and the file's.
    """
    for key, (_, _, theirs) in pairs.items():
        _check_kind(origin, key, theirs)
    wrong = [
        f"{key} must be {tuple(ours.shape)}, got {tuple(theirs.shape)}"
        for key, (_, ours, theirs) in pairs.items()
        if ours.shape != theirs.shape
    ]
    if wrong:
        raise ValueError(f"load_weights: {origin}: " + "; ".join(wrong[:6]))
    return {name: _cast(origin, key, o, t) for key, (name, o, t) in pairs.items()}


def _cast(origin: str, key: str, ours: Tensor, theirs: Tensor) -> Tensor:
    """Return the file's value in our dtype, finite after the conversion."""
    kind = str(theirs.dtype).removeprefix("torch.")
    if not ours.is_floating_point():
        if theirs.is_floating_point() or theirs.is_complex() or theirs.dtype == torch.bool:
            raise ValueError(f"load_weights: {origin}: {key} must be integer, got {kind}")
        return theirs.detach().to(ours.dtype)
    if not theirs.is_floating_point():
        raise ValueError(f"load_weights: {origin}: {key} must be floating, got {kind}")
    value = theirs.detach().to(ours.dtype)
    if bool(torch.isfinite(value).all()):
        return value
    if bool(torch.isfinite(theirs).all()):
        largest = theirs.abs().max().item()
        mine = str(ours.dtype).removeprefix("torch.")
        raise ValueError(
            f"load_weights: {origin}: {key} must be finite in {mine}, got values up to {largest:g}"
        )
    raise ValueError(f"load_weights: {origin}: {key} must be finite, got infinite values or NaN")


def _second_vector(
    network: nn.Module,
    name: str,
    ours: State,
    places: Mapping[str, Place],
    state: Mapping[str, Tensor],
) -> Tensor:
    """Return the second vector of a spectral normalisation, which old files leave out."""
    base = name.removesuffix(".0._v")
    original = ours[f"{base}.original"]
    dim: int = network.get_submodule(f"{base}.0").dim  # type: ignore[assignment]
    matrix = original.movedim(dim, 0).flatten(1)
    v: Tensor = matrix.T @ ours[f"{base}.0._u"]
    sigma = v.norm()
    v = v / sigma.clamp_min(1e-12)
    public = next(key for key, place in places.items() if place == f"{base}.original")
    effective = state.get(public.removesuffix("_orig")) if public.endswith("_orig") else None
    if effective is not None and effective.shape == original.shape:
        # PyTorch 1.0 kept the normalised weight instead of v: its scale gives sigma.
        kept = effective.abs() > 1e-12
        if kept.any():
            v = v * (original[kept] / effective[kept]).mean() / sigma
    return v
