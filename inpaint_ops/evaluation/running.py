"""The loop of an evaluation: every picture through every model."""

from __future__ import annotations

import hashlib
import io
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Protocol

import torch
from torch import Tensor

import inpaint_ops
from inpaint_ops import checks
from inpaint_ops.data import HoleFiles, Pictures, Sample, Samples
from inpaint_ops.evaluation.groups import bin_of, border_of
from inpaint_ops.evaluation.measures import compare, torchmetrics
from inpaint_ops.evaluation.perceptual import FrechetFeatures, PerceptualDistance
from inpaint_ops.evaluation.results import Results, Row, Shown
from inpaint_ops.program import reason
from inpaint_ops.progress import Part, Progress, check_progress, following

ON_ERROR = ("stop", "skip")
# Nothing in photos has it.
_MAGENTA = (1.0, 0.0, 1.0)
_JPEG_QUALITY = 90


class Fill(Protocol):
    """Function of a picture, (1, 3, H, W) in [0, 1], and a hole, (1, 1, H, W), that fills it."""

    def __call__(self, image: Tensor, hole: Tensor, *, seed: int = 0) -> Tensor:
        """Return a picture like image; only its missing pixels are read."""


class ModelFailedError(RuntimeError):
    """A model raised an error, or returned no picture; the text names it and the picture."""


