"""Docstrings as they are written here, Markdown in spirit, made harmless for reStructuredText."""

import re

from docutils import nodes
from sphinx.application import Sphinx

# What reStructuredText would take for a reference, a substitution or emphasis.
_SPECIAL = re.compile(r"([*|]|(?<=\w)_(?!\w))")


def _escaped(line: str) -> str:
    parts = re.split(r"(``.*?``|`[^`]*`)", line)
    parts[::2] = [_SPECIAL.sub(r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _listed(lines: list[str]) -> list[str]:
    """Make a list of several results, each "name: what it is" under ``Returns:``."""
    if "Returns:" not in lines:
        return lines
    start = lines.index("Returns:") + 1
    end = next((i for i in range(start, len(lines)) if re.match(r"\S", lines[i])), len(lines))
    items = [i for i in range(start, end) if re.match(r"    \w+: ", lines[i])]
    if len(items) < 2:
        return lines
    inside = []
    for number in range(start, end):
        text = lines[number][4:]
        if number in items:
            inside += ["", f"    * {text}"]
        else:
            inside.append(f"      {text.strip()}" if text.strip() else "")
    return [*lines[:start], *inside[1:], "", *lines[end:]]


def escape(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Escape what stands outside backticks, but for the stars that begin a list."""
    if what == "data":  # a constant has the docstring of its class
        lines.clear()
    lines[:] = _listed(lines)
    for number, line in enumerate(lines):
        head = re.match(r"\s*(\* )?", line)
        assert head is not None
        lines[number] = head.group() + _escaped(line[head.end() :])


def dashes(app: Sphinx, doctree: nodes.document) -> None:
    """Set a dash between an argument and its meaning."""
    for text in list(doctree.findall(nodes.Text)):
        if text.startswith(" -- "):
            text.parent.replace(text, nodes.Text(f" – {text[4:]}"))


def setup(app: Sphinx) -> dict[str, bool]:
    """Run before the extension that reads the sections of docstrings."""
    app.connect("autodoc-process-docstring", escape, priority=100)
    app.connect("doctree-read", dashes)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
