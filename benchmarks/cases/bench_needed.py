"""Pictures completed by what the hole needs of each layer, and by all pixels of every layer.

"dense" computes everything, by the same kernels; "eager" is the public formula, see `bench_models`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from inpaint_ops.benchmarks.cases.bench_models import public_formulas
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target
from inpaint_ops.masks import free_form_hole
from inpaint_ops.models import create_model

_SIDE = 512
_PERCENTS = (1, 5, 10, 25)
_METHODS = ("deepfill_v2", "deepfill_v1", "partial_conv_unet", "glcic", "gmcnn")


def _case(method: str, kind: str, percent: int) -> Case:
    return Case(
        "needed",
        f"{method}-{kind}-{percent}",
        {"model": method, "side": _SIDE, "hole": kind, "percent": percent},
        # Never slower than everything, but for the 3 % that the decision may cost.
        target=Target(must=0.97, aim=2.0, against="dense"),
        curve=f"{method}-{kind}" if method == "deepfill_v2" else "",
        x=percent,
        quick=(method, kind, percent) == ("partial_conv_unet", "box", 5),
        compile=False,
        time_share=0.5,
    )


CASES = (
    *(_case("deepfill_v2", kind, p) for kind in ("box", "free-form") for p in _PERCENTS),
    *(_case(m, kind, p) for m in _METHODS[1:] for kind, p in (("box", 5), ("free-form", 10))),
)


def hole_of(kind: str, percent: int, side: int) -> Tensor:
    """Return a hole of so many percent, (1, 1, side, side): a square or brush strokes."""
    if kind == "free-form":
        share = percent / 100
        return free_form_hole(side, side, seed=percent, ratio=(0.98 * share, 1.02 * share))
    hole = torch.zeros(1, 1, side, side)
    edge = round(side * (percent / 100) ** 0.5)
    first = (side - edge) // 2
    hole[..., first : first + edge, first : first + edge] = 1
    return hole


def setup(case: Case) -> Problem:
    """Return the problem: noise on a gradient."""
    side = case.sizes["side"]
    torch.manual_seed(0)
    model = create_model(case.sizes["model"]).eval()
    line = torch.linspace(0, 1, side)
    image = (line[:, None] + line[None, :]) / 2 * torch.ones(1, 3, 1, 1)
    image = (image * 0.8 + 0.2 * torch.rand(1, 3, side, side)).clamp(0, 1)
    hole = hole_of(case.sizes["hole"], case.sizes["percent"], side)

    def eager(image: Tensor, hole: Tensor) -> Tensor:
        with public_formulas():
            return model.complete(image, hole)

    @torch.no_grad()
    def dense(image: Tensor, hole: Tensor) -> Tensor:
        return model.completed(image, hole > 0)

    expected = dense(image, hole)

    def check(outcome: Tensor) -> str | None:
        if not torch.equal(torch.where(hole > 0, image, outcome), image):
            return "known pixels changed"
        off = (outcome - expected).abs().mean().item()
        return None if off <= 1e-3 else f"picture is off by {off:.2g} on average"

    return Problem(
        inputs=(image, hole),
        implementations={"ours": model.complete, "dense": dense, "eager": eager},
        check=check,
    )
