"""Shift-connection layer and guidance loss of Shift-Net."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops import tensors
from inpaint_ops.ops.overrides import call, has_override, inside, tracing
from inpaint_ops.ops.shift_connection import concatenated_shift

_RULES = ("nearest", "convolution")


def reduce_hole(hole: Tensor, size: tuple[int, int], rule: str = "nearest") -> Tensor:
    """Reduce a hole of the image's size to the feature grid as Shift-Net does.

    Args:
        hole: (N, 1, H, W), 1 = missing; bool, uint8 or float.
        size: (h, w) of the feature grid.
        rule: "nearest": the pixel at the corner of each cell (PyTorch version); "convolution":
            three 4x4 stride-2 averages, hole where the result exceeds 5/16 (original Torch7
            version; H and W must be 8 h and 8 w).

    Returns:
        (N, 1, h, w) bool.

    Raises:
        TypeError, ValueError: wrong type, shape or rule.

    Source: Zhaoyi-Yan/Shift-Net_pytorch: util/util.py; Zhaoyi-Yan/Shift-Net: lib/myUtils.lua.
    """
    if has_override(hole):
        return call(reduce_hole, locals())
    checks.check_choice("reduce_hole", "rule", rule, _RULES)
    if not isinstance(hole, Tensor):
        raise TypeError(f"reduce_hole: hole must be a Tensor, got {type(hole).__name__}")
    shape = tuple(checks.sizes(hole))
    if hole.dim() != 4 or shape[1] != 1:
        raise ValueError(f"reduce_hole: hole must have shape (N, 1, H, W), got {shape}")
    cells = checks.numbers(size)
    if 0 in cells:
        return hole.new_zeros((hole.shape[0], 1, *size), dtype=torch.bool)
    if 0 in shape[2:]:
        raise ValueError(f"reduce_hole: hole must hold a pixel, got {shape}")
    values = hole.float()
    if rule == "nearest":
        return F.interpolate(values, size=size, mode="nearest") >= 1
    wanted = (8 * cells[0], 8 * cells[1])
    if shape[2:] != wanted:
        raise ValueError(
            f"reduce_hole: rule 'convolution' halves three times: hole must be "
            f"{wanted[0]} x {wanted[1]}, got {shape[2]} x {shape[3]}"
        )
    kernel = values.new_full((1, 1, 4, 4), 1 / 16)
    with torch.autocast(values.device.type, enabled=False):
        for _ in range(3):
            values = F.conv2d(values, kernel, stride=2, padding=1)
    return values > 5 / 16


class ShiftConnection(nn.Module):
    """Layer that appends the shifted encoder feature: [D | E] -> [D | E | N].

    Args:
        gradient_scale: factor on the gradient that N sends to E (`triple_weight`).
        hole_rule: rule that reduces a hole of the image's size, see `reduce_hole`.

    Source: InnerShiftTriple of Zhaoyi-Yan/Shift-Net_pytorch (no parameters, no state dict).
    """

    def __init__(self, gradient_scale: float = 1.0, hole_rule: str = "nearest") -> None:
        super().__init__()
        checks.check_finite("ShiftConnection", "gradient_scale", gradient_scale)
        checks.check_choice("ShiftConnection", "hole_rule", hole_rule, _RULES)
        self.gradient_scale = gradient_scale
        self.hole_rule = hole_rule

    def forward(self, x: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Append the shifted feature.

        Args:
            x: (N, 2 C, h, w), decoder feature first, encoder feature second, both after ReLU.
            hole: (N or 1, 1, h, w) on the feature grid, or image-sized (N or 1, 1, H, W).

        Returns:
            y: (N, 3 C, h, w), x followed by the shifted feature.
            index: (N, h, w) int64, flat source position, -1 where nothing was shifted.

        Raises:
            TypeError, ValueError: wrong type or shape; odd number of channels.
        """
        decoder, encoder = _halves("ShiftConnection", x)
        hole = _on_grid(hole, x, self.hole_rule)
        return concatenated_shift(decoder, encoder, hole, self.gradient_scale)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"gradient_scale={self.gradient_scale}, hole_rule={self.hole_rule!r}"


