"""The commands of ``inpaint-ops`` with all of their options, from the program itself."""

from __future__ import annotations

import inspect

import click
from generated import Generated
from sphinx.application import Sphinx

from inpaint_ops.cli.commands import cli


def _row(option: click.Parameter) -> str:
    record = (
        option.get_help_record(click.Context(cli)) if isinstance(option, click.Option) else None
    )
    names = record[0] if record else f"{option.human_readable_name}"
    words = (record[1] if record else "") or ""
    return f"| `{names.replace('|', '/')}` | {words.replace('|', '/').replace('<', '&lt;')} |"


def _help(command: click.Command) -> list[str]:
    """Return the help in Markdown; click marks paragraphs that keep their lines."""
    lines = []
    for paragraph in inspect.cleandoc(command.help or command.short_help or "").split("\n\n"):
        code = paragraph.startswith("\b\n")
        text = paragraph.removeprefix("\b\n")
        lines += ["```sh", *text.splitlines(), "```", ""] if code else [text, ""]
    return lines


class Commands(Generated):
    """The directive."""

    def markdown(self) -> str:
        """Return a section for each command."""
        lines = []
        for name, command in sorted(cli.commands.items()):
            lines += [f"## {name}", "", *_help(command), "| option | |", "|---|---|"]
            lines += [_row(option) for option in command.params]
            lines.append("")
        return "\n".join(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive ``commands``."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
