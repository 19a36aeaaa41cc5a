"""The command ``export``: a method with its weights as a file for other programs."""

from __future__ import annotations

from pathlib import Path

import click

from inpaint_ops.cli.completion import complete_method
from inpaint_ops.cli.messages import failures, notes

_FILE = click.Path(path_type=Path)


def _parse_size(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[int, int] | None:
    if value is None:
        return None
    try:
        height, width = (int(part) for part in value.lower().split("x"))
    except ValueError:
        height = width = 0
    if height < 1 or width < 1:
        raise click.BadParameter(f"expected HxW such as 256x384, got {value!r}")
    return height, width


@click.command()
@click.argument("name", shell_complete=complete_method)
@click.option("-o", "--out", required=True, type=_FILE, help="File; .onnx or .pt2.")
@click.option(
    "--weights",
    multiple=True,
    required=True,
    type=_FILE,
    help="Weights of the model, in any of its layouts; repeated where each network has a file.",
)
@click.option(
    "--format",
    "kind",
    type=click.Choice(["onnx", "torch_export"]),
    help="What is written.  [default: by the ending of the file's name]",
)
@click.option(
    "--layout",
    default="auto",
    show_default=True,
    help="Layout of the weights, where a file can be read in two ways.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of the model; can be repeated.",
)
@click.option(
    "--size",
    metavar="HxW",
    callback=_parse_size,
    help="Take one picture of this size alone.  [default: any number, of any size]",
)
@click.option("--opset", type=click.IntRange(18, 23), help="Of ONNX.  [default: 20]")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
def export(
    name: str,
    out: Path,
    weights: tuple[Path, ...],
    kind: str | None,
    layout: str,
    options: tuple[str, ...],
    size: tuple[int, int] | None,
    opset: int | None,
    overwrite: bool,
) -> None:
    """Write the model NAME with its weights as ONNX, or as a program of torch.export.

    \b
    inpaint-ops export deepfill_v2 --weights states.pth -o deepfill_v2.onnx

    The file takes image (N, 3, H, W) and hole (N or 1, 1, H, W), 1 = missing, as float32, and gives
    the picture (N, 3, H, W) in [0, 1]. edge_connect takes edges (N, 1, H, W) too; of msnps, with
    --option energy=none, the content network is written.
    """  # noqa: D301
    from inpaint_ops.cli.fillers import FillerChoice

    choice = FillerChoice(name, weights, layout, options=options)
    try:
        choice.check()
    except ValueError as exc:
        raise click.UsageError(str(exc)) from exc
    for path in weights:
        if not path.is_file():
            raise click.UsageError(f"--weights: {path} is no file")
    with failures(), notes():
        if out.exists() and not out.is_dir() and not overwrite:
            raise FileExistsError(f"{out}: exists already; use --overwrite")
        _write(choice.build_model(), out, kind, size, {} if opset is None else {"opset": opset})
    click.echo(f"{out}: {name} written, {out.stat().st_size / 1e6:.1f} MB")


def _write(
    model: object,
    out: Path,
    kind: str | None,
    size: tuple[int, int] | None,
    options: dict[str, int],
) -> None:
    import torch

    import inpaint_ops

    sample = None
    if size is not None:
        planes = [3, *(1 for _ in model.for_export().inputs[1:])]  # type: ignore[attr-defined]
        sample = [torch.zeros(1, channels, *size) for channels in planes]
    inpaint_ops.export(
        model,  # type: ignore[arg-type]
        out,
        format=kind,
        dynamic=size is None,
        sample=sample,
        **options,
    )
