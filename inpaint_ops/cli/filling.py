"""Picture files in, filled picture files out: one file or a folder of them."""

from __future__ import annotations

import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from inpaint_ops._program import reason
from inpaint_ops.atomic import make_folder, remove_left_overs
from inpaint_ops.images.files import (
    READ_SUFFIXES,
    WRITE_SUFFIXES,
    load_hole_file,
    load_photo,
    read_hole,
    readings,
)
from inpaint_ops.masks.reading import DEFAULT_POLARITY, other_ways

if TYPE_CHECKING:
    from torch import Tensor

Progress: TypeAlias = "Callable[[float], None] | None"


class Filler(Protocol):
    """Something that fills holes: (1, 3, H, W) in [0, 1] and (1, 1, H, W) to a picture."""

    def __call__(
        self, image: Tensor, hole: Tensor, *, seed: int = 0, progress: Progress = None
    ) -> Tensor:
        """The picture with its hole filled; known pixels are not read from the answer."""


def _exemplar() -> Filler:
    from inpaint_ops.exemplar import fill as exemplar_fill

    return exemplar_fill.fill_exemplar


# A hole of more than this share of the picture is worth a word: it may be the wrong way round.
_MOST = 0.5

# Fillers without weights: name on the command line to a function that imports and builds one.
FILLERS: dict[str, Callable[[], Filler]] = {"exemplar": _exemplar}


