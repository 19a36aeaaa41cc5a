"""Arguments of the drawn holes: seeds, sizes, and the numbers of pixels that a ratio allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch

if TYPE_CHECKING:
    import numpy.typing as npt
    from torch import Tensor

Seed: TypeAlias = "int | np.random.Generator"


def hole_tensor(hole: npt.NDArray[np.bool_]) -> Tensor:
    """Return a (height, width) array as a (1, 1, height, width) tensor."""
    return torch.from_numpy(hole)[None, None]


def random_generator(name: str, seed: Seed) -> np.random.Generator:
    """Return the generator that a seed starts, or the generator given."""
    if isinstance(seed, np.random.Generator):
        return seed
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
        raise TypeError(
            f"{name}: seed must be an integer or numpy.random.Generator, got {type(seed).__name__}"
        )
    if seed < 0:
        raise ValueError(f"{name}: seed must be >= 0, got {seed}")
    return np.random.default_rng(int(seed))


def check_picture(name: str, height: int, width: int, border: int) -> None:
    """Check the size of a picture and the border that stays known."""
    check_integer(name, "height", height, 1)
    check_integer(name, "width", width, 1)
    check_integer(name, "border", border, 0)
    if 2 * border >= min(height, width):
        raise ValueError(
            f"{name}: border must leave a pixel of the {height} x {width} picture, got {border}"
        )


def check_integer(name: str, argument: str, value: int, least: int) -> None:
    """Check an integer of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: {argument} must be an integer, got {type(value).__name__}")
    if value < least:
        raise ValueError(f"{name}: {argument} must be >= {least}, got {value}")


def count_range(
    name: str, height: int, width: int, ratio: tuple[float, float], border: int
) -> tuple[int, int]:
    """Return the smallest and largest number of missing pixels with a share in (low, high]."""
    if not isinstance(ratio, (tuple, list)) or len(ratio) != 2:
        raise TypeError(f"{name}: ratio must be a pair (low, high), got {ratio!r}")
    low, high = ratio
    if not 0 <= low < high <= 1:
        raise ValueError(f"{name}: ratio must satisfy 0 <= low < high <= 1, got {ratio}")
    total = height * width
    # The comparisons that a user would make decide, not the rounding of low * total.
    least = max(int(low * total) - 1, 0)
    while least / total <= low:
        least += 1
    most = min(int(high * total) + 1, total)
    while most / total > high:
        most -= 1
    room = (height - 2 * border) * (width - 2 * border)
    if least > min(most, room):
        raise ValueError(
            f"{name}: ratio {tuple(ratio)} cannot be met in {height} x {width} pixels"
            f" with a border of {border}"
        )
    return least, min(most, room)


def draw_count(rng: np.random.Generator, counts: tuple[int, int]) -> int:
    """Draw a number of pixels, both ends included."""
    return int(rng.integers(counts[0], counts[1], endpoint=True))
