"""Tables about a method from its class: networks, public weights, options, phases."""

from __future__ import annotations

import inspect
import re
import warnings
from typing import Any

import torch
from generated import Generated
from sphinx.application import Sphinx

from inpaint_ops.models import Phase, create_model, model_class, parameter_counts


def _table(heads: list[str], rows: list[list[str]]) -> list[str]:
    ruled = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in ruled]


def _documented(cls: type) -> dict[str, str]:
    """Return what the docstring says of each option."""
    text = inspect.cleandoc(cls.__doc__ or "").partition("\nArgs:\n")[2].partition("\n\nSource")[0]
    found = {}
    for names, words in re.findall(r"^    ([\w, ]+): (.*?)(?=^    \w|\Z)", text, re.M | re.S):
        for name in names.split(","):
            found[name.strip()] = " ".join(words.split())
    return found


def _value(value: Any) -> str:
    return f"`{value!r}`"


def _phase(phase: Phase) -> list[str]:
    numbers = ", ".join(f"{name} {number:g}" for name, number in phase.numbers.items())
    given = [phase.iterations, phase.batch]
    return [f"`{phase.name}`", *("–" if n is None else f"{n:,}" for n in given), numbers]


def facts(name: str) -> str:
    """Return the tables in Markdown."""
    cls = model_class(name)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = create_model(name)
    counts = parameter_counts(model)
    runs = set(cls.completion_networks)
    lines = ["### Networks", ""]
    lines += _table(
        ["network", "parameters", "runs when it completes"],
        [[f"`{n}`", f"{c:,}", "yes" if n in runs else "training only"] for n, c in counts.items()],
    )
    lines += ["", "### Layouts of weights that load", ""]
    rows = [
        [f"`{one.name}`", f"`{one.network}`", one.source, one.licence, one.channel_order or "–"]
        for one in cls.layouts
    ]
    heads = ["layout", "network", "public code", "licence of its weights", "channels"]
    lines += _table(heads, rows) if rows else ["None was published. Files of your own load."]
    lines += ["", "### Options", ""]
    documented = _documented(cls)
    options = [p for p in inspect.signature(cls.__init__).parameters.values() if p.name != "self"]
    lines += _table(
        ["option", "default", "meaning"],
        [[f"`{p.name}`", _value(p.default), documented.get(p.name, "")] for p in options],
    )
    lines += ["", "### Phases of its training", ""]
    phases = [_phase(phase) for phase in cls.recipe_class.phases]
    lines += _table(["phase", "steps of the source", "batch", "numbers"], phases)
    lines += ["", f"Holes: `{cls.recipe_class.hole_kind}`."]
    return "\n".join(lines)


class MethodFacts(Generated):
    """The directive; its argument is the name of a method."""

    required_arguments = 1

    def markdown(self) -> str:
        """Return the tables."""
        return facts(self.arguments[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive ``method-facts``."""
    app.add_directive("method-facts", MethodFacts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
