"""Filling of whole data sets, a batch at a time: for Ray Data, or any loop over batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from inpaint_ops import checks
from inpaint_ops.exemplar import fill_exemplar
from inpaint_ops.masks.reading import POLARITIES, read_missing
from inpaint_ops.models import create_model
from inpaint_ops.program import reason

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

    Pixels: TypeAlias = npt.NDArray[np.uint8]
    Missing: TypeAlias = npt.NDArray[np.bool_]
    File: TypeAlias = str | os.PathLike[str]

_OP = "InpaintBatch"
ON_ERROR = ("report", "stop")


class InpaintBatch:
    """Fill the pictures of a batch.

    An object is made once in each worker and called with many batches. Pictures of one size are
    filled together, up to `pixels` at a time. If that fails, each is filled alone, and that is
    tried `attempts` times; what still fails is reported.

    With Ray Data::

        pictures.map_batches(
            InpaintBatch,
            fn_constructor_kwargs={"model": "deepfill_v2", "weights": "deepfill_v2.safetensors"},
            compute=ray.data.ActorPoolStrategy(size=4), batch_size=16, num_gpus=1,
        )

    Args:
        model: "exemplar", which needs no weights, or a name of `inpaint_ops.models.list_models`.
        weights: file of the method's weights, or several that hold one network each.
        layout: of the files, as for `create_model`.
        options: of the method's class.
        window: of `InpaintingModel.complete`.
        image: name of the column of pictures, each (H, W, 3) uint8 RGB.
        hole: name of the column of holes, each (H, W) bool, True = missing; or with `polarity`
            the pixels of a mask, (H, W) or (H, W, 1 to 4), uint8 or uint16.
        polarity: what marks a missing pixel of a mask that is not bool: "white", "black", "alpha"
            or "painted". It is not guessed.
        filled: name of the column for the results, each (H, W, 3) uint8. Known pixels are those of
            the picture. Where a picture failed it is (0, 0, 3).
        error: name of the column for what went wrong, a text; "" where nothing did.
        pixels: of the pictures that are filled together.
        attempts: of filling a picture alone.
        on_error: "report": a picture that fails has a text in the column `error`; "stop": it raises
            `BatchError`.
        seed: of methods that draw random numbers.
        device: of torch. None: a GPU if this process sees one, else the CPU.
        threads: of torch in this process; None leaves them as they are. Actors of Ray Data have as
            many as they asked for in `num_cpus`.

    Raises:
        OSError, TypeError, ValueError: a wrong argument, or weights that cannot be read; as
            `create_model`.
    """

    def __init__(  # noqa: PLR0913 - Ray Data makes it of keywords
        self,
        model: str = "exemplar",
        weights: File | Sequence[File] | None = None,
        *,
        layout: str = "auto",
        options: Mapping[str, Any] | None = None,
        window: int | str | None = None,
        image: str = "image",
        hole: str = "hole",
        polarity: str | None = None,
        filled: str = "filled",
        error: str = "error",
        pixels: int = 1 << 22,
        attempts: int = 2,
        on_error: str = "report",
        seed: int = 0,
        device: str | torch.device | None = None,
        threads: int | None = None,
    ) -> None:
        for name, number, least in (
            ("pixels", pixels, 1),
            ("attempts", attempts, 1),
            ("seed", seed, 0),
            ("threads", 1 if threads is None else threads, 1),
        ):
            checks.check_int(_OP, name, number, least)
        checks.check_choice(_OP, "on_error", on_error, ON_ERROR)
        if polarity is not None:
            checks.check_choice(_OP, "polarity", polarity, POLARITIES)
        self.columns = {"image": image, "hole": hole, "filled": filled, "error": error}
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError(
                f"{_OP}: image, hole, filled and error must differ, got {self.columns}"
            )
        self.polarity, self.pixels, self.attempts = polarity, pixels, attempts
        self.stops, self.seed = on_error == "stop", seed
        if threads is not None:
            torch.set_num_threads(threads)
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self._fill = _filler(model, weights, layout, dict(options or {}), window, self.device)
        # Its result for a picture depends on no other one; but it works on them one by one.
        self._alone = model == "exemplar"

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the batch with the columns `filled` and `error` added.

        Args:
            batch: columns by name: arrays, or sequences of arrays where sizes differ.

        Raises:
            BatchError: with on_error="stop", a picture cannot be filled.
            KeyError: a column is missing.
        """
        names = self.columns
        for name in ("image", "hole"):
            if names[name] not in batch:
                raise KeyError(f"{_OP}: no column {names[name]!r}, only {', '.join(batch)}")
        images, holes = batch[names["image"]], batch[names["hole"]]
        if len(images) != len(holes):
            raise ValueError(
                f"{_OP}: {names['hole']} must have as many rows as {names['image']}, "
                f"{len(images)}, got {len(holes)}"
            )
        results: list[Pixels] = [np.zeros((0, 0, 3), np.uint8)] * len(images)
        errors = [""] * len(images)
        sizes: dict[tuple[int, int], list[tuple[int, Pixels, Missing]]] = {}
        for row, (image, hole) in enumerate(zip(images, holes)):
            try:
                pixels = _checked_image(image)
                missing = self._missing(hole, pixels.shape[:2])
            except (TypeError, ValueError) as exc:
                errors[row] = reason(exc)
            else:
                sizes.setdefault((pixels.shape[0], pixels.shape[1]), []).append(
                    (row, pixels, missing)
                )
        for (height, width), members in sizes.items():
            count = 1 if self._alone else max(1, self.pixels // max(1, height * width))
            for start in range(0, len(members), count):
                self._bucket(members[start : start + count], results, errors)
        if self.stops:
            self._stop_at_errors(errors, batch)
        return {**batch, names["filled"]: _column(results), names["error"]: np.array(errors)}

    def _missing(self, hole: Any, size: tuple[int, ...]) -> Missing:
        """Return a row's hole, (H, W) bool; an error where it is another's or cannot be read."""
        pixels = np.asarray(hole)
        if pixels.dtype != bool:
            if self.polarity is None:
                raise ValueError(
                    f"hole must be bool, or polarity must say what marks it, got {pixels.dtype}"
                )
            if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim not in (2, 3):
                raise ValueError(
                    "hole must be (H, W) or (H, W, 1 to 4), bool, uint8 or uint16, got "
                    f"{pixels.shape} {pixels.dtype}"
                )
            pixels, _ = read_missing(pixels.reshape(*pixels.shape[:2], -1), self.polarity)
        if pixels.shape != size:
            raise ValueError(f"hole must have the picture's size, {size}, got {pixels.shape}")
        if not pixels.any():
            raise ValueError("nothing is missing")
        if pixels.all():
            raise ValueError("the hole covers the whole picture")
        return pixels

    def _bucket(
        self,
        members: Sequence[tuple[int, Pixels, Missing]],
        results: list[Pixels],
        errors: list[str],
    ) -> None:
        """Fill pictures of one size, together or else one by one."""
        if len(members) > 1:
            try:
                together = self._filled([m[1] for m in members], [m[2] for m in members])
            except Exception:
                _release(self.device)
            else:
                for (row, _, _), result in zip(members, together):
                    results[row] = result
                return
        for row, pixels, missing in members:
            for _ in range(self.attempts):
                try:
                    results[row] = self._filled([pixels], [missing])[0]
                except Exception as exc:
                    errors[row] = f"{type(exc).__name__}: {reason(exc)}"
                    _release(self.device)
                else:
                    errors[row] = ""
                    break

    def _filled(self, images: Sequence[Pixels], holes: Sequence[Missing]) -> list[Pixels]:
        pixels, missing = np.stack(images), np.stack(holes)[..., None]
        image = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device).float() / 255
        hole = torch.from_numpy(missing).permute(0, 3, 1, 2).to(self.device)
        filled = self._fill(image.masked_fill(hole, 0), hole, self.seed)
        if not bool(filled.isfinite().all()):
            raise ValueError("the result is not finite")
        made = (filled.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
        return list(np.where(missing, made, pixels))

    def _stop_at_errors(self, errors: Sequence[str], batch: Mapping[str, Any]) -> None:
        for row, text in enumerate(errors):
            if text:
                named = f" ({batch['path'][row]})" if "path" in batch else ""
                raise BatchError(f"{_OP}: row {row} of a batch{named}: {text}")


class BatchError(RuntimeError):
    """A picture of a batch cannot be filled; the text says which and why."""


def _filler(
    model: str,
    weights: Any,
    layout: str,
    options: dict[str, Any],
    window: int | str | None,
    device: torch.device,
) -> Callable[[Tensor, Tensor, int], Tensor]:
    """Return a function of pictures, holes and a seed."""
    if model == "exemplar":
        given = {"weights": weights, "options": options or None, "window": window}
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{_OP}: {name} must be None for exemplar, got {value!r}")
        return lambda image, hole, seed: fill_exemplar(image, hole, seed=seed)
    if weights is None:
        raise ValueError(f"{_OP}: weights must be given for {model}, got None")
    files = list(map(Path, weights)) if isinstance(weights, (list, tuple)) else weights
    method = create_model(model, weights=files, layout=layout, **options).to(device).eval()
    method.window_side(window)
    return lambda image, hole, seed: method.complete(image, hole, window=window, seed=seed)


def _checked_image(image: Any) -> Pixels:
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(
            f"image must be (H, W, 3) uint8, got {pixels.shape} {pixels.dtype}; "
            "ray.data.read_images(mode='RGB') gives that"
        )
    return pixels


def _column(results: Sequence[Pixels]) -> npt.NDArray[Any]:
    """Return one array where all have one shape, else an array of arrays."""
    if len({result.shape for result in results}) == 1:
        return np.stack(results)
    column = np.empty(len(results), object)
    for row, result in enumerate(results):
        column[row] = result
    return column


def _release(device: torch.device) -> None:
    """Give cached memory back: what failed may have wanted too much of it."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