@dataclass(frozen=True)
class FillerChoice:
    """What fills holes; the fields are options of ``fill``.

    `options` are "name=value" texts for the constructor of the method, `weights` its files,
    `layout` theirs, and `features` the VGG file of methods that need one.
    """

    model: str = "exemplar"
    weights: tuple[Path, ...] = ()
    layout: str = "auto"
    features: Path | None = None
    options: tuple[str, ...] = ()

    def check(self) -> None:
        """Checks the choice without reading a file.

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
            raise ValueError(f"{self.model} needs --weights FILE; {', '.join(FILLERS)} does not")
        if self.features is not None and not hasattr(model_class(self.model), "load_features"):
            raise ValueError(f"{self.model} takes no --features")
        for text in self.options:
            _parse_option(text)

    def build(self) -> Filler:
        """Builds the filler.

        Raises:
            OSError, ValueError: what `check` finds, and weights or options that do not fit.
        """
        self.check()
        if self.model in FILLERS:
            return FILLERS[self.model]()
        from inpaint_ops.models import create_model

        options = dict(_parse_option(text) for text in self.options)
        try:
            weights = list(self.weights)
            model: Any = create_model(self.model, weights=weights, layout=self.layout, **options)
        except TypeError as exc:
            raise ValueError(f"{self.model}: {exc}") from exc
        if self.features is not None:
            model.load_features(self.features)

        def fill(
            image: Tensor, hole: Tensor, *, seed: int = 0, progress: Progress = None
        ) -> Tensor:
            result: Tensor = model.complete(image, hole, seed=seed)
            if progress is not None:
                progress(1.0)
            return result

        return fill


def _parse_option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name.isidentifier():
        raise ValueError(f"--option must be NAME=VALUE, got {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True)
class FillSettings:
    """How holes are read and files are treated; the fields are the options of ``fill``.

    `polarity` is as in `inpaint_ops.images.load_hole`.
    """

    polarity: str | None = None
    resize_hole: bool = False
    allow_empty: bool = False
    seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class FileReport:
    """What became of a picture.

    Attributes:
        share: of the picture that was filled.
        notes: what is worth a word, and the file it is about.
    """

    share: float
    notes: tuple[tuple[Path, str], ...] = ()


@dataclass
class FolderReport:
    """What became of the pictures of a folder; notes are those of `FileReport`."""

    filled: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[tuple[Path, str]] = field(default_factory=list)


def fill_file(
    image: Path,
    hole: Path | None,
    out: Path,
    filler: Filler,
    settings: FillSettings,
    progress: Progress = None,
) -> FileReport:
    """Fill one picture; known pixels reach a lossless file bit for bit.

    Args:
        image: picture file.
        hole: hole file, or None to take the transparent pixels of the picture, which become
            opaque.
        out: file to write; missing folders are made.
        filler: does the work.
        settings: polarity, resizing, empty holes, seed, overwriting.
        progress: called with a fraction in [0, 1], or None.

    Raises:
        FileExistsError: out exists and may not be overwritten.
        ValueError: nothing is missing and settings do not allow that, or everything is.
        OSError, ValueError: from reading, checking or writing a file, all checks of the target
            before the work begins.
    """
    _check_target(image, hole, out, settings.overwrite)
    photo = load_photo(image)
    notes: list[str] = []
    if hole is None:
        try:
            missing = photo.alpha_hole(allow_empty=settings.allow_empty)
        except ValueError as exc:
            raise ValueError(f"{image}: {exc}") from exc
        photo = photo.opaque(missing)
    else:
        missing, notes = read_hole(
            hole,
            photo.size,
            settings.polarity,
            resize=settings.resize_hole,
            allow_empty=settings.allow_empty,
        )
    share = float(missing.double().mean())
    if share > _MOST:
        notes.append(_about_much(hole, image, share, settings.polarity))
    make_folder(out.parent)
    photo.check_save(out)
    if share > 0.0:
        result = filler(photo.image(), missing, seed=settings.seed, progress=progress)
        photo = photo.filled(result, missing)
    else:
        notes.append("nothing is missing, the output is a copy")
    photo.save(out)
    return FileReport(share, tuple((hole or image, note) for note in notes))


def _about_much(hole: Path | None, image: Path, share: float, polarity: str | None) -> str:
    """What to say of a large hole, which may be the wrong way round; ValueError if it is all."""
    if hole is None:
        if share == 1.0:
            raise ValueError(f"{image}: the hole covers the whole picture, which is transparent")
        return f"{100 * share:.1f} % of the picture is missing, all that is transparent"
    marks = polarity or DEFAULT_POLARITY
    mask = load_hole_file(hole)
    if share == 1.0:
        raise ValueError(
            f"{hole}: the hole covers the whole picture where {marks} marks it;"
            f" {readings(mask, polarity)}"
        )
    ways = other_ways(mask.pixels, marks)
    return f"{100 * share:.1f} % of the picture is missing; is --hole {marks} right? {ways}"


def fill_folder(
    images: Path,
    holes: Path | None,
    out: Path,
    filler: Filler,
    settings: FillSettings,
    progress: Progress = None,
) -> FolderReport:
    """Fill the pictures of a folder, in order of their names; one bad file does not stop the rest.

    A picture whose output exists is skipped, so that an interrupted run can be taken up again.
    The output keeps the name of the picture; ".png" is added where its format cannot be written.
    A picture whose output would be another picture's output, or an input, fails.

    Args:
        images: folder of pictures; subfolders and hidden files are left alone.
        holes: folder with one hole of the same stem for each picture, or one file for all, or
            None as in `fill_file`.
        out: folder to write to.
        filler: as in `fill_file`.
        settings: as in `fill_file`; overwrite replaces existing outputs instead of skipping.
        progress: called with the done fraction of the folder, or None.

    Raises:
        OSError: a folder cannot be listed.
        ValueError: there is no picture in the folder.
    """
    pictures = _pictures(images)
    if not pictures:
        raise ValueError(f"{images}: no picture found in this folder")
    hole_files = [] if holes is None else _pictures(holes) if holes.is_dir() else [holes]
    hole_folder = holes if holes is not None and holes.is_dir() else None
    if out.is_dir():
        remove_left_overs(out)
    outputs = _Outputs(pictures, hole_files, out)
    report = FolderReport()
    for index, image in enumerate(pictures):

        def step(fraction: float, index: int = index) -> None:
            if progress is not None:
                progress((index + fraction) / len(pictures))

        step(0.0)
        try:
            target = outputs.target(image)
            if target.is_file() and not settings.overwrite and not _same_file(image, target):
                report.skipped.append(image)
            else:
                hole = holes if hole_folder is None else _hole_of(image, hole_folder, hole_files)
                done = fill_file(image, hole, target, filler, settings, step)
                report.filled.append(image)
                report.notes.extend(done.notes)
            outputs.claim(image, target)
        except Exception as exc:
            expected = isinstance(exc, (OSError, ValueError))
            why = reason(exc) if expected else f"{type(exc).__name__}: {exc}"
            report.failed.append((image, why))
    if progress is not None:
        progress(1.0)
    return report


class _Outputs:
    """Where the pictures of a folder go, and whether two of them would share a file.

    Files are compared as files, not by name: many file systems take a.png and A.png, or two
    spellings of an accent, for one name.
    """

    def __init__(self, pictures: list[Path], holes: list[Path], out: Path) -> None:
        self._out, self._names = out, {path.name for path in pictures}
        self._inputs = {_identity(path): path for path in [*pictures, *holes]}
        self._claimed: dict[tuple[int, int], Path] = {}

    def target(self, image: Path) -> Path:
        """The file to write; ValueError if it belongs to another picture or is a hole."""
        target = self._out / image.name
        if target.suffix.lower() not in WRITE_SUFFIXES:
            target = self._out / f"{image.name}.png"
            if target.name in self._names:
                raise ValueError(_shared(target, target.name))
        if target.exists():
            other = self._claimed.get(_identity(target))
            if other is not None:
                raise ValueError(_shared(target, other.name))
            source = self._inputs.get(_identity(target), image)
            if source != image:
                raise ValueError(f"its output {target} would replace the input {source}")
        return target

    def claim(self, image: Path, target: Path) -> None:
        """Note that a file is the output of a picture."""
        self._claimed[_identity(target)] = image


def _shared(target: Path, other: str) -> str:
    return f"its output {target} is that of {other}, too; rename one of the two"


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _check_target(image: Path, hole: Path | None, out: Path, overwrite: bool) -> None:
    if hole is not None and _same_file(hole, out):
        raise FileExistsError(f"{out}: the output would replace the hole file")
    if _same_file(image, out) and not overwrite:
        raise FileExistsError(f"{out}: the output would replace the input; use --overwrite")
    if out.exists() and not out.is_dir() and not overwrite:
        raise FileExistsError(f"{out}: exists already; use --overwrite")


def _same_file(first: Path, second: Path) -> bool:
    return first.exists() and second.exists() and os.path.samefile(first, second)


def _pictures(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def _hole_of(image: Path, folder: Path, candidates: list[Path]) -> Path:
    # File systems and archives spell an accent as one character or as two.
    stem = unicodedata.normalize("NFC", image.stem)
    matches = [path for path in candidates if unicodedata.normalize("NFC", path.stem) == stem]
    if not matches:
        raise FileNotFoundError(f"no hole named {image.stem}.* in {folder}")
    if len(matches) > 1:
        names = ", ".join(path.name for path in matches)
        raise ValueError(f"several holes named {image.stem}.* in {folder}: {names}")
    return matches[0]
