"""ID-MRF loss against the public PyTorch layer, forward and backward."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import inpaint_ops
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target, Work


def _case(size: int, channels: int = 256, mix: float = 0.5, **rest: Any) -> Case:
    sizes = {"map": size, "channels": channels, "mix": mix}
    return Case("id_mrf_loss", f"c{channels}-{size}x{size}-mix{mix}", sizes, **rest)


def _curve(size: int, **rest: Any) -> Case:
    return _case(size, curve="forward and backward, C = 256", x=size, **rest)


CASES = (
    _curve(32, quick=True),
    _curve(64, target=Target(must=1.5, aim=3), quick=True),
    _curve(16),
    _curve(48),
    _case(32, 512),
    _case(64, mix=0.0),
    _case(64, mix=0.9),
)


def public_loss(generated: Tensor, target: Tensor) -> Tensor:
    """Return the loss by the public formula.

    Source of the steps: shepnerd/inpainting_gmcnn, commit 08eb38fb, pytorch/model/loss.py.
    """
    mean = target.mean(1, keepdim=True)
    g, t = generated - mean, target - mean
    g = g / g.norm(p=2, dim=1, keepdim=True)
    t = t / t.norm(p=2, dim=1, keepdim=True)
    cosines = []
    for i in range(g.shape[0]):
        kernels = t[i : i + 1].permute(2, 3, 0, 1).reshape(-1, g.shape[1], 1, 1)
        cosines.append(F.conv2d(g[i : i + 1], kernels))
    distance = -(torch.cat(cosines) - 1) / 2
    relative = distance / (distance.min(1, keepdim=True)[0] + 1e-5)
    similar = torch.exp((1 - relative) / 0.5)
    similar = similar / similar.sum(1, keepdim=True)
    best = similar.flatten(2).max(2)[0]
    return -torch.log(best.mean(1)).sum()


def setup(case: Case) -> Problem:
    """Return the problem for features after a ReLU, the generated ones mixed with the target's."""
    size, channels, mix = case.sizes["map"], case.sizes["channels"], case.sizes["mix"]
    generator = torch.Generator().manual_seed(size + channels)
    target = torch.randn(1, channels, size, size, generator=generator).relu_()
    other = torch.randn(1, channels, size, size, generator=generator).relu_()
    generated = (mix * target + (1 - mix) * other).requires_grad_()
    pairs = float(size) ** 4

    @cache
    def expected() -> tuple[Tensor, Tensor]:
        leaf = generated.detach().double().requires_grad_()
        loss = public_loss(leaf, target.double())
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    def check(outcome: Any) -> str | None:
        loss, (grad,) = outcome
        wanted, wanted_grad = expected()
        if not abs(loss.item() - wanted.item()) <= 1e-4 * abs(wanted.item()) + 1e-6:
            return f"loss is {loss.item():.7g}, expected {wanted.item():.7g}"
        error = (grad.double() - wanted_grad).abs().max().item()
        allowed = 1e-3 * wanted_grad.abs().max().item()
        return (
            None if error <= allowed else f"gradient is off by {error:.2g}, allowed {allowed:.2g}"
        )

    return Problem(
        inputs=(generated, target),
        implementations={"ours": inpaint_ops.id_mrf_loss, "eager": public_loss},
        check=check,
        # One product forward; the gradients touch only the chosen patches.
        work=Work(2 * channels * pairs, float(generated.numel() * 4 * 3)),
        gradient=torch.ones(()),
    )
