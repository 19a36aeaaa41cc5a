"""Contact sheets and curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

_GAP, _LINE = 4, 14
_MAGENTA = (1.0, 0.0, 1.0)


def marked(image: Tensor, hole: Tensor) -> Tensor:
    """Return a picture, (3, H, W), whose missing pixels, (1, H, W), are magenta."""
    return torch.where(hole > 0, image.new_tensor(_MAGENTA).view(3, 1, 1), image)


def to_picture(image: Tensor) -> Image.Image:
    """Return (3, H, W) in [0, 1] as a picture of Pillow."""
    pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[Tensor]]], heads: Sequence[str], side: int
) -> Image.Image:
    """Return rows of pictures, each under its text, beneath the heads of the columns.

    Args:
        rows: text and pictures, (3, H, W) in [0, 1].
        heads: of the columns.
        side: to which each picture is scaled, in pixels.
    """
    step = side + _GAP
    height = _LINE + len(rows) * (step + _LINE)
    sheet = Image.new("RGB", (len(heads) * step + _GAP, height), "white")
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        draw.text((_GAP + column * step, 1), head, fill="black")
    for number, (text, pictures) in enumerate(rows):
        top = _LINE + number * (step + _LINE)
        draw.text((_GAP, top + 1), text, fill="black")
        for column, picture in enumerate(pictures):
            shown = to_picture(picture).resize((side, side))
            sheet.paste(shown, (_GAP + column * step, top + _LINE))
    return sheet


def curves(
    lines: Mapping[str, Sequence[float]], file: Path, *, ylabel: str, steps: int = 1
) -> None:
    """Draw curves over steps into an SVG file, on a logarithmic scale.

    Args:
        lines: label to values.
        file: to write.
        ylabel: of the axis.
        steps: from one value to the next.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # Texts stay texts, and two runs give one file.
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "inpaint-ops"}
    with mpl.rc_context(settings):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.add_subplot()
        for label, values in lines.items():
            places = [steps * (i + 1) for i in range(len(values))]
            axes.plot(places, values, label=label, linewidth=1)
        axes.set(xlabel="step", ylabel=ylabel, yscale="log")
        axes.grid(visible=True, alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=7)
        figure.savefig(file, format="svg", metadata={"Date": None})
