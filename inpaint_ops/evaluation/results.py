"""The rows of an evaluation and what is made of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.evaluation.groups import ALL, groups
from inpaint_ops.evaluation.measures import MEASURES, Measure
from inpaint_ops.evaluation.perceptual import frechet_distance

LPIPS = Measure("LPIPS", False, 4)
FID = Measure("FID", False, 2)
SECONDS = Measure("seconds", False, 3)


@dataclass(frozen=True)
class Row:
    """One picture filled by one model.

    Attributes:
        index: of the picture in the list.
        picture: its name.
        model: its name.
        size: height and width that were filled.
        ratio: share of missing pixels.
        share: name of its bin.
        border: "touches" where a missing pixel is at the picture's edge, else "inside".
        values: by measure; None where there is none.
        seconds: that the model took; None where it failed.
        note: why something is empty.
        failed: whether the model raised an error, or returned no picture.
    """

    index: int
    picture: str
    model: str
    size: tuple[int, int]
    ratio: float
    share: str
    border: str
    values: Mapping[str, float | None]
    seconds: float | None
    note: str = ""
    failed: bool = False


@dataclass(frozen=True)
class Shown:
    """Pictures for the page, as JPEG files.

    Attributes:
        index: of the picture in the list.
        damaged: the hole in magenta.
        truth: the whole picture.
        filled: by model; of some there may be none.
    """

    index: int
    damaged: bytes
    truth: bytes
    filled: Mapping[str, bytes]


@dataclass
class Results:
    """All that an evaluation has found.

    Attributes:
        models: names, in the order of the tables.
        rows: a row for each picture and model, by picture.
        facts: settings, versions, digests; ready for JSON.
        faults: a text for each picture that could not be read and was left out.
        shown: pictures for the page.
        features: of the pictures' truth (under None) and of each model's results, by index.
        with_lpips: whether LPIPS was measured.
    """

    models: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    features: dict[str | None, dict[int, Tensor]] = field(default_factory=dict)
    with_lpips: bool = False

    @property
    def columns(self) -> dict[str, Measure]:
        """The measures of a row."""
        return {**MEASURES, **({"lpips": LPIPS} if self.with_lpips else {})}

    @property
    def summary_columns(self) -> dict[str, Measure]:
        """The measures of the summary."""
        fid = {"fid": FID} if self.features else {}
        return {**self.columns, **fid, "seconds": SECONDS}

    def summary(self) -> list[dict[str, Any]]:
        """Return a dictionary for each model and each group of holes that has a picture.

        `pictures` counts those that the model filled, `failed` the others. Measures are means over
        the pictures that have the measure, `seconds` is the median, which leaves out what a first
        call does once. FID needs two pictures.
        """
        found = []
        for share, border in groups():
            inside = [
                row
                for row in self.rows
                if share in (ALL, row.share) and border in (ALL, row.border)
            ]
            for model in self.models if inside else ():
                rows = [row for row in inside if row.model == model]
                found.append({"model": model, "bin": share, "border": border, **self._means(rows)})
        return found

    def _means(self, rows: Sequence[Row]) -> dict[str, Any]:
        good = [row for row in rows if not row.failed]
        means: dict[str, Any] = {"pictures": len(good), "failed": len(rows) - len(good)}
        for name in self.columns:
            values = [value for row in good if (value := row.values.get(name)) is not None]
            means[name] = statistics.fmean(values) if values else None
        if self.features:
            means["fid"] = self._fid(good)
        times = [row.seconds for row in good if row.seconds is not None]
        means["seconds"] = statistics.median(times) if times else None
        return means

    def _fid(self, rows: Sequence[Row]) -> float | None:
        if len(rows) < 2:
            return None
        truth, filled = self.features[None], self.features[rows[0].model]
        pair = [torch.stack([of[row.index] for row in rows]) for of in (truth, filled)]
        return frechet_distance(*pair)
