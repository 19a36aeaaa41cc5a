"""Fillers: functions that fill a hole, chosen by the options of ``fill``."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Progress: TypeAlias = "Callable[[float], None] | None"


class Filler(Protocol):
    """Function of a picture, (1, 3, H, W) in [0, 1], and a hole, (1, 1, H, W), that fills it."""

    def __call__(
        self, image: Tensor, hole: Tensor, *, seed: int = 0, progress: Progress = None
    ) -> Tensor:
        """Return a picture with the hole filled; only its missing pixels are read.

        Fillers that were built for `lines` have an argument of that name besides, (1, 1, H, W).
        """


def _exemplar() -> Filler:
    from inpaint_ops.exemplar import fill_exemplar

    return fill_exemplar


# Fillers without weights: name on the command line to a function that imports and builds one.
FILLERS: dict[str, Callable[[], Filler]] = {"exemplar": _exemplar}


@dataclass(frozen=True)
class FillerChoice:
    """Choice of a filler; the fields are options of ``fill``, and of ``export``.

    `options` are "name=value" texts for the constructor of the method. `weights` are its files and
    `layout` is their layout. `features` is the VGG file of methods that need one.
    """

    model: str = "exemplar"
    weights: tuple[Path, ...] = ()
    layout: str = "auto"
    features: Path | None = None
    options: tuple[str, ...] = ()

    def check(self) -> None:
        """Check the choice without reading a file.

        Raises:
            ValueError: unknown method, or weights or options where they do not belong.
        """
        given = {
            "--weights": bool(self.weights),
            "--layout": self.layout != "auto",
            "--features": self.features is not None,
            "--option": bool(self.options),
        }
        surplus = [name for name, value in given.items() if value]
        if self.model in FILLERS:
            if surplus:
                raise ValueError(f"{self.model} takes no {surplus[0]}")
            return
        from inpaint_ops.models import list_models, model_class

        if self.model not in list_models():
            known = ", ".join([*FILLERS, *list_models()])
            raise ValueError(f"unknown model {self.model!r}, known: {known}")
        if not self.weights:
            raise ValueError(
                f"{self.model} needs --weights FILE; {', '.join(FILLERS)} does not (inpaint-ops "
                "models lists the files that load)"
            )
        if self.features is not None and not hasattr(model_class(self.model), "load_features"):
            raise ValueError(f"{self.model} takes no --features")
        for text in self.options:
            _parse_option(text)

    def build(
        self,
        window: int | str | None = None,
        *,
        lines: Collection[str] = (),
        device: torch.device | None = None,
    ) -> Filler:
        """Build the filler.

        Args:
            window: of `InpaintingModel.complete`; fillers without weights need none.
            lines: names of the arguments of `InpaintingModel.complete` that will be given besides:
                "sketch", "edges".
            device: that fills; pictures come and go on the CPU. None: the CPU.

        Raises:
            OSError, ValueError: errors of `check`, and weights, options, lines or a window that do
                not fit.
        """
        self.check()
        if self.model in FILLERS:
            for name in lines:
                raise ValueError(f"{self.model} takes no --{name}")
            return _on(FILLERS[self.model](), device)
        from inpaint_ops.models.blocks.lines import check_taken

        model = self.build_model().to(device)
        # Refuse a window or lines now, not at the first picture.
        model.window_side(window)
        for name in lines:
            check_taken(f"{self.model}.complete", name, model.hint_names)

        def fill(
            image: Tensor,
            hole: Tensor,
            *,
            seed: int = 0,
            progress: Progress = None,
            **given: Tensor,
        ) -> Tensor:
            result: Tensor = model.complete(
                image, hole, window=window, seed=seed, progress=progress, **given
            )
            return result

        return _on(fill, device)

    def build_model(self) -> Any:
        """Build the method, which is none of `FILLERS`.

        Raises:
            OSError, ValueError: as `build`.
        """
        self.check()
        from inpaint_ops.models import create_model

        options = dict(_parse_option(text) for text in self.options)
        try:
            weights = list(self.weights)
            model: Any = create_model(self.model, weights=weights, layout=self.layout, **options)
        except TypeError as exc:
            raise ValueError(f"{self.model}: {exc}") from exc
        if self.features is not None:
            model.load_features(self.features)
        return model


def _on(filler: Filler, device: torch.device | None) -> Filler:
    """Return a filler that takes pictures to a device and brings the result back to the CPU."""
    if device is None or device.type == "cpu":
        return filler
    inner: Callable[..., Tensor] = filler

    def fill(
        image: Tensor, hole: Tensor, *, seed: int = 0, progress: Progress = None, **given: Tensor
    ) -> Tensor:
        there = {name: plane.to(device) for name, plane in given.items()}
        return inner(image.to(device), hole.to(device), seed=seed, progress=progress, **there).cpu()

    return fill


def _parse_option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise ValueError(f"--option must be NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