def evaluate(
    samples: Samples,
    models: Mapping[str, Fill],
    *,
    fid_features: FrechetFeatures | None = None,
    lpips: PerceptualDistance | None = None,
    count: int | None = None,
    on_error: str = "stop",
    shown: int = 24,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = None,
) -> Results:
    """Fill every picture with every model, and measure the results.

    Pictures are rounded to 8 bits, and so are results; known pixels of a result are those of the
    picture, whatever the model returned. Missing pixels are 0 when a model sees them.

    Args:
        samples: pictures with their holes; sample (0, i) of each i is taken.
        models: by the names that the tables have.
        fid_features: network of FID; None leaves FID out.
        lpips: network of LPIPS; None leaves LPIPS out.
        count: pictures, from the first one on; None: all.
        on_error: "stop": a model that fails ends the evaluation, and so does a picture that cannot
            be read; "skip": both are counted.
        shown: pictures that the page shows, evenly spread over the list.
        facts: what the results' facts shall say besides.
        progress: called with the done fraction, which rises from 0 to 1; True: a bar on standard
            error, where that is a terminal or a notebook; None: nothing.

    Raises:
        ImportError: torchmetrics or Pillow is not installed; the extra is named.
        ModelFailedError: with "stop".
        TypeError, ValueError: a wrong argument; or, with "stop", a file that cannot be read.
    """
    checks.check_choice("evaluate", "on_error", on_error, ON_ERROR)
    checks.check_int("evaluate", "shown", shown, 0)
    check_progress("evaluate", progress)
    if not models:
        raise ValueError("evaluate: models must not be empty")
    if samples.on_error != "stop":
        # The next picture would take the place of one that cannot be read, and count twice.
        raise ValueError("evaluate: samples must have on_error='stop'; on_error here says to skip")
    if count is not None:
        checks.check_int("evaluate", "count", count, 1)
    total = len(samples) if count is None else min(count, len(samples))
    torchmetrics()
    results = Results(tuple(models), with_lpips=lpips is not None)
    pictures = {place * total // shown for place in range(shown)} if shown else set()
    digest = hashlib.sha256()
    one = _One(models, samples.seed, fid_features, lpips, on_error == "stop", results)
    with following(progress, "evaluate"):
        for index in range(total):
            try:
                sample = samples[0, index]
            except ValueError as exc:
                if on_error == "stop":
                    raise
                results.faults.append(str(exc))
                continue
            truth, hole = (sample.image[None] * 255).round() / 255, sample.hole[None]
            digest.update((truth * 255).round().to(torch.uint8).numpy().tobytes())
            digest.update(hole.numpy().tobytes())
            with Part(index / total, (index + 1) / total):
                one.measure(index, sample, truth, hole, index in pictures)
    if not results.rows:
        raise ValueError(f"evaluate: no picture could be read: {results.faults[0]}")
    results.facts = {**_facts(samples, total, digest.hexdigest()), **(facts or {})}
    return results


class _One:
    """What is done with one picture."""

    def __init__(
        self,
        models: Mapping[str, Fill],
        seed: int,
        fid_features: FrechetFeatures | None,
        lpips: PerceptualDistance | None,
        stops: bool,
        results: Results,
    ) -> None:
        self._models, self._seed, self._stops, self._results = models, seed, stops, results
        self._fid_features, self._lpips = fid_features, lpips
        if fid_features is not None:
            results.features = {None: {}, **{name: {} for name in models}}

    def measure(
        self, index: int, sample: Sample, truth: Tensor, hole: Tensor, is_shown: bool
    ) -> None:
        """Add the rows of a picture, and what the page shows of it."""
        results, filled = self._results, {}
        ratio = int(hole.sum()) / hole.numel()
        about = (bin_of(ratio), border_of(hole))
        size = (int(truth.shape[2]), int(truth.shape[3]))
        if self._fid_features is not None:
            results.features[None][index] = self._fid_features(truth)
        for number, (name, fill) in enumerate(self._models.items()):
            where = (index, sample.name, name, size, ratio, *about)
            started = time.perf_counter()
            try:
                with Part(number / len(self._models), (number + 1) / len(self._models)):
                    result = fill(truth.masked_fill(hole, 0), hole.clone(), seed=self._seed)
                seconds = time.perf_counter() - started
                _check(result, truth, hole)
            except Exception as exc:
                why = reason(exc)
                if self._stops:
                    raise ModelFailedError(f"{name} fails at {sample.name}: {why}") from exc
                results.rows.append(Row(*where, values={}, seconds=None, note=why, failed=True))
                continue
            saved = (result.detach().cpu().float().clamp(0, 1) * 255).round() / 255
            saved = torch.where(hole, saved, truth)
            values, note = compare(saved, truth, hole)
            if self._lpips is not None:
                values["lpips"] = self._lpips(saved, truth)
            if self._fid_features is not None:
                results.features[name][index] = self._fid_features(saved)
            results.rows.append(Row(*where, values=values, seconds=seconds, note=note))
            if is_shown:
                filled[name] = _jpeg(saved)
        if is_shown:
            magenta = torch.tensor(_MAGENTA).reshape(1, 3, 1, 1)
            damaged = _jpeg(torch.where(hole, magenta, truth))
            results.shown.append(Shown(index, damaged, _jpeg(truth), filled))


def _check(result: Any, truth: Tensor, hole: Tensor) -> None:
    if not isinstance(result, Tensor) or result.shape != truth.shape:
        got = tuple(result.shape) if isinstance(result, Tensor) else type(result).__name__
        raise ValueError(f"returned {got}, expected a tensor of shape {tuple(truth.shape)}")
    if not bool(result.cpu().masked_select(hole).isfinite().all()):
        raise ValueError("returned values that are not finite")


def _jpeg(image: Tensor) -> bytes:
    from PIL import Image

    pixels = (image[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def _facts(samples: Samples, count: int, digest: str) -> dict[str, Any]:
    files = samples.holes.files if isinstance(samples.holes, HoleFiles) else None
    lists = {"data": samples.pictures, "holes": files}
    return {
        "pictures": count,
        "seed": samples.seed,
        "framing": repr(samples.framing),
        "drawn_holes": repr(samples.holes) if files is None else None,
        **{
            kind: {"origin": one.origin, "count": len(one), "digest": one.digest}
            for kind, one in lists.items()
            if isinstance(one, Pictures)
        },
        # Of all pixels and holes: equal where two evaluations saw the same.
        "content_digest": digest,
        "versions": {
            "inpaint-ops": inpaint_ops.__version__,
            "torch": str(torch.__version__),
            "torchmetrics": version("torchmetrics"),
            "python": platform.python_version(),
        },
        "machine": {
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
        },
    }
