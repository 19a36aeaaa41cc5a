"""ID-MRF loss over the layers of a feature network."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.id_mrf_loss import id_mrf_loss
from inpaint_ops.ops.overrides import has_override


class IDMRFLoss(nn.Module):
    """Sum over feature layers l of weight_l * id_mrf_loss(features_l(x), features_l(target)).

    Args:
        features: maps (N, 3, H, W) images to a mapping from layer names to (N, C, h, w) features.
            This loss does not train its parameters: freeze them. GMCNN takes a VGG-19 whose input
            is images in [0, 1] less the ImageNet mean, not divided by its deviation.
        weights: layer name to weight. The sum in GMCNN counts its content layer twice: 1 for
            "relu3_2", 2 for "relu4_2", which in that code are torchvision's features[11] and
            features[20], after the first convolution of their blocks.
        bandwidth, eps, center, reduction, exclude_self, max_patches: see `inpaint_ops.id_mrf_loss`.

    Source: Wang et al., NeurIPS 2018 (arXiv 1810.08771), section 3.2;
    shepnerd/inpainting_gmcnn: pytorch/model/loss.py; max_patches as in its tensorflow/net/ops.py.
    """

    def __init__(
        self,
        features: Callable[[Tensor], Mapping[str, Tensor]],
        weights: Mapping[str, float] | None = None,
        *,
        bandwidth: float = 0.5,
        eps: float = 1e-5,
        center: str = "channel",
        reduction: str = "sum",
        exclude_self: bool = False,
        max_patches: int | None = None,
    ) -> None:
        super().__init__()
        if max_patches is not None:
            checks.check_int("IDMRFLoss", "max_patches", max_patches)
        checks.check_choice("IDMRFLoss", "reduction", reduction, ("sum", "mean"))
        self.features = features
        self.weights = {"relu3_2": 1.0, "relu4_2": 2.0} if weights is None else dict(weights)
        for name, weight in self.weights.items():
            checks.check_finite("IDMRFLoss", f"weights[{name!r}]", weight)
        self.bandwidth = bandwidth
        self.eps = eps
        self.center = center
        self.reduction = reduction
        self.exclude_self = exclude_self
        self.max_patches = max_patches

    def forward(
        self, generated: Tensor, target: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return the loss of `generated` images against `target` images.

        Args:
            generated: (N, 3, H, W), as the feature network takes them.
            target: (N, 3, H, W); no gradient flows to it.
            generator: draws the positions, with `max_patches`.

        Returns:
            The loss, a scalar, float32 or float64.

        Raises:
            KeyError: the feature network lacks a layer.
            TypeError, ValueError: wrong type or shape.
        """
        for label, images in (("generated", generated), ("target", target)):
            if not has_override(images) and not isinstance(images, Tensor):
                raise TypeError(f"IDMRFLoss: {label} must be a Tensor, got {type(images).__name__}")
        with torch.no_grad():
            wanted = self.features(target)
        made = self.features(generated)
        total = generated.new_zeros((), dtype=torch.float32)
        for name, weight in self.weights.items():
            total = total + weight * id_mrf_loss(
                made[name],
                wanted[name],
                bandwidth=self.bandwidth,
                eps=self.eps,
                center=self.center,
                reduction=self.reduction,
                exclude_self=self.exclude_self,
                max_patches=self.max_patches,
                generator=generator,
            )
        return total

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"weights={self.weights}, bandwidth={self.bandwidth}, eps={self.eps}, "
            f"center={self.center!r}, reduction={self.reduction!r}, "
            f"exclude_self={self.exclude_self}, max_patches={self.max_patches}"
        )
