"""Every message of errors and warnings that a user can meet, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Folders and files in the order of the page, and their heading.
AREAS = (
    (
        "Operators",
        (
            *("inpaint_ops/checks.py", "inpaint_ops/progress.py", "inpaint_ops/ops"),
            "inpaint_ops/reference",
        ),
    ),
    ("Layers and losses", ("inpaint_ops/layers", "inpaint_ops/losses", "inpaint_ops/features.py")),
    ("Methods", ("models",)),
    ("Files of weights", ("inpaint_ops/checkpoints.py", "inpaint_ops/atomic.py")),
    ("Pictures, holes and masks", ("inpaint_ops/images", "inpaint_ops/masks")),
    ("Filler and blending", ("inpaint_ops/exemplar", "inpaint_ops/blending.py")),
    ("Conversion and drop-in classes", ("inpaint_ops/conversion", "inpaint_ops/compat")),
    ("Compute what the hole needs", ("inpaint_ops/needed",)),
    ("Export", ("inpaint_ops/exporting",)),
    ("Data and training", ("inpaint_ops/data", "inpaint_ops/training")),
    ("Evaluation", ("inpaint_ops/evaluation",)),
    ("Visualisation", ("inpaint_ops/visualize",)),
    ("Command line", ("inpaint_ops/cli", "inpaint_ops/program.py", "inpaint_ops/backends.py")),
    ("The page of serve", ("inpaint_ops/serving",)),
    ("GPU kernels", ("kernels",)),
)
# Calls that make a message: exceptions, the refusals of the page, and warnings.
_MAKES = re.compile(
    r"(Error|Refusal|Refused|BadParameter|ClickException|NoKnownPatch|Unavailable|warn)$"
)


@dataclass(frozen=True)
class Message:
    """A message, with braces around what is filled in, and the file that it comes from."""

    text: str
    file: str

    def matches(self, shown: str) -> bool:
        """Tell whether a shown text may be this message, or a part of it in backticks."""
        parts = [re.escape(part) for part in re.split(r"\{[^{}]*\}", self.text)]
        return re.fullmatch(".*?".join(parts), shown, re.DOTALL) is not None


@cache
def messages(area: tuple[str, ...]) -> list[Message]:
    """Return the messages of files and folders, without repetitions, in the order of files."""
    found: dict[str, Message] = {}
    for place in area:
        path = ROOT / place
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            for text in _in_file(file):
                found.setdefault(text, Message(text, name))
    return list(found.values())


def _in_file(file: Path) -> Iterator[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value.value, str)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _MAKES.search(ast.unparse(node.func)):
            # Refusals give a status first.
            for argument in node.args[:2]:
                text = _text(argument, constants)
                if text is not None and len(text) > 12:
                    yield " ".join(text.split())
                    break


def _text(node: ast.expr, constants: dict[str, str]) -> str | None:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(_part(value, constants) for value in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = (_text(side, constants) for side in (node.left, node.right))
        return None if left is None and right is None else f"{left or '{}'}{right or '{}'}"
    return None


def _part(value: ast.expr, constants: dict[str, str]) -> str:
    if isinstance(value, ast.Constant):
        return str(value.value).replace("{", "(").replace("}", ")")
    assert isinstance(value, ast.FormattedValue)
    inner = value.value
    if isinstance(inner, ast.Name):
        return constants.get(inner.id, f"{{{inner.id}}}")
    # The last name says best what is filled in: of `self.name` the name.
    names = re.findall(r"[a-z]\w*", ast.unparse(inner))
    plain = isinstance(inner, (ast.Attribute, ast.Subscript))
    if not (plain and names):
        return "{}"
    return "{type}" if names[-1] == "name__" else f"{{{names[-1]}}}"


def every_message() -> list[Message]:
    """Return all messages."""
    return [message for _, area in AREAS for message in messages(area)]


def setup(app):  # type: ignore[no-untyped-def]
    """Register the directive ``messages``."""
    from generated import Generated

    class Messages(Generated):
        def markdown(self) -> str:
            lines = []
            for heading, area in AREAS:
                lines += [f"## {heading}", ""]
                for message in messages(area):
                    shown = message.text.replace("{}", "{…}").replace("`", "'")
                    lines.append(f"* `{shown}`")
                lines.append("")
            return "\n".join(lines)

    app.add_directive("messages", Messages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
