"""The command ``check-data``: reads every picture of a data set and names the bad ones."""

from __future__ import annotations

from pathlib import Path

import click

from inpaint_ops import progress
from inpaint_ops.cli.messages import failures

_FILE = click.Path(path_type=Path)


@click.command("check-data")
@click.argument("data", type=_FILE)
@click.option("--root", type=_FILE, help="Folder that the paths of a list are relative to.")
@click.option(
    "--split",
    type=click.Choice(["train", "val", "test"]),
    default="train",
    show_default=True,
    help="Part of a known data set; a folder that is none is read whole.",
)
@click.option(
    "--hole",
    "polarity",
    type=click.Choice(["white", "black", "alpha", "painted"]),
    help="The files are masks, and this marks a missing pixel.",
)
@click.option("--threads", type=click.IntRange(min=1), default=4, show_default=True)
@click.pass_context
def check_data(
    context: click.Context,
    data: Path,
    root: Path | None,
    split: str,
    polarity: str | None,
    threads: int,
) -> None:
    """Read every picture of DATA, a folder, a list or a shard, and name each bad file.

    \b
    inpaint-ops check-data photos
    inpaint-ops check-data train.flist --root photos
    inpaint-ops check-data masks --hole white

    A file is bad that cannot be read as a picture, or as a mask that marks something. The exit code
    is 1 if there are any.
    """  # noqa: D301
    from inpaint_ops.data import HoleFiles, Picture, check_pictures, find_pictures

    bad = 0
    with failures(), progress.bar(data.name) as move:
        check = Picture.load
        if polarity is None:
            pictures = find_pictures(data, split=split, root=root)
        else:
            holes = HoleFiles(data, polarity)
            pictures, check = holes.files, holes.check  # type: ignore[assignment]
        for number, fault in enumerate(check_pictures(pictures, check=check, threads=threads), 1):
            if fault is not None:
                bad += 1
                click.echo(f"{fault.name}: {fault.why}")
            if move is not None:
                move(number / len(pictures))
    click.echo(f"{pictures.origin}: {len(pictures)} files, {bad} bad")
    context.exit(1 if bad else 0)