class GuidanceLoss(nn.Module):
    """Loss that draws the decoder feature in the hole to the encoder feature of the true image.

    L = strength * mean over all elements of (M D - M T)^2, with M = 1 in the hole and T the
    detached encoder feature of the true image. A training step first passes features of the true
    image to `set_target`. Then it adds `forward` of the masked image's features to the total loss.

    Args:
        strength: weight of the loss.
        hole_rule: rule that reduces a hole of the image's size, see `reduce_hole`.
        mask_target: False reproduces the public PyTorch code, which forgets M on the target. It
            also sends the derivative of the masked product to D without M. So D has the gradient
            2 strength (M D - T) / numel everywhere.

    Source: Yan et al., ECCV 2018 (arXiv 1801.09392), section 3.2, equation 5; InnerCos of
    Zhaoyi-Yan/Shift-Net_pytorch, which injects the gradient without adding the value to the loss.
    """

    def __init__(
        self, strength: float = 1.0, hole_rule: str = "nearest", mask_target: bool = True
    ) -> None:
        super().__init__()
        checks.check_finite("GuidanceLoss", "strength", strength)
        checks.check_choice("GuidanceLoss", "hole_rule", hole_rule, _RULES)
        self.strength = strength
        self.hole_rule = hole_rule
        self.mask_target = mask_target
        self._target: Tensor | None = None

    def set_target(self, x: Tensor) -> None:
        """Take the encoder half of the true image's features, (N, 2 C, h, w), as target T."""
        self._target = _halves("GuidanceLoss", x)[1].detach()

    def forward(self, x: Tensor, hole: Tensor) -> Tensor:
        """Return the loss of the decoder half of x.

        Args:
            x: (N, 2 C, h, w), decoder feature first, shape of the tensor given to `set_target`.
            hole: (N or 1, 1, h, w) on the feature grid, or image-sized.

        Returns:
            The loss, a scalar, float32 or float64.

        Raises:
            RuntimeError: `set_target` was not called.
            TypeError, ValueError: wrong type or shape.
        """
        decoder, _ = _halves("GuidanceLoss", x)
        if self._target is None:
            raise RuntimeError(
                "GuidanceLoss: call set_target with features of the true image first"
            )
        missing = _on_grid(hole, x, self.hole_rule)
        return self.strength * _distance(decoder, self._target, missing, self.mask_target)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"strength={self.strength}, hole_rule={self.hole_rule!r}, "
            f"mask_target={self.mask_target}"
        )


def _distance(decoder: Tensor, target: Tensor, missing: Tensor, mask_target: bool) -> Tensor:
    """Mean square of the difference in the hole."""
    if has_override(decoder, target, missing):
        return call(_distance, locals())
    if tuple(checks.sizes(target)) != tuple(checks.sizes(decoder)):
        raise ValueError(
            f"GuidanceLoss: x must match the target {tuple(target.shape)} in its decoder half, got "
            f"{tuple(decoder.shape)}"
        )
    missing = missing.bool()
    decoder, target = tensors.compute_dtype(decoder), tensors.compute_dtype(target)
    masked = torch.where(missing, decoder, decoder.new_zeros(()))
    if mask_target:
        target = torch.where(missing, target, target.new_zeros(()))
    else:
        # Value of the masked product, derivative of the identity.
        masked = decoder + (masked - decoder).detach()
    return (masked - target).square().mean()


def _halves(layer: str, x: Tensor) -> tuple[Tensor, Tensor]:
    if (has_override(x) or tracing()) and not inside():
        return call(_halves, locals())
    checks.check_image(layer, "x", x)
    if x.shape[1] % 2:
        raise ValueError(
            f"{layer}: x must have an even number of channels, decoder's before encoder's, got "
            f"{tuple(x.shape)}"
        )
    decoder, encoder = x.chunk(2, 1)
    return decoder, encoder


def _on_grid(hole: Tensor, x: Tensor, rule: str) -> Tensor:
    if has_override(hole, x):
        return call(_on_grid, locals())
    size = (x.shape[2], x.shape[3])
    if isinstance(hole, Tensor) and hole.dim() == 4:
        same = tuple(checks.sizes(hole)[2:]) == tuple(checks.sizes(x)[2:])
        return hole if same else reduce_hole(hole, size, rule)
    return reduce_hole(hole, size, rule)
