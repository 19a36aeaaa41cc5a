"""Rasterised strokes that stop at a given number of pixels."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

Point: TypeAlias = "tuple[float, float]"

# Strokes after which the rest of a wanted share is added as one blot: only shares near 1 need it.
_MAX_STROKES = 300


class Canvas:
    """A hole under construction and the number of its pixels."""

    def __init__(self, height: int, width: int, border: int) -> None:
        self.hole = np.zeros((height, width), bool)
        self.count = 0
        self.top, self.bottom = border, height - border
        self.left, self.right = border, width - border

    def random_point(self, rng: np.random.Generator) -> Point:
        """Row and column of a pixel that may be missing."""
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
        """Draw one segment, stop at budget missing pixels, return where it ends."""
        row = min(max(start[0] + length * math.sin(angle), self.top), self.bottom - 1)
        column = min(max(start[1] + length * math.cos(angle), self.left), self.right - 1)
        end = (int(row), int(column))
        self._paint(start, end, radius, budget)
        return end

    def on_edge(self, point: Point) -> bool:
        """Whether the pixel is one of the outermost that may be missing."""
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
        along_r, along_c = end[0] - start[0], end[1] - start[1]
        squared = max(along_r**2 + along_c**2, 1e-12)
        along = np.clip((rows * along_r + columns * along_c) / squared, 0.0, 1.0)
        distance = (rows - along * along_r) ** 2 + (columns - along * along_c) ** 2
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
