"""Names of the methods and how they are built."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from inpaint_ops.models import _weights
from inpaint_ops.models._layouts import read_checkpoint
from inpaint_ops.models._model import InpaintingModel

_MODELS: dict[str, type[InpaintingModel]] = {}
Method = TypeVar("Method", bound=type[InpaintingModel])


def register_model(name: str) -> Callable[[Method], Method]:
    """Class decorator that makes a method known to `create_model` under a name.

    Raises:
        TypeError: the class does not derive from `InpaintingModel`.
        ValueError: the name is taken or no identifier.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"register_model: name must be an identifier, got {name!r}")

    def register(cls: Method) -> Method:
        if not (isinstance(cls, type) and issubclass(cls, InpaintingModel)):
            raise TypeError(f"register_model: {name} must be an InpaintingModel, got {cls!r}")
        if name in _MODELS:
            raise ValueError(f"register_model: name must be new, got {name!r}")
        cls.name = name
        _MODELS[name] = cls
        return cls

    return register


def list_models() -> list[str]:
    """The names that `create_model` takes, sorted."""
    return sorted(_MODELS)


def model_class(name: str) -> type[InpaintingModel]:
    """The class registered under a name.

    Raises:
        ValueError: there is none.
    """
    if name not in _MODELS:
        raise ValueError(
            f"create_model: name must be one of {', '.join(list_models())}, got {name!r}"
        )
    return _MODELS[name]


def create_model(
    name: str,
    *,
    weights: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    **options: Any,
) -> InpaintingModel:
    """Builds a method, with fresh random weights or those of a file.

    Args:
        name: one of `list_models`.
        weights: file or state dict as for `load_weights`, its layout recognised. Options that it
            implies (widths, levels, padding) are taken from it where they are not given.
        options: of the method's class, for example base_channels.

    Raises:
        TypeError: an option the method does not have.
        ValueError: unknown name, wrong value, or weights that do not fit.
    """
    cls = model_class(name)
    if weights is None:
        return cls(**options)
    checkpoint = read_checkpoint(weights)
    implied = _weights.implied_options(cls, checkpoint)
    model = cls(**{**implied, **options})
    _weights.load_weights(model, checkpoint)
    return model


def parameter_counts(model: InpaintingModel) -> dict[str, int]:
    """Trainable numbers of each network."""
    return {
        name: sum(p.numel() for p in model.get_submodule(name).parameters() if p.requires_grad)
        for name in model.networks
    }
