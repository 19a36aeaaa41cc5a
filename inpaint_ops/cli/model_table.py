"""The table of ``inpaint-ops models``."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from inpaint_ops.models import create_model, list_models, model_class, parameter_counts


def collect_models() -> dict[str, dict[str, Any]]:
    """Return the facts about each method, in the order of names.

    Returns:
        For each name: summary, networks with parameter counts, layouts with network, source,
        licence of published weights and channel order, constructor options with defaults, and the
        multiple and smallest side of pictures inside the network.
    """
    facts = {}
    for name in list_models():
        cls = model_class(name)
        # Shapes are enough: no memory is taken for the weights.
        with torch.device("meta"):
            model = create_model(name)
        options = inspect.signature(cls.__init__).parameters
        facts[name] = {
            "summary": (cls.__doc__ or "").partition("\n")[0],
            "networks": parameter_counts(model),
            "layouts": [
                {
                    "name": one.name,
                    "network": one.network,
                    "source": one.source,
                    "licence": one.licence,
                    "channel_order": one.channel_order,
                }
                for one in cls.layouts
            ],
            "options": {key: p.default for key, p in options.items() if key != "self"},
            "multiple": model.multiple,
            "minimum": model.minimum,
        }
    return facts


def render_models(facts: dict[str, dict[str, Any]]) -> str:
    """Return the facts as text for a terminal."""
    lines = []
    for name, fact in facts.items():
        lines.append(f"{name}: {fact['summary']}")
        for network, count in fact["networks"].items():
            lines.append(f"    {network}: {count / 1e6:.2f} M parameters")
        by_name: dict[str, list[str]] = {}
        for layout in fact["layouts"]:
            by_name.setdefault(layout["name"], []).append(layout["network"])
        loads = "; ".join(f"{key} ({', '.join(networks)})" for key, networks in by_name.items())
        lines.append(f"    loads: {loads or 'own files only'}")
        options = ", ".join(f"{key}={value!r}" for key, value in fact["options"].items())
        lines.append(f"    options: {options}")
    return "\n".join(lines)
