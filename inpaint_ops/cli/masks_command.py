"""The command ``masks``: random holes as files."""

from __future__ import annotations

from pathlib import Path

import click

from inpaint_ops import progress
from inpaint_ops.atomic import make_folder
from inpaint_ops.cli.messages import failures

# As `inpaint_ops.masks.HOLE_KINDS`, whose import takes its time.
KINDS = ("center", "box", "free-form", "irregular")


def _parse_size(
    _context: click.Context, _parameter: click.Parameter, value: str
) -> tuple[int, int]:
    try:
        height, width = (int(part) for part in value.lower().split("x"))
    except ValueError:
        raise click.BadParameter(f"expected HxW such as 256x384, got {value!r}") from None
    return height, width


def parse_ratio(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> tuple[float, float] | None:
    """Return low and high of ``--ratio LOW-HIGH``."""
    if value is None:
        return None
    try:
        low, high = (float(part) for part in value.split("-"))
    except ValueError:
        raise click.BadParameter(f"expected LOW-HIGH such as 0.1-0.2, got {value!r}") from None
    return low, high


@click.command()
@click.option("--size", required=True, metavar="HxW", callback=_parse_size, help="In pixels.")
@click.option("--kind", type=click.Choice(KINDS), default="irregular", show_default=True)
@click.option(
    "--ratio",
    metavar="LOW-HIGH",
    callback=parse_ratio,
    help="Share of missing pixels, in (LOW, HIGH].  [default: the kind's own]",
)
@click.option("--border", type=click.IntRange(min=0), default=0, help="Pixels known at each edge.")
@click.option("--count", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="Folder; made if missing."
)
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
    import numpy as np

    from inpaint_ops.images import save_hole
    from inpaint_ops.masks import draw_hole

    if kind == "center" and (ratio is not None or border):
        raise click.UsageError("--kind center takes neither --ratio nor --border")
    paths = [out / f"{kind}_{index:05d}.png" for index in range(count)]
    with failures():
        make_folder(out)
        existing = [path for path in paths if path.exists()]
        if existing and not overwrite:
            raise FileExistsError(
                f"{existing[0]}: exists already ({len(existing)} of {count} files do);"
                " use --overwrite"
            )
        with progress.bar(out.name) as move:
            for index, path in enumerate(paths):
                rng = np.random.default_rng((seed, index))
                save_hole(draw_hole(kind, *size, seed=rng, ratio=ratio, border=border), path)
                if move is not None:
                    move((index + 1) / count)
    click.echo(f"{out}: {count} {kind} hole{'s' if count > 1 else ''} written")
