"""Picture files in, filled picture files out: one file or a folder of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from inpaint_ops.atomic import make_folder, remove_left_overs
from inpaint_ops.cli import messages
from inpaint_ops.cli.fillers import Filler, Progress
from inpaint_ops.cli.outputs import Outputs, partner_of, pictures_in, same_file
from inpaint_ops.images import load_lines, load_photo, read_hole
from inpaint_ops.images.holes import load_hole_file, readings
from inpaint_ops.masks.reading import DEFAULT_POLARITY, other_ways
from inpaint_ops.program import reason

if TYPE_CHECKING:
    from torch import Tensor

# Share of the picture above which a note asks about the polarity: the hole may be inverted.
_MOST = 0.5


@dataclass(frozen=True)
class FillSettings:
    """Rules for reading holes and writing files; the fields are options of ``fill``.

    `polarity` is as in `inpaint_ops.images.load_hole`. `sketch` and `edges` are files of lines, or
    folders of them with the stems of the pictures.
    """

    polarity: str | None = None
    resize_hole: bool = False
    allow_empty: bool = False
    seed: int = 0
    overwrite: bool = False
    sketch: Path | None = None
    edges: Path | None = None

    @property
    def lines(self) -> dict[str, Path]:
        """Files or folders of lines by the name of the argument that takes them."""
        both = {"sketch": self.sketch, "edges": self.edges}
        return {name: path for name, path in both.items() if path is not None}


@dataclass(frozen=True)
class FileReport:
    """Result of filling a picture.

    Attributes:
        share: of the picture that was filled.
        notes: remarks for the user, each with the file that it is about.
    """

    share: float
    notes: tuple[tuple[Path, str], ...] = ()


@dataclass
class FolderReport:
    """Results of filling the pictures of a folder; notes are those of `FileReport`."""

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
        hole: hole file. None takes the transparent pixels of the picture and makes them opaque.
        out: file to write; missing folders are made.
        filler: function that fills the hole.
        settings: polarity, resizing, empty holes, seed, overwriting.
        progress: called with a fraction in [0, 1], or None.

    Raises:
        FileExistsError: out exists and may not be overwritten.
        ValueError: nothing is missing and settings do not allow that, or everything is.
        OSError, ValueError: from reading, checking or writing a file. The target is checked before
            the work begins.
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
        lines = _lines_of(image, photo.size, settings)
        fill: Callable[..., Tensor] = filler
        with messages.notes(notes.append):
            result = fill(photo.image(), missing, seed=settings.seed, progress=progress, **lines)
        photo = photo.filled(result, missing)
    else:
        notes.append("nothing is missing, the output is a copy")
    photo.save(out)
    return FileReport(share, tuple((hole or image, note) for note in notes))


def _lines_of(image: Path, size: tuple[int, int], settings: FillSettings) -> dict[str, Tensor]:
    """Return the lines of a picture by the name of the argument that takes them."""
    result = {}
    for name, path in settings.lines.items():
        file = partner_of(image, path, pictures_in(path), "line file") if path.is_dir() else path
        result[name] = load_lines(file, size)
    return result


def _about_much(hole: Path | None, image: Path, share: float, polarity: str | None) -> str:
    """Return a note on a large hole, which may be the wrong way round; ValueError if it is all."""
    if hole is None:
        if share == 1.0:
            raise ValueError(
                f"{image}: the hole covers the whole picture, which is transparent; give a hole "
                "file"
            )
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
    pictures = pictures_in(images)
    if not pictures:
        raise ValueError(
            f"{images}: no picture found in this folder; its subfolders are not looked into"
        )
    hole_files = [] if holes is None else pictures_in(holes) if holes.is_dir() else [holes]
    hole_folder = holes if holes is not None and holes.is_dir() else None
    if out.is_dir():
        remove_left_overs(out)
    outputs = Outputs(pictures, hole_files, out)
    report = FolderReport()
    for index, image in enumerate(pictures):

        def step(fraction: float, index: int = index) -> None:
            if progress is not None:
                progress((index + fraction) / len(pictures))

        step(0.0)
        try:
            target = outputs.target(image)
            if target.is_file() and not settings.overwrite and not same_file(image, target):
                report.skipped.append(image)
            else:
                hole = holes if hole_folder is None else partner_of(image, hole_folder, hole_files)
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


def _check_target(image: Path, hole: Path | None, out: Path, overwrite: bool) -> None:
    if hole is not None and same_file(hole, out):
        raise FileExistsError(
            f"{out}: the output would replace the hole file; give --out another name"
        )
    if same_file(image, out) and not overwrite:
        raise FileExistsError(f"{out}: the output would replace the input; use --overwrite")
    if out.exists() and not out.is_dir() and not overwrite:
        raise FileExistsError(f"{out}: exists already; use --overwrite")
