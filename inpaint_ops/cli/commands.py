"""The program's commands. Heavy imports happen inside the commands, so that help is quick."""

from __future__ import annotations

import json
from importlib import metadata

import click

from inpaint_ops.cli.check_data_command import check_data
from inpaint_ops.cli.completion import completion
from inpaint_ops.cli.evaluate_command import evaluate
from inpaint_ops.cli.export_command import export
from inpaint_ops.cli.fill_command import fill
from inpaint_ops.cli.masks_command import masks
from inpaint_ops.cli.serve_command import serve
from inpaint_ops.cli.train_command import train
from inpaint_ops.cli.tune_command import tune


def _version() -> str:
    try:
        return metadata.version("inpaint-ops")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version=_version(), prog_name="inpaint-ops")
def cli() -> None:
    """Fill holes in pictures with fused kernels."""


cli.add_command(check_data)
cli.add_command(completion)
cli.add_command(evaluate)
cli.add_command(export)
cli.add_command(fill)
cli.add_command(masks)
cli.add_command(serve)
cli.add_command(train)
cli.add_command(tune)


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
    from inpaint_ops.doctor import collect, render

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
