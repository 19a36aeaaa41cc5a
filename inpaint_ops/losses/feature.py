"""Losses on the maps of a feature network or of a discriminator."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.losses import _checks

Maps: TypeAlias = "Mapping[str, Tensor] | Sequence[Tensor]"
_DISTANCES = ("l1", "l2")


def gram_matrix(features: Tensor) -> Tensor:
    """Gram matrix F F^T / (C H W) of each sample, F its (C, H W) matrix.

    Both factors are divided by sqrt(C H W), so that no partial sum exceeds the largest mean square
    of the features. Half precision is summed in float32, under autocast or not.

    Args:
        features: (N, C, H, W), floating, any layout.

    Returns:
        (N, C, C), float32 or float64.

    Raises:
        TypeError, ValueError: wrong type, dtype or shape.

    Source: Gatys et al., 2016; the divisor as in Liu et al., ECCV 2018 (arXiv 1804.07723),
    section 3.3, and knazeri/edge-connect: src/loss.py.
    """
    flat = _checks.image("gram_matrix", "features", features).flatten(2)
    with torch.autocast(flat.device.type, enabled=False):
        scaled = flat * (flat[0].numel() ** -0.5 if flat.numel() else 1.0)
        return scaled @ scaled.transpose(1, 2)


def perceptual_loss(
    made: Maps,
    wanted: Maps,
    *,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    distance: str = "l1",
) -> Tensor:
    """Sum over layers l of weight_l mean|made_l - wanted_l|; squares with ``distance="l2"``.

    Args:
        made: features of the prediction, by name or in order.
        wanted: features of the true image, the same layers and shapes; no gradient flows to them.
        weights: of the layers, by name or in order; of a mapping, only the layers named count. None
            takes all layers with weight 1.
        distance: "l1" (PConv, EdgeConnect), or "l2" (content loss of Shift-Net's public code).

    Returns:
        A scalar.

    Raises:
        KeyError: a layer is missing.
        TypeError, ValueError: wrong type, shape or number of layers.

    Source: Liu et al., ECCV 2018 (arXiv 1804.07723), section 3.3; knazeri/edge-connect:
    src/loss.py; Zhaoyi-Yan/Shift-Net_pytorch: models/shift_net/shiftnet_model.py.
    """
    return _over_layers("perceptual_loss", made, wanted, weights, distance, gram=False)


def style_loss(
    made: Maps,
    wanted: Maps,
    *,
    weights: Mapping[str, float] | Sequence[float] | None = None,
    distance: str = "l1",
) -> Tensor:
    """Sum over layers of weight_l mean|gram(made_l) - gram(wanted_l)|, the mean over C^2 entries.

    Arguments, errors and sources of `perceptual_loss`; the Gram matrix is `gram_matrix`, and "l2"
    the rule of Shift-Net's public code.
    """
    return _over_layers("style_loss", made, wanted, weights, distance, gram=True)


def feature_matching_loss(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Sum over a discriminator's maps of mean|fake_l - real_l|; no gradient flows to `real`.

    Args:
        fake: maps of the discriminator on the prediction; in EdgeConnect five, of which the last
            are the logits.
        real: the same of the true image.

    Returns:
        A scalar.

    Raises:
        TypeError, ValueError: wrong type, shape or number of maps.

    Source: Nazeri et al., 2019 (arXiv 1901.00212); knazeri/edge-connect: src/models.py.
    """
    return _over_layers("feature_matching_loss", fake, real, None, "l1", gram=False)


def _over_layers(
    loss: str, made: Maps, wanted: Maps, weights: object, distance: str, *, gram: bool
) -> Tensor:
    checks.check_choice(loss, "distance", distance, _DISTANCES)
    terms = []
    for ours, theirs, weight in _layers(loss, made, wanted, weights):
        a, b = _checks.pair(loss, ours, theirs.detach())
        if gram:
            a, b = gram_matrix(a), gram_matrix(b)
        error = F.l1_loss(a, b) if distance == "l1" else F.mse_loss(a, b)
        terms.append(weight * error)
    return torch.stack(terms).sum()


def _layers(
    loss: str, made: Maps, wanted: Maps, weights: object
) -> list[tuple[Tensor, Tensor, float]]:
    if isinstance(made, Mapping):
        if not isinstance(wanted, Mapping):
            raise TypeError(f"{loss}: wanted must be a mapping like made, got a sequence")
        factors = dict.fromkeys(made, 1.0) if weights is None else weights
        if not isinstance(factors, Mapping):
            raise TypeError(f"{loss}: weights must be a mapping, got {type(factors).__name__}")
        result = [(made[name], wanted[name], factor) for name, factor in factors.items()]
    else:
        if isinstance(wanted, Mapping):
            raise TypeError(f"{loss}: wanted must be a sequence like made, got a mapping")
        listed = [1.0] * len(made) if weights is None else weights
        if not isinstance(listed, Sequence):
            raise TypeError(f"{loss}: weights must be a sequence, got {type(listed).__name__}")
        if not len(made) == len(wanted) == len(listed):
            raise ValueError(
                f"{loss}: features and weights must be equally many, got {len(made)}, "
                f"{len(wanted)} and {len(listed)}"
            )
        result = list(zip(made, wanted, listed))
    if not result:
        raise ValueError(f"{loss}: there must be at least one layer, got none")
    return result
