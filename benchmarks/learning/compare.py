"""A learned network beside fillers without training, on pictures that it has not seen.

``python -m inpaint_ops.benchmarks.learning.compare photos/held-out --model NAME --weights FILE``
measures the PSNR of missing pixels for boxes and two kinds of strokes, and draws contact sheets.
With `--blind` each row has the results in an order of its own, and `key.json` has the orders;
`--run` draws the curve of a training.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from inpaint_ops.benchmarks.learning.sheets import contact_sheet, curves, marked
from inpaint_ops.data import DrawnHoles, Pictures, Samples, Whole, find_pictures
from inpaint_ops.evaluation import baseline, evaluate
from inpaint_ops.models import InpaintingModel, create_model

BASELINES = ("telea", "navier-stokes", "biharmonic")
KINDS = ("box", "free-form", "irregular")
RATIO = (0.01, 0.15)
LEARNED = "learned"


def fillers(model: InpaintingModel) -> dict[str, Any]:
    """Return functions that fill, by the names that tables have."""

    def fill(image: Tensor, hole: Tensor, *, seed: int = 0) -> Tensor:
        return model.complete(image, hole, seed=seed)

    return {**{name: baseline(name) for name in BASELINES}, LEARNED: fill}


def samples(pictures: Pictures, kind: str) -> Samples:
    """Return the pictures with holes of a kind, the same each time."""
    return Samples(pictures, Whole(), DrawnHoles(kind, RATIO), seed=0)


def measure(
    pictures: Pictures, models: Mapping[str, Any], count: int | None
) -> dict[str, dict[str, float]]:
    """Return means by the kind of hole, and of all, and by model: dB of the missing pixels.

    "better" is the share of pictures on which the learned one is better than each other.
    """
    values: dict[str, dict[str, list[float]]] = {}
    for kind in KINDS:
        results = evaluate(samples(pictures, kind), models, count=count, shown=0)
        found = values[kind] = {name: [] for name in models}
        for row in results.rows:
            value = row.values["psnr_hole"]
            assert value is not None
            found[row.model].append(value)
    values["all"] = {name: [x for kind in KINDS for x in values[kind][name]] for name in models}
    table = {
        kind: {name: float(np.mean(x)) for name, x in found.items()}
        for kind, found in values.items()
    }
    ours = np.array(values["all"][LEARNED])
    table["better"] = {
        name: float((ours > np.array(x)).mean()) for name, x in values["all"].items()
    }
    return table


def sheet(
    pictures: Pictures, models: Mapping[str, Any], numbers: Sequence[int], out: Path, *, blind: bool
) -> None:
    """Write a contact sheet of pictures by their numbers; kinds of holes take turns."""
    rng = np.random.default_rng(0)
    names, rows, key = list(models), [], []
    for place, number in enumerate(numbers):
        sample = samples(pictures, KINDS[place % len(KINDS)])[0, number]
        image, hole = sample.image, sample.hole
        order = [names[i] for i in (rng.permutation(len(names)) if blind else range(len(names)))]
        made = [models[n](image[None].masked_fill(hole, 0), hole[None])[0] for n in order]
        key.append({"picture": sample.name, "order": order})
        text = str(place) if blind else Path(sample.name).stem
        truth = [] if blind else [image]
        rows.append((text, [marked(image, hole), *made, *truth]))
    heads = ["hole", *("abcdefgh"[: len(names)] if blind else (*names, "photograph"))]
    name = "blind" if blind else "beside"
    contact_sheet(rows, heads, 160).save(out / f"{name}.jpg", quality=80)
    if blind:
        (out / "key.json").write_text(json.dumps(key, indent=1))


def curve(run: Path, loss: str, out: Path) -> None:
    """Draw a loss of a training's folder, means of 100 steps, into `curve.svg`."""
    lines = (run / "losses.jsonl").read_text().splitlines()
    values = [json.loads(line)["losses"][loss] for line in lines]
    means = [float(np.mean(values[i : i + 100])) for i in range(0, len(values) - 99, 100)]
    curves({loss: means}, out / "curve.svg", ylabel=f"{loss}, mean of 100 steps", steps=100)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m inpaint_ops.benchmarks.learning.compare")
    parser.add_argument("pictures", type=Path, help="folder of squares, held out")
    parser.add_argument("--model", required=True, help="name of the method")
    parser.add_argument("--weights", type=Path, required=True, help="file")
    parser.add_argument("--count", type=int, help="pictures to measure; all without it")
    parser.add_argument("--show", type=int, nargs="*", default=[], help="numbers of pictures")
    parser.add_argument("--blind", action="store_true", help="hide which result is whose")
    parser.add_argument("--run", type=Path, help="folder of the training, for its curve")
    parser.add_argument("--loss", default="hole", help="name of the curve's loss")
    parser.add_argument("--out", type=Path, default=Path("compared"), help="folder to write")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    if given.run is not None:
        curve(given.run, given.loss, given.out)
    pictures = find_pictures(given.pictures)
    models = fillers(create_model(given.model, weights=given.weights).eval())
    if given.show:
        sheet(pictures, models, given.show, given.out, blind=given.blind)
    if not given.blind:
        table = measure(pictures, models, given.count)
        (given.out / "psnr.json").write_text(json.dumps(table, indent=1))
        for kind, row in table.items():
            print(f"{kind}: " + ", ".join(f"{name} {value:.2f}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
