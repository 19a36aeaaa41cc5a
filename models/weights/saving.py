"""Weights out: our own files, and networks in the layouts of public implementations."""

from __future__ import annotations

import inspect
import json
import os
from pathlib import Path
from typing import Any

from torch import Tensor

from inpaint_ops.atomic import write_atomically
from inpaint_ops.checkpoints import State, safetensors_package
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.layouts import Layout, Place

# The name of our own layout: the model's state dict, or part of it.
NATIVE = "inpaint_ops"


def public_state(model: InpaintingModel, layout: Layout) -> State:
    """Return the state dict of one network under a layout's names.

    Raises:
        ValueError: the layout is of another variant of the network.
    """
    network = model.get_submodule(layout.network)
    own = network.state_dict()
    try:
        places = layout.keys(network)
        state = {key: _value(own, place) for key, place in places.items()}
    except (AttributeError, KeyError) as exc:
        raise ValueError(
            f"save_weights: layout {layout.label} is of another variant than this model"
        ) from exc
    state = layout.restore(state)
    state.update(layout.emitted(network))
    return {f"{layout.prefix}{key}": value for key, value in state.items()}


def _value(own: State, place: Place) -> Tensor:
    if isinstance(place, str):
        return own[place]
    name, index, count = place
    return own[name].chunk(count)[index]


def model_options(model: InpaintingModel) -> dict[str, Any]:
    """Return the constructor options of a model."""
    names = inspect.signature(type(model).__init__).parameters
    return {name: getattr(model, name) for name in names if name != "self"}


def save_weights(
    model: InpaintingModel, path: str | os.PathLike[str], *, layout: str = NATIVE
) -> None:
    """Write a .safetensors file with a record of method, options and layout.

    Args:
        model: the model to save.
        path: ends in .safetensors; replaced as a whole if it exists.
        layout: "inpaint_ops" for everything, or "name/network" (or a name with one network) for
            one network in a public layout.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be written.
        ValueError: wrong suffix or layout, or the layout of another variant.
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
            names = ", ".join([NATIVE, *(x.label for x in model.layouts)])
            raise ValueError(f"save_weights: layout must be one of {names}, got {layout!r}")
        state = public_state(model, chosen[0])
        metadata["licence"] = chosen[0].licence
    safetensors_package()
    from safetensors.torch import save

    values = {k: v.detach().contiguous().clone() for k, v in state.items()}
    with write_atomically(path) as file:
        file.write(save(values, metadata))
