"""ID-MRF loss as the public code writes it, with the whole matrix of similarities."""

from typing import NamedTuple

import torch
from torch import Tensor


class IdMrfOptions(NamedTuple):
    """Options of the loss between unit vectors, as in `inpaint_ops.id_mrf_loss`."""

    bandwidth: float
    eps: float
    exclude_self: bool


def unit_vectors(generated: Tensor, target: Tensor, center: str) -> tuple[Tensor, Tensor]:
    """Subtract the target's mean from both maps and scale each position's vector to length one.

    Args:
        generated: (N, C, H, W).
        target: (N, C, H, W).
        center: "channel": the mean over channels, one for each position; "spatial": over samples
            and positions, one for each channel.

    Returns:
        Both maps in their shapes; a vector that is zero stays zero.
    """
    mean = target.mean(1, keepdim=True) if center == "channel" else target.mean((0, 2, 3), True)
    return _unit(generated - mean), _unit(target - mean)


def _unit(x: Tensor) -> Tensor:
    square = x.square().sum(1, keepdim=True)
    # The public code divides 0 by 0 here; the root of 0 has no derivative either.
    none = square == 0
    return torch.where(none, 0.0, x / torch.where(none, 1.0, square).sqrt())


def drawn(
    generated: Tensor, target: Tensor, max_patches: int | None, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Draw `max_patches` positions of larger maps, the same in both maps and all samples.

    Returns:
        Both, (N, C, max_patches, 1) if they have more positions, else as they are.
    """
    positions = generated.shape[2] * generated.shape[3]
    if max_patches is None or positions <= max_patches:
        return generated, target
    order = torch.randperm(positions, generator=generator)[:max_patches].to(generated.device)
    return generated.flatten(2)[:, :, order, None], target.flatten(2)[:, :, order, None]


def _least(distance: Tensor, exclude_self: bool) -> tuple[Tensor, Tensor]:
    """Return the least distance, which the distances of targets are relative to, and its target.

    (N, 1, Q) each. With `exclude_self` (N, P, Q): the distance of the nearest target is relative to
    that of the next one.
    """
    least, nearest = distance.min(1, keepdim=True)
    if not exclude_self or distance.shape[1] == 1:
        return least, nearest
    first = torch.zeros_like(distance, dtype=torch.bool).scatter_(1, nearest, True)
    other, second = distance.masked_fill(first, float("inf")).min(1, keepdim=True)
    return torch.where(first, other, least), torch.where(first, second, nearest)


def similarity(generated: Tensor, target: Tensor, options: IdMrfOptions) -> Tensor:
    """Return relative similarities (N, P of target, Q of generated) of unit vectors (N, C, P)."""
    cosine = target.transpose(1, 2) @ generated
    distance = (1 - cosine) / 2
    relative = distance / (_least(distance, options.exclude_self)[0] + options.eps)
    return ((1 - relative) / options.bandwidth).softmax(1)


def id_mrf_loss(
    generated: Tensor,
    target: Tensor,
    *,
    bandwidth: float = 0.5,
    eps: float = 1e-5,
    center: str = "channel",
    reduction: str = "sum",
    exclude_self: bool = False,
    max_patches: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Plain version of `inpaint_ops.id_mrf_loss`: same arguments, results and gradients."""
    generated, target = drawn(generated, target, max_patches, generator)
    dtype = torch.float64 if generated.dtype == torch.float64 else torch.float32
    g, t = unit_vectors(generated.to(dtype), target.to(dtype), center)
    options = IdMrfOptions(bandwidth, eps, exclude_self)
    best = similarity(g.flatten(2), t.flatten(2), options).max(2).values
    loss = -best.mean(1).log()
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean()


def id_mrf_loss_backward(
    grad: Tensor,
    generated: Tensor,
    target: Tensor,
    choice: Tensor,
    options: IdMrfOptions,
) -> tuple[Tensor, Tensor]:
    """Gradients of each sample's loss in unit vectors (N, C, P), each step of it backward in turn.

    `choice` (N, P) is the generated position that serves each target position best.
    """
    cosine = target.transpose(1, 2) @ generated
    distance = (1 - cosine) / 2
    least, nearest = _least(distance, options.exclude_self)
    least = least + options.eps
    similar = ((1 - distance / least) / options.bandwidth).softmax(1)
    best = similar.gather(2, choice[..., None])  # (N, P, 1)
    grad_best = -grad[:, None, None] / best.sum(1, keepdim=True)
    grad_similar = torch.zeros_like(similar).scatter_(
        2, choice[..., None], grad_best.expand_as(best)
    )
    grad_relative = similar * (grad_similar - (similar * grad_similar).sum(1, keepdim=True))
    grad_relative = grad_relative / -options.bandwidth
    grad_distance = grad_relative / least
    grad_least = -grad_relative * distance / least.square()
    grad_distance = grad_distance.scatter_add(1, nearest.expand_as(distance), grad_least)
    grad_cosine = grad_distance / -2
    return target @ grad_cosine, generated @ grad_cosine.transpose(1, 2)
