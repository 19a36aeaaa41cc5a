"""The commands of ``inpaint-ops``. Heavy imports happen inside the commands, so help is quick."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inpaint_ops._program import reason
from inpaint_ops.atomic import make_folder

if TYPE_CHECKING:
    from torch import Tensor

    from inpaint_ops.cli.filling import Filler, FillSettings, Progress

_FILE = click.Path(path_type=Path)
_KINDS = ("center", "box", "free-form", "irregular")


def _version() -> str:
    try:
        return metadata.version("inpaint-ops")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version=_version(), prog_name="inpaint-ops")
def cli() -> None:
    """Fill holes in pictures with fused kernels."""


@cli.command()
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
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
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
    from inpaint_ops.cli.filling import FillerChoice, FillSettings

    choice = FillerChoice(
        **{field.name: settings.pop(field.name) for field in fields(FillerChoice)}
    )
    try:
        choice.check()
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    chosen = FillSettings(**settings)
    with _failures():
        if images is None:
            _check_single_usage(image, hole_file, holes, chosen.polarity)
        else:
            _check_folder_usage(image, images, holes, chosen.polarity)
            _check_folder_output(out, holes)
        _check_files([("IMAGE", image), ("HOLE", hole_file), ("--features", choice.features)])
        _check_files([("--weights", path) for path in choice.weights])
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with _failures(), _notes():
        filler = choice.build()
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
    with _failures(), _progress(image.name) as progress:
        report = fill_file(image, hole, out, filler, settings, progress)
    _echo_notes(report.notes)
    seconds = time.monotonic() - started
    click.echo(f"{out}: {100 * report.share:.1f} % filled in {seconds:.1f} s")


def _fill_many(
    images: Path, holes: Path | None, out: Path, filler: Filler, settings: FillSettings
) -> int:
    from inpaint_ops.cli.filling import fill_folder

    started = time.monotonic()
    with _failures(), _progress(images.name) as progress:
        report = fill_folder(images, holes, out, filler, settings, progress)
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


@contextmanager
def _failures() -> Iterator[None]:
    """Expected failures as one line and exit code 1; anything else keeps its traceback."""
    try:
        yield
    except (OSError, ValueError, ImportError, MemoryError, RuntimeError) as exc:
        raise click.ClickException(reason(exc)) from exc


@contextmanager
def _notes() -> Iterator[None]:
    """What was assumed about weights as lines on stderr; other warnings as usual."""
    from inpaint_ops.checkpoints import WeightsNote

    with warnings.catch_warnings():
        warnings.simplefilter("always", WeightsNote)
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *where: Any) -> None:
            if issubclass(category, WeightsNote):
                click.echo(f"note: {message}", err=True)
            else:
                usual(message, category, *where)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


@contextmanager
def _progress(name: str) -> Iterator[Progress]:
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(escape(name), total=1.0)
        yield lambda fraction: bar.update(task, completed=fraction)


def _parse_size(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"expected HxW such as 256x384, got {value!r}") from None
    return height, width


def _parse_ratio(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value.split("-"))
    except ValueError:
        raise click.BadParameter(f"expected LOW-HIGH such as 0.1-0.2, got {value!r}") from None
    return low, high


@cli.command()
@click.option("--size", required=True, metavar="HxW", callback=_parse_size, help="In pixels.")
@click.option("--kind", type=click.Choice(_KINDS), default="irregular", show_default=True)
@click.option(
    "--ratio",
    metavar="LOW-HIGH",
    callback=_parse_ratio,
    help="Share of missing pixels, in (LOW, HIGH].  [default: the kind's own]",
)
@click.option("--border", type=click.IntRange(min=0), default=0, help="Pixels known at each edge.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", required=True, type=_FILE, help="Folder; made if missing.")
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
def masks(
    size: tuple[int, int],
    kind: str,
    ratio: tuple[float, float] | None,
    border: int,
    count: int,
    seed: int,
    out: Path,
    overwrite: bool,
) -> None:
    """Write random holes as PNG files, white = missing.

    The files are named KIND_00000.png and so on; file number i depends on the seed and on i, not
    on the count.
    """
    from inpaint_ops.images.files import save_hole

    if kind == "center" and (ratio is not None or border):
        raise click.UsageError("--kind center takes neither --ratio nor --border")
    paths = [out / f"{kind}_{index:05d}.png" for index in range(count)]
    with _failures():
        make_folder(out)
        existing = [path for path in paths if path.exists()]
        if existing and not overwrite:
            raise FileExistsError(
                f"{existing[0]}: exists already ({len(existing)} of {count} files do);"
                " use --overwrite"
            )
        for index, path in enumerate(paths):
            save_hole(_hole(kind, size, ratio, border, (seed, index)), path)
    click.echo(f"{out}: {count} {kind} hole{'s' if count > 1 else ''} written")


def _hole(
    kind: str,
    size: tuple[int, int],
    ratio: tuple[float, float] | None,
    border: int,
    seed: tuple[int, int],
) -> Tensor:
    import numpy as np

    from inpaint_ops.masks.holes import center_hole, free_form_hole, irregular_hole, random_box_hole

    if kind == "center":
        return center_hole(*size)
    rng = np.random.default_rng(seed)
    if kind == "box":
        return random_box_hole(*size, seed=rng, ratio=ratio, border=border)
    if kind == "free-form":
        return free_form_hole(*size, seed=rng, ratio=ratio, border=border)
    return irregular_hole(*size, seed=rng, ratio=ratio, border=border)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def models(as_json: bool) -> None:
    """List the methods: networks, parameters, layouts of weights that load."""
    from inpaint_ops.cli.model_table import collect_models, render_models

    facts = collect_models()
    click.echo(json.dumps(facts, indent=2) if as_json else render_models(facts))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Show versions, kernels, devices and extras, and why something is missing."""
    from inpaint_ops.cli.doctor import collect, render

    facts = collect()
    click.echo(json.dumps(facts, indent=2) if as_json else render(facts))
    context.exit(1 if facts["broken"] else 0)


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def bench(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Measure the kernels; see inpaint-ops bench --help."""
    try:
        from inpaint_ops.benchmarks.main import run
    except ImportError as exc:
        if (exc.name or "").startswith("inpaint_ops"):
            raise click.ClickException(f"the benchmarks are not installed ({exc})") from exc
        raise click.ClickException(
            f"{exc.name} is not installed: pip install 'inpaint-ops[bench]'"
        ) from exc
    context.exit(run(list(arguments)))
