"""The command ``fill``: options, checks of their combination, and what is told about the work."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inpaint_ops import progress
from inpaint_ops.cli.completion import complete_filler
from inpaint_ops.cli.devices import device_option, find_device
from inpaint_ops.cli.messages import failures, notes

if TYPE_CHECKING:
    from inpaint_ops.cli.fillers import Filler
    from inpaint_ops.cli.filling import FillSettings

_FILE = click.Path(path_type=Path)


def parse_window(
    context: click.Context, parameter: click.Parameter, value: str
) -> int | str | None:
    """Return the window of ``--window auto|none|PIXELS``."""
    if value in ("auto", "none"):
        return None if value == "none" else value
    if not (value.isascii() and value.isdecimal() and int(value) > 0):
        raise click.BadParameter(f"must be auto, none or a number of pixels, got {value!r}")
    return int(value)


@click.command()
@click.argument("image", required=False, type=_FILE)
@click.argument("hole_file", metavar="[HOLE]", required=False, type=_FILE)
@click.option("-o", "--out", required=True, type=_FILE, help="File, or folder with --images.")
@click.option("--images", type=_FILE, help="Fill every picture of this folder.")
@click.option("--holes", type=_FILE, help="Folder of holes with the same stems, or one file.")
@click.option(
    "--hole",
    "polarity",
    type=click.Choice(["white", "black", "alpha", "painted"]),
    help="What marks a missing pixel. painted is all that is neither black nor transparent. alpha"
    " without HOLE takes the picture's own transparency.  [default: white; must be given for files"
    " with many colours and transparent parts]",
)
@click.option("--resize-hole", is_flag=True, help="Scale holes of another size (nearest pixel).")
@click.option("--allow-empty", is_flag=True, help="Copy pictures of which nothing is missing.")
@click.option(
    "--model",
    default="exemplar",
    show_default=True,
    shell_complete=complete_filler,
    help="What fills the hole: exemplar needs no weights; see inpaint-ops models.",
)
@click.option(
    "--weights",
    multiple=True,
    type=_FILE,
    help="Weights of the model, in any of its layouts; repeated where each network has a file.",
)
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="Layout of the weights, where a file can be read in two ways.",
)
@click.option("--features", type=_FILE, help="VGG weights in torchvision's layout (msnps).")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the model; can be repeated.",
)
@click.option(
    "--window",
    metavar="auto|none|PIXELS",
    default="auto",
    show_default=True,
    callback=parse_window,
    help="What the model sees of a picture: squares of PIXELS around the holes; none, the whole"
    " picture; auto, squares of the side it was trained for where the picture has more than twice"
    " that. exemplar needs none.",
)
@click.option(
    "--sketch",
    type=_FILE,
    help="Lines to be drawn in the hole, white on black, for a network that was trained so"
    " (deepfill_v2 with a sketch); with --images a folder of them, or one file.",
)
@click.option(
    "--edges",
    type=_FILE,
    help="Edges of the picture, white on black, in place of those that edge_connect finds; with"
    " --images a folder of them, or one file.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@device_option
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: torch's]")
@click.option("--overwrite", is_flag=True, help="Replace existing outputs.")
@click.pass_context
def fill(
    context: click.Context,
    /,
    image: Path | None,
    hole_file: Path | None,
    out: Path,
    images: Path | None,
    holes: Path | None,
    window: int | str | None,
    device: str,
    threads: int | None,
    **settings: Any,
) -> None:
    """Fill the hole of IMAGE that HOLE marks, or those of a folder.

    \b
    inpaint-ops fill photo.jpg hole.png -o filled.png
    inpaint-ops fill --images photos --holes holes --out filled
    inpaint-ops fill photo.jpg hole.png -o filled.png --model deepfill_v2 --weights states.pth

    Known pixels keep their exact values in PNG, TIFF, WebP, BMP and PPM files; JPEG stores all
    pixels anew. With --images, outputs that exist are skipped. Holes of 0 and 1, of one label or
    of one brush are read as they are meant, and a note says so; a hole that marks nothing is an
    error.
    """  # noqa: D301
    from inpaint_ops.cli.fillers import FillerChoice
    from inpaint_ops.cli.filling import FillSettings

    choice = FillerChoice(
        **{field.name: settings.pop(field.name) for field in fields(FillerChoice)}
    )
    try:
        choice.check()
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    chosen = FillSettings(**settings)
    with failures():
        if images is None:
            _check_single_usage(image, hole_file, holes, chosen.polarity)
        else:
            _check_folder_usage(image, images, holes, chosen.polarity)
            _check_folder_output(out, holes)
        _check_files([("IMAGE", image), ("HOLE", hole_file), ("--features", choice.features)])
        _check_files([("--weights", path) for path in choice.weights])
        _check_lines(chosen.lines, many=images is not None)
    place = find_device(device)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with failures(), notes():
        filler = choice.build(window, lines=chosen.lines, device=place)
    if image is not None:
        _fill_one(image, hole_file, out, filler, chosen)
    elif images is not None:
        context.exit(_fill_many(images, holes, out, filler, chosen))


def _check_single_usage(
    image: Path | None, hole: Path | None, holes: Path | None, polarity: str | None
) -> None:
    if image is None:
        raise click.UsageError("give IMAGE and HOLE, or --images and --holes")
    if holes is not None:
        raise click.UsageError("--holes goes with --images; give HOLE after IMAGE")
    if hole is None and polarity != "alpha":
        raise click.UsageError("HOLE is missing; only --hole alpha does without it")


def _check_files(given: Sequence[tuple[str, Path | None]]) -> None:
    for name, path in given:
        if path is not None and not path.is_file():
            found = "is a folder, expected a file" if path.is_dir() else "does not exist"
            raise click.UsageError(f"{name}: {path} {found}")


def _check_lines(lines: dict[str, Path], *, many: bool) -> None:
    for name, path in lines.items():
        if not (many and path.is_dir()):
            _check_files([(f"--{name}", path)])


def _check_folder_usage(
    image: Path | None, images: Path, holes: Path | None, polarity: str | None
) -> None:
    if image is not None:
        raise click.UsageError("give either IMAGE or --images, not both")
    if holes is None and polarity != "alpha":
        raise click.UsageError("--holes is missing; only --hole alpha does without it")
    for name, path in (("--images", images), ("--holes", holes)):
        if path is not None and not path.exists():
            raise click.UsageError(f"{name}: {path} does not exist")
    if not images.is_dir():
        raise click.UsageError(f"--images: {images} is not a folder")
    if holes is not None and holes.resolve() == images.resolve():
        raise click.UsageError("--holes must be another folder than --images")


def _check_folder_output(out: Path, holes: Path | None) -> None:
    if out.exists() and not out.is_dir():
        raise click.UsageError(f"--out: {out} is not a folder")
    if holes is not None and holes.resolve() == out.resolve():
        raise click.UsageError("--out must be another folder than --holes")


def _fill_one(
    image: Path, hole: Path | None, out: Path, filler: Filler, settings: FillSettings
) -> None:
    from inpaint_ops.cli.filling import fill_file

    started = time.monotonic()
    with failures(), progress.bar(image.name) as move:
        report = fill_file(image, hole, out, filler, settings, move)
    _echo_notes(report.notes)
    seconds = time.monotonic() - started
    click.echo(f"{out}: {100 * report.share:.1f} % filled in {seconds:.1f} s")


def _fill_many(
    images: Path, holes: Path | None, out: Path, filler: Filler, settings: FillSettings
) -> int:
    from inpaint_ops.cli.filling import fill_folder

    started = time.monotonic()
    with failures(), progress.bar(images.name) as move:
        report = fill_folder(images, holes, out, filler, settings, move)
    _echo_notes(report.notes)
    for path, why in report.failed:
        click.echo(f"failed: {path.name}: {why}", err=True)
    seconds = time.monotonic() - started
    click.echo(
        f"{len(report.filled)} filled, {len(report.skipped)} skipped,"
        f" {len(report.failed)} failed in {seconds:.1f} s"
    )
    return 1 if report.failed else 0


def _echo_notes(notes: Sequence[tuple[Path, str]]) -> None:
    """Print each text once, with the file it is about and the number of further ones."""
    by_text: dict[str, list[Path]] = {}
    for path, text in notes:
        by_text.setdefault(text, []).append(path)
    for text, paths in by_text.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        click.echo(f"note: {paths[0]}{more}: {text}", err=True)
