"""Names of the methods and how they are built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from inpaint_ops.checkpoints import Weights, read_checkpoints
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights import files
from inpaint_ops.models.weights.parts import UnknownWeightsError, parts_of

_MODELS: dict[str, type[InpaintingModel]] = {}
Method = TypeVar("Method", bound=type[InpaintingModel])


def register_model(name: str) -> Callable[[Method], Method]:
    """Class decorator that makes a method known to `create_model` under a name.

    The class names its submodules in `networks`, those that `complete` runs in
    `completion_networks`, and public files that it reads in `layouts`; `read_options` says what the
    tensors of its own state dict tell about its options.

    Raises:
        TypeError: the class does not derive from `InpaintingModel`.
        ValueError: the name is taken or no identifier, or completion needs an unknown network.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ValueError(f"register_model: name must be an identifier, got {name!r}")

    def register(cls: Method) -> Method:
        if not (isinstance(cls, type) and issubclass(cls, InpaintingModel)):
            raise TypeError(f"register_model: {name} must be an InpaintingModel, got {cls!r}")
        if name in _MODELS:
            raise ValueError(f"register_model: name must be new, got {name!r}")
        unknown = set(cls.completion_networks) - set(cls.networks)
        if unknown:
            raise ValueError(
                f"register_model: completion_networks of {name} must be among its networks "
                f"{', '.join(cls.networks)}, got {', '.join(sorted(unknown))}"
            )
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
    weights: Weights | Sequence[Weights] | None = None,
    layout: str = "auto",
    partial: bool = False,
    **options: Any,
) -> InpaintingModel:
    """Builds a method, with fresh random weights or those of files.

    Options come from three places. What the tensors tell (widths, levels) is taken from them, and
    a contradicting option is an error. What only the layout tells (padding, order of channels) is
    taken from it unless the option is given. What nothing tells is asked for, or assumed and stated
    in a `WeightsNote`, a warning of one line.

    Args:
        name: one of `list_models`.
        weights: file or state dict as for `load_weights`, or a list of them that hold one network
            each (EdgeConnect publishes its two generators so).
        layout: as for `load_weights`.
        partial: accepts files that lack a network which completion needs
            (`InpaintingModel.completion_networks`), to train the model; its weights are random.
        options: of the method's class, for example base_channels.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: an option the method does not have.
        ValueError: unknown name, wrong value, weights that do not fit, lack a network that
            completion needs, or leave an option open.
    """
    cls = model_class(name)
    if weights is None:
        return cls(**options)
    try:
        return files.build(cls, weights, layout, partial, options)
    except UnknownWeightsError as exc:
        others = _methods_with(weights)
        if not others:
            raise
        raise ValueError(f"{exc}; it is a file of {', '.join(others)}") from exc


def _methods_with(weights: Weights | Sequence[Weights]) -> list[str]:
    """The methods, and layouts of theirs, that read files."""
    found = []
    for checkpoint in read_checkpoints(weights):
        for name, cls in _MODELS.items():
            try:
                parts = parts_of(cls, checkpoint, "auto", public=True)
            except ValueError:
                continue
            found += [f"{name} ({part.label})" for part in parts]
    return list(dict.fromkeys(found))


def parameter_counts(model: InpaintingModel) -> dict[str, int]:
    """Trainable numbers of each network."""
    return {
        name: sum(p.numel() for p in model.get_submodule(name).parameters() if p.requires_grad)
        for name in model.networks
    }
