"""The state dicts in a file that may be those of a method, whatever wraps or prefixes them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from inpaint_ops.checkpoints import Checkpoint, State, peeled, unwrapped
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.shapes import shapes_of

# Keys under which training scripts keep a model's state dict.
NESTING = ("state_dict", "model", "model_state_dict")


@dataclass(frozen=True)
class Candidate:
    """A state dict in a file.

    Attributes:
        state: without the prefix.
        prefix: of its keys in the file.
        network: the only one whose weights it can be, by the name it is kept under; None: any.
    """

    state: State
    prefix: str
    network: str | None


def candidates(checkpoint: Checkpoint, networks: Sequence[str]) -> list[Candidate]:
    """The state dicts of a file with and without the prefixes that all their keys share.

    Where each key begins with the name of a network, or a dict is kept under such a name, the state
    dicts of these networks follow.
    """
    found = []
    for whole in checkpoint.dicts(NESTING):
        for state, prefix in peeled(whole):
            found.append(Candidate(state, prefix, None))
            parts = split(state)
            if set(parts) <= set(networks):
                for name, part in parts.items():
                    found += _under(name, part, f"{prefix}{name}.")
                break
    for name in networks:
        found += _under(name, checkpoint.state(name), "")
    return found


def split(state: State) -> dict[str, State]:
    """The parts of a state dict by the first names of its keys."""
    parts: dict[str, State] = {}
    for key, value in state.items():
        name, _, inside = key.partition(".")
        parts.setdefault(name, {})[inside] = value
    return parts


def _under(network: str, state: State, prefix: str) -> list[Candidate]:
    return [Candidate(one, prefix + more, network) for one, more in peeled(unwrapped(state))]


def own_networks(cls: type[InpaintingModel], candidate: Candidate) -> list[str]:
    """The networks of a method that have the keys of a candidate, numbers of layers aside.

    Where several do, those of them whose shapes are the candidate's.
    """
    keys = _patterns(candidate.state)
    names = cls.networks if candidate.network is None else (candidate.network,)
    fitting, exact = [], []
    for name in names:
        try:
            implied = cls.read_options({f"{name}.{k}": v for k, v in candidate.state.items()})
            model = shapes_of(cls, {**implied.fitting, **implied.facts})
        except Exception:  # shapes of something else
            continue
        own = model.get_submodule(name).state_dict()
        if _patterns(own) == keys:
            fitting.append(name)
            shapes = {key: value.shape for key, value in own.items()}
            if shapes == {key: value.shape for key, value in candidate.state.items()}:
                exact.append(name)
    return exact if len(fitting) > 1 and exact else fitting


def _patterns(state: State) -> set[str]:
    return {re.sub(r"\d+", "#", key) for key in state}
