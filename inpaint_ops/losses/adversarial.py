"""Adversarial losses on the logits of a discriminator, and the gradient penalty."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.losses import _checks
from inpaint_ops.ops import tensors

_KINDS = ("log", "saturating", "lsgan", "hinge", "wgan")
_RELATIVISTIC = ("relativistic", "relativistic_average")


def adversarial_term(
    logits: Tensor, real: bool, kind: str = "log", *, sigmoid: bool = False
) -> Tensor:
    """Term of a discriminator's loss for one batch, real or fake.

    The mean over all logits d of

    ============  ================  =================
    kind          real              fake
    ============  ================  =================
    log           -log s(d)         -log(1 - s(d))
    saturating    as log            as log
    lsgan         (d - 1)^2         d^2
    hinge         relu(1 - d)       relu(1 + d)
    wgan          -d                d
    ============  ================  =================

    with s the logistic function, evaluated so that no logit overflows.

    Args:
        logits: any shape, floating, before any sigmoid.
        real: True if the discriminator should call them real.
        kind: of the table.
        sigmoid: "lsgan" of s(d) instead of d, as in EdgeConnect's public code.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: wrong type or choice.

    Source: Goodfellow et al., 2014; Mao et al., 2017; Lim and Ye, 2017; Arjovsky et al., 2017;
    knazeri/edge-connect: src/loss.py.
    """
    name = "adversarial_term"
    checks.check_choice(name, "kind", kind, _KINDS)
    _checks.floating(name, "logits", logits)
    d = tensors.compute_dtype(logits)
    if kind in ("log", "saturating"):
        result = F.softplus(-d if real else d)
    elif kind == "lsgan":
        result = ((d.sigmoid() if sigmoid else d) - float(real)).square()
    elif kind == "hinge":
        result = F.relu(1 - d if real else 1 + d)
    else:
        result = -d if real else d
    return result.mean()


def discriminator_loss(
    real: Tensor, fake: Tensor, kind: str = "log", *, sigmoid: bool = False
) -> Tensor:
    """Loss of a discriminator: its term for real logits plus its term for fake ones.

    The sum is not halved; EdgeConnect, Shift-Net's PyTorch version and DeepFill v2 take half of it.
    Detach the fake images before the discriminator sees them.

    Args:
        real: logits of true images.
        fake: logits of predictions; the relativistic kinds pair them with `real`, of the same
            shape.
        kind: of `adversarial_term`; "relativistic": the mean of -log s(real - fake);
            "relativistic_average": -log s(real - mean fake) and -log(1 - s(fake - mean real)).
        sigmoid: see `adversarial_term`.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: wrong type, shape or choice.

    Source: as `adversarial_term`; Jolicoeur-Martineau, 2018 (arXiv 1807.00734).
    """
    checks.check_choice("discriminator_loss", "kind", kind, _KINDS + _RELATIVISTIC)
    if kind in _RELATIVISTIC:
        return _relativistic("discriminator_loss", real, fake, kind)
    term = adversarial_term(real, True, kind, sigmoid=sigmoid)
    return term + adversarial_term(fake, False, kind, sigmoid=sigmoid)


def generator_loss(
    fake: Tensor, kind: str = "log", *, real: Tensor | None = None, sigmoid: bool = False
) -> Tensor:
    """Loss of a generator: small where the discriminator calls its images real.

    The mean over all logits d of -log s(d) for "log" (the non-saturating form), log(1 - s(d)) for
    "saturating" (the original form), (d - 1)^2 for "lsgan" and -d for "hinge" and "wgan". The
    relativistic kinds are those of `discriminator_loss` with real and fake exchanged.

    Args:
        fake: logits of predictions.
        kind: of `discriminator_loss`.
        real: logits of true images, for the relativistic kinds alone; no gradient flows to them.
        sigmoid: see `adversarial_term`.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: wrong type, shape or choice.

    Source: as `discriminator_loss`.
    """
    name = "generator_loss"
    checks.check_choice(name, "kind", kind, _KINDS + _RELATIVISTIC)
    if kind in _RELATIVISTIC:
        if real is None:
            raise ValueError(f"{name}: real must be given for kind {kind!r}, got None")
        return _relativistic(name, fake, real.detach(), kind)
    if kind == "saturating":
        return -adversarial_term(fake, False, kind)
    return adversarial_term(fake, True, "wgan" if kind == "hinge" else kind, sigmoid=sigmoid)


def _relativistic(loss: str, higher: Tensor, lower: Tensor, kind: str) -> Tensor:
    """Loss that is small where the first logits are greater than the second."""
    a, b = _checks.pair(loss, higher, lower)
    if kind == "relativistic":
        return adversarial_term(a - b, True)
    return adversarial_term(a - b.mean(), True) + adversarial_term(b - a.mean(), False)


def gradient_penalty(
    critic: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
    hole: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean over samples of (|sqrt(hole) gradient of the critic|_2 - 1)^2 between real and fake.

    The gradient is taken at real + a (fake - real), with a uniform in [0, 1) for each sample. The
    norm is taken over the pixels and channels of the hole. The critic runs without autocast, whose
    small types lose the gradient's gradient.

    Args:
        critic: maps (N, C, H, W) images to logits. Its gradient is differentiated in turn.
        real: (N, C, H, W), floating, the dtype in which the critic takes images.
        fake: shape of real. No gradient flows to either.
        hole: expands to that shape, 1 = missing, or a weight of the squared gradient. None takes
            the whole image.
        generator: draws a.

    Returns:
        A scalar; its gradient reaches the critic's parameters.

    Raises:
        TypeError, ValueError: wrong type, dtype or shape.

    Source: Gulrajani et al., 2017; restricted to the hole as in JiahuiYu/generative_inpainting
    (v1.0.0) and Yu et al., CVPR 2018 (arXiv 1801.07892).
    """
    dtype = real.dtype if isinstance(real, Tensor) else None
    real, fake = (x.detach() for x in _checks.pair("gradient_penalty", real, fake))
    shape = (real.shape[0],) + (1,) * (real.dim() - 1)
    device = real.device if generator is None else generator.device
    a = torch.rand(shape, generator=generator, device=device, dtype=torch.float32).to(real)
    between = torch.lerp(real, fake, a).to(dtype).requires_grad_()
    with torch.enable_grad(), torch.autocast(real.device.type, enabled=False):
        logits = critic(between)
        (slope,) = torch.autograd.grad(logits.sum(), between, create_graph=True)
        slope = tensors.compute_dtype(slope)
        if hole is not None:
            weight = _checks.spread("gradient_penalty", "hole", hole, slope)
            slope = _checks.selected(slope, weight) * weight.sqrt()
        norm: Tensor = torch.linalg.vector_norm(slope.flatten(1), dim=1)
        return (norm - 1).square().mean()
