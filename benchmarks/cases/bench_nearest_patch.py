"""nearest_patch against unfold, matrix product and argmax."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import inpaint_ops
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target, Work, difference

_TARGET = Target(must=8, aim=20)
# A user splits the queries only where the scores would not fit otherwise.
_SCORE_BYTES = 4 * 1024**3


def _maps(size: int, channels: int, **options: Any) -> Case:
    sizes = {"map": size, "channels": channels, "patch": 3, "stride": 1, "metric": "cosine"}
    case_id = f"cosine-3x3-c{channels}-{size}x{size}"
    curve = f"3x3 cosine, C = {channels}"
    return Case("nearest_patch", case_id, sizes, curve=curve, x=size, **options)


def _image(size: int, **options: Any) -> Case:
    sizes = {"map": size, "channels": 3, "patch": 7, "stride": 1, "metric": "l2", "hole": 0.1}
    case_id = f"l2-7x7-rgb-{size}x{size}-hole10"
    curve = "7x7 l2, RGB, 10 % hole"
    return Case("nearest_patch", case_id, sizes, curve=curve, x=size, **options)


CASES = (
    _maps(64, 256, target=_TARGET, quick=True),
    _image(256, target=_TARGET),
    # relu4_1 of VGG-19. 65, not 64: strides of 2 then end on the last patch, so that unfold and
    # nearest_patch take the same 32 x 32 patches.
    Case(
        "nearest_patch",
        "cosine-3x3-c512-65x65-stride2",
        {"map": 65, "channels": 512, "patch": 3, "stride": 2, "metric": "cosine"},
    ),
    _maps(32, 64, quick=True),
    _maps(48, 64),
    _maps(64, 64),
    _maps(96, 64),
    _maps(32, 256),
    _maps(48, 256),
    _maps(96, 256),
    _image(64, quick=True),
    _image(96),
    _image(128),
    _image(192),
)


def unfold_matmul_argmax(
    query: Tensor,
    key: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    stride: int,
    metric: str,
) -> tuple[Tensor, Tensor]:
    """Return index and score of one sample by the public formula."""
    queries = F.unfold(query, patch_size, stride=stride)[0].t()
    keys = F.unfold(key, patch_size, stride=stride)[0]
    usable, wanted = None, None
    if valid is not None:
        usable = F.unfold(valid.to(key.dtype), patch_size, stride=stride)[0].amin(0).nonzero()[:, 0]
        keys = keys[:, usable]
    if where is not None:
        wanted = where.flatten().nonzero()[:, 0]
        queries = queries[wanted]
    half_squares = key.new_zeros(())
    if metric == "cosine":
        queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=0)
    else:
        half_squares = keys.square().sum(0) / 2

    rows = max(1, _SCORE_BYTES // (keys.shape[1] * key.element_size()))
    parts = []
    for part in queries.split(rows):
        scores = part @ keys
        parts.append((scores - half_squares if metric == "l2" else scores).max(1))
    score = torch.cat([part.values for part in parts])
    index = torch.cat([part.indices for part in parts])

    if usable is not None:
        index = usable[index]
    grid = [(n - patch_size) // stride + 1 for n in query.shape[2:]]
    if wanted is not None:
        all_index = index.new_full((grid[0] * grid[1],), -1)
        all_score = score.new_full((grid[0] * grid[1],), float("-inf"))
        all_index[wanted], all_score[wanted] = index, score
        index, score = all_index, all_score
    return index.view(1, *grid), score.view(1, *grid)


def _ours(
    query: Tensor,
    key: Tensor,
    valid: Tensor | None,
    where: Tensor | None,
    patch_size: int,
    stride: int,
    metric: str,
) -> tuple[Tensor, Tensor]:
    return inpaint_ops.nearest_patch(
        query,
        key,
        valid=valid,
        where=where,
        patch_size=patch_size,
        stride=stride,
        key_stride=stride,
        metric=metric,
    )


def setup(case: Case) -> Problem:
    """Return the problem of feature maps after a ReLU, or of a picture with a centred hole."""
    size, channels, patch = case.sizes["map"], case.sizes["channels"], case.sizes["patch"]
    generator = torch.Generator().manual_seed(size + channels)
    valid = where = None
    if "hole" in case.sizes:
        query = key = _picture(size, generator)
        hole = _centred_hole(size, case.sizes["hole"])
        where = F.max_pool2d(hole, patch, stride=1) > 0
        valid = hole == 0
    else:
        query = torch.randn(1, channels, size, size, generator=generator).relu_()
        key = torch.randn(1, channels, size, size, generator=generator).relu_()
    stride, metric = case.sizes["stride"], case.sizes["metric"]
    inputs = (query, key, valid, where, patch, stride, metric)
    return Problem(
        inputs=inputs,
        implementations={"ours": _ours, "eager": unfold_matmul_argmax},
        check=_judge(inputs),
        work=_work(inputs),
    )


def _picture(size: int, generator: torch.Generator) -> Tensor:
    """Return a picture in [0, 1] with structure at every scale, like a photo."""
    total = torch.zeros(1, 3, size, size)
    for cells in (4, 16, 64):
        noise = torch.randn(1, 3, cells, cells, generator=generator)
        total += F.interpolate(noise, (size, size), mode="bilinear") / cells**0.5
    return (total - total.min()) / (total.max() - total.min())


def _centred_hole(size: int, fraction: float) -> Tensor:
    side = round(fraction**0.5 * size)
    first = (size - side) // 2
    hole = torch.zeros(1, 1, size, size)
    hole[:, :, first : first + side, first : first + side] = 1
    return hole


def _counts(inputs: tuple[Any, ...]) -> tuple[int, int, int, int]:
    """Count query patches, key patches, and the pixels that each of them cover."""
    query, _, valid, where, patch, stride, _ = inputs
    per_side = (query.shape[2] - patch) // stride + 1
    grid = torch.ones(1, 1, per_side, per_side)
    wanted = grid if where is None else where.float()
    usable = grid if valid is None else -F.max_pool2d(-valid.float(), patch, stride=stride)
    numbers = [int(wanted.sum()), int(usable.sum())]
    kernel = torch.ones(1, 1, patch, patch)
    for chosen in (wanted, usable):
        touched = F.conv_transpose2d(chosen, kernel, stride=stride)
        numbers.append(int((touched > 0).sum()))
    return numbers[0], numbers[1], numbers[2], numbers[3]


def _work(inputs: tuple[Any, ...]) -> Work:
    """Count the work of the cheapest exact way known.

    Patches share the products of their pixels: the product of two patches is a sum along the
    diagonal of the pixel products. Each pair of patches adds its sum (separable: 2 k - 2 additions,
    or four with running sums), a normalisation and a comparison.
    """
    query, key, _, _, patch, stride, _ = inputs
    queries, keys, query_pixels, key_pixels = _counts(inputs)
    # With strides only pixels whose distance is a multiple of the stride ever meet.
    products = min(patch**2 * queries * keys, query_pixels * key_pixels / stride**2)
    sums = min(2 * (patch - 1), 4) if stride == 1 else patch**2 - 1
    slots = query.shape[1] * products + (sums + 2) * queries * keys
    results = queries * (8 + 4)
    return Work(2.0 * slots, float(query.nbytes + key.nbytes + results))


def _judge(inputs: tuple[Any, ...]) -> Any:
    query, key, valid, where, patch, stride, metric = inputs

    @cache
    def expected() -> tuple[Tensor, Tensor]:
        return unfold_matmul_argmax(
            query.double(), key.double(), valid, where, patch, stride, metric
        )

    def check(outcome: tuple[Tensor, Tensor]) -> str | None:
        index, score = outcome
        best_index, best = expected()
        if index.shape != best_index.shape:
            return f"index has shape {tuple(index.shape)}, expected {tuple(best_index.shape)}"
        wanted = best_index >= 0
        if not torch.equal(index >= 0, wanted):
            return "index is set at the wrong places"
        terms = query.shape[1] * patch**2
        wrong = difference("score", score[wanted], best[wanted], terms)
        if wrong is not None:
            return wrong
        # Where two keys are equal but for rounding, either may be taken.
        doubtful = (wanted & (index != best_index)).flatten().nonzero()[:, 0]
        if len(doubtful) > max(2, 0.01 * int(wanted.sum())):
            return f"{len(doubtful)} of {int(wanted.sum())} indices differ"
        taken = _scores_of(inputs, doubtful, index.flatten()[doubtful])
        return difference("score of the taken key", taken, best.flatten()[doubtful], terms)

    return check


def _scores_of(inputs: tuple[Any, ...], query_at: Tensor, key_at: Tensor) -> Tensor:
    query, key, _, _, patch, stride, metric = inputs
    q = F.unfold(query, patch, stride=stride)[0].t()[query_at].double()
    k = F.unfold(key, patch, stride=stride)[0].t()[key_at].double()
    if metric == "cosine":
        return (F.normalize(q, dim=1) * F.normalize(k, dim=1)).sum(1)
    return (q * k).sum(1) - k.square().sum(1) / 2
