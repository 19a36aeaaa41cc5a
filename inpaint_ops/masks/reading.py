"""Rules that turn the pixels of a hole file into missing pixels, and notes on what was assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

POLARITIES = ("white", "black", "alpha", "painted")

# Share of clearly coloured pixels from which on a note is given: fewer are rims of JPEG blocks.
_COLOURED = 0.001
_COLOURS_NAMED = 4


def read_missing(
    pixels: npt.NDArray[Any], polarity: str
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Return the (height, width) missing pixels and one sentence for each thing assumed.

    Args:
        pixels: (height, width, 1 to 4) uint8 or uint16, as in `inpaint_ops.images.Photo`.
        polarity: one of `POLARITIES`; "alpha" needs an alpha channel.
    """
    levels = int(np.iinfo(pixels.dtype).max)
    # Sums in int64 keep the comparison with the half exact.
    values = pixels.astype(np.int64)
    painted = np.ones(values.shape[:2], bool)
    if values.shape[2] in (2, 4):
        painted = 2 * values[..., -1] > levels
        values = values[..., :-1]
    if polarity == "alpha":
        return ~painted, []
    if polarity == "painted":
        return painted & (values > 0).any(-1), []
    luma = values[..., 0]
    if values.shape[2] > 1:
        luma = (299 * values[..., 0] + 587 * values[..., 1] + 114 * values[..., 2]) // 1000
    white = 2 * luma > levels
    missing = (white if polarity == "white" else ~white) & painted
    if missing.any() and not missing.all():
        return missing, _coloured_but_known(values, painted & ~missing, levels, polarity)
    marked = _marked_of_two(values, painted, white, levels, polarity)
    if marked is None:
        return missing, []
    colour = _name(values[marked][0], levels)
    bright = bool(white[painted].all())
    other, stands_for = ("white", "black") if bright else ("black", "white")
    missing = (marked if (polarity == "white") != bright else ~marked) & painted
    return missing, [f"its two colours are {other} and {colour}, which was read as {stands_for}"]


def describe(pixels: npt.NDArray[Any]) -> str:
    """Return the colours of a hole file and their shares, the most frequent first."""
    levels = int(np.iinfo(pixels.dtype).max)
    shifts = 16 * np.arange(pixels.shape[2], dtype=np.uint64)
    # One number a pixel: sorting rows would take minutes for a photo.
    packed = np.bitwise_or.reduce(pixels.astype(np.uint64) << shifts, axis=-1)
    rows, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    named = [
        f"{_name((rows[i] >> shifts) & np.uint64(0xFFFF), levels)}"
        f" on {_percent(counts[i] / counts.sum())}"
        for i in order[:_COLOURS_NAMED]
    ]
    if len(rows) > len(named):
        named.append(f"{len(rows) - len(named)} more colours")
    return ", ".join(named)


def _marked_of_two(
    values: npt.NDArray[Any],
    painted: npt.NDArray[np.bool_],
    white: npt.NDArray[np.bool_],
    levels: int,
    polarity: str,
) -> npt.NDArray[np.bool_] | None:
    """Return the marked pixels of a file with one colour beside its ground; else None.

    The ground is black, or the transparency around a brush, where every painted pixel is dark; it
    is white where every painted pixel is bright. Masks of zeros and ones, label pictures with a
    single label and red or blue brushes are of this kind.
    """
    if not painted.any():
        return None
    bright = bool(white[painted].all())
    if not bright and bool(white[painted].any()):
        return None
    ground = (values == (levels if bright else 0)).all(-1) & painted
    marked = painted & ~ground
    transparent_ground = not bright and polarity == "white" and not painted.all()
    if not marked.any() or not (ground.any() or transparent_ground):
        return None
    first = values[marked][0]
    return marked if bool((values[marked] == first).all()) else None


def _coloured_but_known(
    values: npt.NDArray[Any], known: npt.NDArray[np.bool_], levels: int, polarity: str
) -> list[str]:
    if values.shape[2] == 1:
        return []
    coloured = 4 * (values.max(-1) - values.min(-1)) > levels
    share = float((coloured & known).mean())
    if share < _COLOURED:
        return []
    way = "" if polarity == "black" else "; --hole painted takes all that is not black as missing"
    return [f"{_percent(share)} of its pixels are coloured and were read as known{way}"]


def _name(pixel: npt.NDArray[Any], levels: int) -> str:
    colour, alpha = tuple(int(v) for v in pixel), None
    if len(colour) in (2, 4):
        colour, alpha = colour[:-1], colour[-1]
    if alpha is not None and 2 * alpha <= levels:
        return f"transparent (alpha {alpha})"
    if len(set(colour)) == 1:
        return {0: "black", levels: "white"}.get(colour[0], f"grey {colour[0]} of {levels}")
    return f"rgb{colour}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
