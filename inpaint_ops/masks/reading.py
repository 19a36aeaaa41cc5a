"""Rules that turn the pixels of a hole file into missing pixels, and notes on what was assumed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

POLARITIES = ("white", "black", "alpha", "painted")
# The mark of the hole where the user names none.
DEFAULT_POLARITY = "white"

# Share of coloured or transparent pixels from which on a note is given: fewer are specks, or rims
# of JPEG blocks.
_WORTH_A_NOTE = 0.001
# A mask has two colours; rims and noise take less than this share, labels are few.
_BESIDE_TWO_COLOURS = 0.1
_FEW_COLOURS = 4
_COLOURS_NAMED = 4


def read_missing(
    pixels: npt.NDArray[Any], polarity: str | None
) -> tuple[npt.NDArray[np.bool_], list[str]]:
    """Return the (height, width) missing pixels and one sentence for each thing assumed.

    Args:
        pixels: (height, width, 1 to 4) uint8 or uint16, as in `inpaint_ops.images.Photo`.
        polarity: one of `POLARITIES`; "alpha" needs an alpha channel. None is white, unless the
            file has many colours and transparent parts, of which either may be meant.

    Raises:
        ValueError: polarity is None, and only the user can say what marks the hole.
    """
    chosen, polarity = polarity is not None, polarity or DEFAULT_POLARITY
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
    many = _has_many_colours(values[painted], levels)
    notes = [] if chosen else _about_transparency(pixels, painted, many)
    luma = values[..., 0]
    if values.shape[2] > 1:
        luma = (299 * values[..., 0] + 587 * values[..., 1] + 114 * values[..., 2]) // 1000
    white = 2 * luma > levels
    missing = (white if polarity == "white" else ~white) & painted
    if missing.any() and not missing.all():
        coloured = _coloured_but_known(values, painted & ~missing, levels, polarity)
        if many and not coloured:
            side = "brighter" if polarity == "white" else "darker"
            coloured = [
                f"it has many colours, as a photo has; what is {side} than half of the range was"
                " read as missing"
            ]
        return missing, notes + coloured
    marked = _marked_of_two(values, painted, white, levels, polarity)
    if marked is None:
        return missing, notes
    colour = _name(values[marked][0], levels)
    bright = bool(white[painted].all())
    other, stands_for = ("white", "black") if bright else ("black", "white")
    missing = (marked if (polarity == "white") != bright else ~marked) & painted
    notes.append(f"its two colours are {other} and {colour}, which was read as {stands_for}")
    return missing, notes


def other_ways(pixels: npt.NDArray[Any], polarity: str | None) -> str:
    """Return what the polarities other than the one given would take as missing."""
    found = []
    for other in POLARITIES:
        if other != polarity and (other != "alpha" or pixels.shape[2] in (2, 4)):
            share = float(read_missing(pixels, other)[0].mean())
            found.append(f"{other} would take {_percent(share)}")
    return ", ".join(found)


def grey_levels(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a mask of 32-bit integers or floats as uint8 or uint16 of the same meaning.

    Args:
        values: any shape. Whole numbers in 0..255 or 0..65535, fractions in [0, 1], or zero and one
            other number.

    Raises:
        ValueError: other values, which do not tell where half of their range is.
    """
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("its values are not all finite, so it is no mask")
    whole = bool((values == np.floor(values)).all())
    if low >= 0 and high <= 1 and not whole:
        # Rounded down, so that what is half exactly does not become more than half.
        return np.floor(values.astype(np.float64) * 65535).astype(np.uint16)
    if low >= 0 and high <= 65535 and whole:
        return values.astype(np.uint8 if high <= 255 else np.uint16)
    marked = values != 0
    if bool((values[marked] == values[marked][0]).all()):
        return np.where(marked, np.uint8(255), np.uint8(0))
    raise ValueError(
        f"its values, from {low:g} to {high:g}, are not those of a mask (0 to 1, 0 to 255, 0 to"
        " 65535, or 0 and one other); save the mask as 8-bit grey, black and white"
    )


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


def _has_many_colours(colours: npt.NDArray[Any], levels: int) -> bool:
    """Return whether (pixels, channels) are a photo's; a mask has two colours, rims and noise."""
    # Eight steps of each channel.
    steps = colours * 8 // (levels + 1) @ (8 ** np.arange(colours.shape[1]))
    counts = np.sort(np.bincount(steps))
    beside = int(counts[:-2].sum())
    few = np.count_nonzero(counts) <= _FEW_COLOURS
    return beside > _BESIDE_TWO_COLOURS * len(colours) and not few


def _about_transparency(
    pixels: npt.NDArray[Any], painted: npt.NDArray[np.bool_], many: bool
) -> list[str]:
    """Return notes on a file with transparent parts whose meaning the user did not give."""
    share = 1.0 - float(painted.mean())
    if not _WORTH_A_NOTE <= share < 1.0:
        return []
    if many:
        raise ValueError(
            f"it has many colours, as a photo has, and {_percent(share)} of it is transparent, so"
            f" --hole (polarity) must say what marks the hole: {other_ways(pixels, None)}"
        )
    return [
        f"{_percent(share)} of its pixels are transparent and were read as known; --hole alpha"
        " takes them as missing"
    ]


def _coloured_but_known(
    values: npt.NDArray[Any], known: npt.NDArray[np.bool_], levels: int, polarity: str
) -> list[str]:
    if values.shape[2] == 1:
        return []
    coloured = 4 * (values.max(-1) - values.min(-1)) > levels
    share = float((coloured & known).mean())
    if share < _WORTH_A_NOTE:
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
