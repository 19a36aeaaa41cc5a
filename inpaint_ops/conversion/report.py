"""The report on a conversion: a row for each layer."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Row:
    """One layer or chain.

    Attributes:
        layer: name in the model.
        became: the chain that our operators run, or "left alone".
        difference: largest difference of results and gradients, relative to the largest value;
            None: not compared.
        speed_up: time before over time after; None: not measured.
        reason: why it was left alone, or why less was fused than could be.
    """

    layer: str
    became: str
    difference: float | None = None
    speed_up: float | None = None
    reason: str = ""

    @property
    def converted(self) -> bool:
        """Return whether our operators run it."""
        return self.became != LEFT


LEFT = "left alone"


@dataclass
class Report:
    """The outcome of `convert`; prints as a table.

    Attributes:
        rows: one for each layer or chain that could be meant.
        difference: of results and gradients of the whole model on the sample, as in `Row`.
        speed_up: of the whole model on the sample.
        reason: why the whole model was left alone.
    """

    rows: list[Row] = field(default_factory=list)
    difference: float | None = None
    speed_up: float | None = None
    reason: str = ""

    @property
    def converted(self) -> list[Row]:
        """Rows that our operators run."""
        return [row for row in self.rows if row.converted]

    def __str__(self) -> str:
        cells = [("layer", "became", "difference", "speed-up", "why not")]
        for row in self.rows:
            cells.append(
                (
                    row.layer or "(model)",
                    row.became,
                    _number(row.difference, ".1e"),
                    _number(row.speed_up, ".2f"),
                    row.reason,
                )
            )
        widths = [max(len(line[i]) for line in cells) for i in range(5)]
        lines = ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in cells]
        lines.append(f"{len(self.converted)} of {len(self.rows)} converted")
        if self.difference is not None:
            lines[-1] += f", difference {self.difference:.1e}"
        if self.speed_up is not None:
            lines[-1] += f", speed-up {self.speed_up:.2f}"
        return "\n".join([*lines, self.reason] if self.reason else lines)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
