"""Models without memory for their weights, to compare shapes before taking that memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.parts import Part
from inpaint_ops.models.weights.shapes import shapes_of

# A file's record alone may ask for networks without weights of at most this many numbers.
_MOST_UNTOLD = 1 << 30


def skeleton(
    cls: type[InpaintingModel],
    options: Mapping[str, Any],
    given: Mapping[str, Any],
    parts: list[Part],
) -> InpaintingModel:
    """Return a model on the meta device.

    Args:
        cls: the method.
        options: of its constructor.
        given: those of them that the user gave.
        parts: the files that imply the others.

    Raises:
        TypeError, ValueError: an option that the method does not take.
    """
    try:
        return shapes_of(cls, options)
    except Exception as exc:
        try:
            shapes_of(cls, given)
        except Exception:
            raise exc from None  # the user's options are wrong themselves
        raise ValueError(
            f"create_model: {parts[0].origin} implies options that {cls.name} does not take: {exc}"
        ) from exc


def check_absent_networks(
    shapes: InpaintingModel, parts: list[Part], given: Mapping[str, Any]
) -> None:
    """Raise ValueError for networks that the files lack and whose sizes only their record gives.

    A few bytes of a file could otherwise ask for all memory.
    """
    held = {part.network for part in parts}
    rest = sum(
        value.numel()
        for name in shapes.networks
        if name not in held
        for value in shapes.get_submodule(name).state_dict().values()
    )
    told = {name for part in parts for name in part.recipe if name not in given}
    if rest > _MOST_UNTOLD and told:
        raise ValueError(
            f"create_model: {parts[0].origin} implies options with which the networks that it "
            f"lacks have {rest} numbers: give them explicitly if that is right"
        )
