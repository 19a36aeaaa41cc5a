"""Strokes painted on pixels, which stop at a given number of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Point: TypeAlias = "tuple[float, float]"

# Most strokes of a hole; after them one blot adds the pixels that are left. Only holes of nearly
# the whole picture need it.
_MAX_STROKES = 300


class Canvas:
    """A hole under construction and the number of its pixels."""

    def __init__(self, height: int, width: int, border: int) -> None:
        self.hole = np.zeros((height, width), bool)
        self.count = 0
        self.top, self.bottom = border, height - border
        self.left, self.right = border, width - border

    def random_point(self, rng: np.random.Generator) -> Point:
        """Draw the row and column of a pixel that may be missing."""
        row = int(rng.integers(self.top, self.bottom))
        return row, int(rng.integers(self.left, self.right))

    def fill_to(self, target: int, stroke: Callable[[int], None]) -> None:
        """Draw strokes until exactly target pixels are missing."""
        for _ in range(_MAX_STROKES):
            if self.count >= target:
                return
            stroke(target)
        centre = ((self.top + self.bottom) / 2, (self.left + self.right) / 2)
        self._paint(centre, centre, math.hypot(*self.hole.shape), target)

    def line(self, start: Point, angle: float, length: float, radius: float, budget: int) -> Point:
        """Draw one segment up to `budget` missing pixels in all; return its end."""
        row = min(max(start[0] + length * math.sin(angle), self.top), self.bottom - 1)
        column = min(max(start[1] + length * math.cos(angle), self.left), self.right - 1)
        end = (int(row), int(column))
        self._paint(start, end, radius, budget)
        return end

    def on_edge(self, point: Point) -> bool:
        """Return whether the pixel is one of the outermost that may be missing."""
        row, column = point
        return row in (self.top, self.bottom - 1) or column in (self.left, self.right - 1)

    def _paint(self, start: Point, end: Point, radius: float, budget: int) -> None:
        top = max(math.ceil(min(start[0], end[0]) - radius), self.top)
        bottom = min(math.floor(max(start[0], end[0]) + radius) + 1, self.bottom)
        left = max(math.ceil(min(start[1], end[1]) - radius), self.left)
        right = min(math.floor(max(start[1], end[1]) + radius) + 1, self.right)
        if top >= bottom or left >= right or self.count >= budget:
            return
        rows = np.arange(top, bottom)[:, None] - start[0]
        columns = np.arange(left, right) - start[1]
        down, across = end[0] - start[0], end[1] - start[1]
        squared = max(down**2 + across**2, 1e-12)
        along = np.clip((rows * down + columns * across) / squared, 0.0, 1.0)
        distance = (rows - along * down) ** 2 + (columns - along * across) ** 2
        window = self.hole[top:bottom, left:right]
        new = (distance <= radius**2) & ~window
        added = int(np.count_nonzero(new))
        if self.count + added > budget:
            # The pixels nearest to the start come first, as if the brush had been lifted.
            added = budget - self.count
            indices = np.flatnonzero(new)
            order = np.argsort((rows**2 + columns**2).ravel()[indices], kind="stable")
            window[np.unravel_index(indices[order[:added]], window.shape)] = True
        else:
            window |= new
        self.count += added
