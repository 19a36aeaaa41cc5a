"""The command ``evaluate``: several models side by side over a list of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inpaint_ops import progress
from inpaint_ops.cli.completion import complete_evaluated
from inpaint_ops.cli.devices import device_option, find_device
from inpaint_ops.cli.fill_command import parse_window
from inpaint_ops.cli.masks_command import KINDS, parse_ratio
from inpaint_ops.cli.messages import failures, notes

if TYPE_CHECKING:
    import torch

    from inpaint_ops.cli.evaluating import DataChoice, ModelChoice
    from inpaint_ops.evaluation import Results

_FILE = click.Path(path_type=Path)
_POLARITIES = click.Choice(["white", "black", "alpha", "painted"])


def _parse_size(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[int, int] | None:
    if value == "none":
        return None
    sides = value.lower().split("x")
    if len(sides) > 2 or not all(s.isascii() and s.isdecimal() and int(s) > 0 for s in sides):
        raise click.BadParameter(f"must be PIXELS, HxW or none, got {value!r}")
    return int(sides[0]), int(sides[-1])


@click.command()
@click.option("--data", required=True, type=_FILE, help="Folder, list or shard of pictures.")
@click.option("--root", type=_FILE, help="Folder that the paths of a list are relative to.")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="val",
    show_default=True,
    help="Part of a known data set; a folder that is none is read whole.",
)
@click.option(
    "--model",
    "texts",
    multiple=True,
    required=True,
    metavar="[LABEL:]NAME[=FILE[,FILE...]]",
    shell_complete=complete_evaluated,
    help="A method and its weights, exemplar, telea, navier-stokes or biharmonic; can be repeated."
    " LABEL is its name in the tables.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="LABEL.NAME=VALUE",
    help="An option of a model; can be repeated.",
)
@click.option("--features", type=_FILE, help="VGG weights in torchvision's layout (msnps).")
@click.option(
    "--window",
    metavar="auto|none|PIXELS",
    default="auto",
    show_default=True,
    callback=parse_window,
    help="What a method sees of a picture, as with fill.",
)
@click.option(
    "--size",
    metavar="PIXELS|HxW|none",
    default="256",
    show_default=True,
    callback=_parse_size,
    help="Pictures are scaled until they cover this, and their centre is taken; none leaves each"
    " as it is.",
)
@click.option("--holes", type=_FILE, help="Folder or list of masks, in place of drawn holes.")
@click.option("--hole", "polarity", type=_POLARITIES, help="What marks a missing pixel in --holes.")
@click.option(
    "--pair",
    is_flag=True,
    help="Picture i has mask i; else one is drawn for each picture by the seed.",
)
@click.option("--kind", type=click.Choice(KINDS), help="Of drawn holes.  [default: irregular]")
@click.option(
    "--ratio",
    metavar="LOW-HIGH",
    callback=parse_ratio,
    help="Share of missing pixels of drawn holes, in (LOW, HIGH].  [default: the kind's own]",
)
@click.option("--border", type=click.IntRange(min=0), help="Pixels known at each edge.")
@click.option(
    "--fid-features",
    type=_FILE,
    help="Network of FID, from a file: TorchScript or a program of torch.export (.pt2).",
)
@click.option(
    "--lpips",
    type=_FILE,
    help="Network of LPIPS, from such a file, or torchvision's file of VGG-16.",
)
@click.option("--count", type=click.IntRange(min=1), help="Pictures, from the first one on.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a picture that cannot be read, or that a model fails at; skip counts them.",
)
@click.option(
    "--shown",
    type=click.IntRange(min=0),
    default=24,
    show_default=True,
    help="Pictures on the page, spread over the list.",
)
@device_option
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: torch's]")
@click.option("--out", required=True, type=_FILE, help="Folder; made if missing.")
@click.option("--overwrite", is_flag=True, help="Replace the results of before.")
def evaluate(
    texts: tuple[str, ...],
    options: tuple[str, ...],
    device: str,
    threads: int | None,
    out: Path,
    overwrite: bool,
    **settings: Any,
) -> None:
    """Measure how well models fill holes in the pictures of a folder, a list or a shard.

    \b
    inpaint-ops evaluate --data photos --model exemplar --model telea --out results
    inpaint-ops evaluate --data val.flist --holes masks --hole white --out results \\
        --model deepfill_v2=deepfill_v2.safetensors --model old:deepfill_v2=states.pth

    Every picture has one hole, which the seed decides, and all models fill the same. The folder
    gets pictures.csv, summary.csv, summary.json and index.html.
    """  # noqa: D301
    from inpaint_ops.cli.evaluating import DataChoice, parse_models
    from inpaint_ops.evaluation import check_folder, write_results

    try:
        choices = parse_models(texts, options)
        data = DataChoice(**{one.name: settings.pop(one.name) for one in fields(DataChoice)})
        data.check()
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    place = find_device(device)
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with failures(), notes():
        check_folder(out, overwrite)
        results = _measured(data, choices, place, out.name, **settings)
        write_results(results, out, overwrite=overwrite)
    for text in results.faults:
        click.echo(f"left out: {text}", err=True)
    for row in results.rows:
        if row.failed:
            click.echo(f"{row.model} fails at {row.picture}: {row.note}", err=True)
    click.echo(_told(results.summary(), list(results.summary_columns)))
    click.echo(f"{out / 'index.html'}: tables and pictures")


def _measured(
    data: DataChoice,
    choices: Sequence[ModelChoice],
    device: torch.device,
    title: str,
    *,
    features: Path | None,
    window: int | str | None,
    fid_features: Path | None,
    lpips: Path | None,
    **settings: Any,
) -> Results:
    from inpaint_ops.cli.evaluating import hashed
    from inpaint_ops.evaluation import FrechetFeatures, PerceptualDistance, evaluate

    samples = data.samples()
    models = {one.label: one.build(features, window, device) for one in choices}
    files = {"fid": fid_features, "lpips": lpips, "features": features}
    facts = {
        "models": {one.label: one.facts() for one in choices},
        "networks": {name: hashed(file) for name, file in files.items() if file is not None},
        "window": window,
        "device": str(device),
    }
    with progress.bar(title) as move:
        return evaluate(
            *(samples, models),
            fid_features=None if fid_features is None else FrechetFeatures(fid_features, device),
            lpips=None if lpips is None else PerceptualDistance(lpips, device),
            facts=facts,
            progress=move,
            **settings,
        )


def _told(summary: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return the means over all holes, a line for each model."""
    lines = []
    for one in summary:
        if one["bin"] == one["border"] == "all":
            values = [f"{name} {one[name]:.4g}" for name in columns if one[name] is not None]
            failed = f", {one['failed']} failed" if one["failed"] else ""
            count = f"{one['pictures']} picture{'' if one['pictures'] == 1 else 's'}"
            lines.append(f"{one['model']}: {count}{failed}: {', '.join(values)}")
    return "\n".join(lines)
