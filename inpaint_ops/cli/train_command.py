"""The command ``train``: a method from a folder of pictures to its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inpaint_ops.cli.completion import complete_method
from inpaint_ops.cli.messages import failures, notes

if TYPE_CHECKING:
    from inpaint_ops.training import Config

_FILE = click.Path(path_type=Path)
# A shell reports a process that a signal ended by this and the signal's number.
_ENDED = 128


@click.command()
@click.argument("method", shell_complete=complete_method)
@click.option("--data", type=_FILE, help="Pictures: folder, list (.flist, .txt) or shard (.tar).")
@click.option("--out", required=True, type=_FILE, help="Folder of the run; made if missing.")
@click.option(
    "--config", "file", type=_FILE, help="TOML; the names are in docs/guides/training.md."
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="One value in place of the file's, such as phases.joint.batch=8; can be repeated.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out, if it has begun.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads.  [default: torch's]")
@click.pass_context
def train(
    context: click.Context,
    method: str,
    data: Path | None,
    out: Path,
    file: Path | None,
    settings: tuple[str, ...],
    resume: bool,
    threads: int | None,
) -> None:
    """Train METHOD through all of its phases.

    \b
    inpaint-ops train deepfill_v2 --data photos --out run --set iterations=100000
    inpaint-ops train deepfill_v2 --data photos --out run --resume

    The folder of the run holds its configuration, the losses of each step, curves and pictures for
    TensorBoard, the last checkpoints and, at the end, METHOD.safetensors for inpaint-ops fill. A
    run that was killed goes on as if nothing had happened. SIGTERM, or Ctrl-C, writes a checkpoint
    first.
    """  # noqa: D301
    from inpaint_ops.cli.training_display import display
    from inpaint_ops.training import Stopped
    from inpaint_ops.training import train as run

    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    try:
        with failures():
            config = _config(method, data, out, file, settings, resume)
            with notes(), display(config.log_every) as (on_step, say):
                weights = run(config, out, resume=resume, on_step=on_step, say=say)
    except Stopped as stopped:  # which was said
        context.exit(_ENDED + stopped.number)
    click.echo(f"{weights}: weights of {method}, for inpaint-ops fill --model {method}")


def _config(
    method: str,
    data: Path | None,
    out: Path,
    file: Path | None,
    settings: tuple[str, ...],
    resume: bool,
) -> Config:
    from inpaint_ops.models import model_class
    from inpaint_ops.training import read_config
    from inpaint_ops.training.run_folder import RunFolder

    model_class(method)
    if resume and file is None:
        # The run says itself what it is; what is given beside must agree.
        file = RunFolder.config_of(out)
    given: dict[str, Any] = {} if data is None else {"data.path": str(data)}
    config = read_config(method, file, settings, **given)
    if not config.data.path:
        raise click.UsageError("--data is missing: the pictures, as a folder, a list or a shard")
    return config
