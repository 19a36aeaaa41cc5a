"""Completion of commands, options and names of methods by the shell."""

from __future__ import annotations

from collections.abc import Iterable

import click
from click.shell_completion import CompletionItem, get_completion_class

# Asked for by the scripts, answered by click before any command runs.
_VARIABLE = "_INPAINT_OPS_COMPLETE"
_PROGRAM = "inpaint-ops"
_SHELLS = ("bash", "zsh", "fish")


def complete_method(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return the methods that are trained and exported."""
    from inpaint_ops.models import list_models

    return _beginning(list_models(), incomplete)


def complete_filler(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return what ``fill --model`` takes."""
    from inpaint_ops.cli.fillers import FILLERS
    from inpaint_ops.models import list_models

    return _beginning([*FILLERS, *list_models()], incomplete)


def complete_evaluated(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Return what ``evaluate --model`` takes, without label and weights."""
    from inpaint_ops.cli.fillers import FILLERS
    from inpaint_ops.evaluation import BASELINES
    from inpaint_ops.models import list_models

    return _beginning([*FILLERS, *BASELINES, *list_models()], incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options, files and methods.

    \b
    eval "$(inpaint-ops completion bash)"                # in ~/.bashrc
    eval "$(inpaint-ops completion zsh)"                 # in ~/.zshrc
    inpaint-ops completion fish | source                 # in fish's config
    """  # noqa: D301
    kind = get_completion_class(shell)
    assert kind is not None
    script = kind(context.find_root().command, {}, _PROGRAM, _VARIABLE)
    click.echo(script.source_template % script.source_vars())
