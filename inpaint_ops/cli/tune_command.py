"""The command ``tune``: measures this machine, by which convolutions choose their algorithm."""

from __future__ import annotations

import click

from inpaint_ops.cli.messages import failures
from inpaint_ops.progress import bar


@click.command()
@click.option("--dry-run", is_flag=True, help="Measure, and keep nothing.")
@click.option("--forget", is_flag=True, help="Delete what an earlier run kept.")
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=7,
    show_default=True,
    help="Times that each algorithm runs on each layer.",
)
@click.pass_context
def tune(context: click.Context, dry_run: bool, forget: bool, rounds: int) -> None:
    """Measure what convolutions cost on this machine's CPU, and choose their algorithms by it.

    \b
    inpaint-ops tune
    inpaint-ops tune --dry-run
    inpaint-ops tune --forget

    Takes a minute of one core; nothing else should run meanwhile. The numbers are kept in the
    user's cache folder, for this processor, instruction set and version of the library; the file
    may be deleted at any time. Without it, or where they make no choice faster and none slower, the
    numbers that the library comes with hold. INPAINT_OPS_CPU_COSTS=0 ignores the file.
    """  # noqa: D301
    from inpaint_ops.ops import native
    from inpaint_ops.ops.convolution import costs, tuning

    status = native.status()
    if not status.available:
        raise click.ClickException(
            f"there is nothing to tune, the extension is missing: {status.error}"
        )
    name = str(status.instruction_set)
    with failures():
        if forget:
            found = costs.file_of(name)
            gone = found.exists()
            tuning.keep(tuning.Outcome(None, [], (0.0, 0.0)))
            click.echo(f"deleted {found}" if gone else f"there is no {found}")
            return
        with bar("layers") as move:
            outcome = tuning.tune(
                tuning.LAYERS,
                rounds=rounds,
                progress=move if move is not None else lambda done: None,
            )
        click.echo(f"{costs.cpu_name()}, {name}")
        before, after = outcome.errors
        click.echo(
            f"predicted times are off by {before:.0%} by the table, {after:.0%} measured here"
        )
        for choice in outcome.choices:
            gain = choice.seconds[0] / choice.seconds[1]
            click.echo(
                f"{choice.layer}: {choice.after} for {choice.before}, {gain:.2f} times as fast"
            )
        if outcome.costs is None:
            click.echo("no choice becomes faster without another becoming slower: the table stays")
        if dry_run:
            click.echo("nothing is kept")
            return
        path = tuning.keep(outcome)
        if path is not None:
            click.echo(f"kept in {path}")
        if costs.switched_off():
            click.echo(f"ignored while {costs.VARIABLE} says so")
