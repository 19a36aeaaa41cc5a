"""Networks of Shift-Net: a U-Net with a shift connection, and a discriminator of patches."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import (
    FusedConv2d,
    FusedConvTranspose2d,
    InstanceNorm2d,
    ShiftConnection,
)
from inpaint_ops.models.blocks.conv_block import activate, initialise
from inpaint_ops.models.blocks.pictures import arranged, known_to_have, stacked
from inpaint_ops.models.blocks.spectral_norm import spectral
from inpaint_ops.models.shift_net.mirrored_shift import MirroredShift
from inpaint_ops.ops import instance_norm

DEPTH = 8
SHIFT = 3  # the level whose features are shifted: 1/8 of the picture
MINIMUM = 256  # eight halvings


def _norm(kind: str, channels: int, activation: str) -> nn.Module:
    if kind == "batch":
        return nn.BatchNorm2d(channels)
    return InstanceNorm2d(channels, affine=True, activation=activation)


def _normalised(norm: Any, y: Tensor, activation: str) -> Tensor:
    """Apply a normalisation of `_norm` and an activation, usually the one it was made for."""
    result: Tensor
    if not isinstance(norm, InstanceNorm2d):  # batch normalisation, of whatever class
        result = activate(norm(y), activation)
    elif activation == norm.activation:
        result = norm(y)
    else:
        result = instance_norm(y, norm.weight, norm.bias, eps=norm.eps, activation=activation)
    return result


class Down(nn.Module):
    """4x4 convolution of stride 2, normalisation ("instance", "batch", "none"), activation."""

    def __init__(
        self, inputs: int, outputs: int, norm: str, *, kernel: int = 4, last: bool = False
    ) -> None:
        super().__init__()
        # After the last comes the ReLU before the first transposed convolution.
        self.activation = "relu" if last else "leaky_relu"
        before = self.activation if norm == "none" else "identity"
        padding = kernel // 2 - 1
        self.conv = FusedConv2d(inputs, outputs, kernel, 2, padding, activation=before)
        self.norm = None if norm == "none" else _norm(norm, outputs, self.activation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H // 2, W // 2)."""
        y: Tensor = self.conv(x)
        return y if self.norm is None else _normalised(self.norm, y, self.activation)


class Up(nn.Module):
    """4x4 transposed convolution of stride 2, normalisation, ReLU; without normalisation tanh."""

    def __init__(self, inputs: int, outputs: int, norm: str) -> None:
        super().__init__()
        then = "tanh" if norm == "none" else "identity"
        self.conv = FusedConvTranspose2d(inputs, outputs, 4, 2, 1, activation=then)
        self.norm = None if norm == "none" else _norm(norm, outputs, "relu")

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, inputs, h, w) to (N, outputs, *size), resized (bilinear) unless that is 2 h, 2 w.

        Where sizes are traced it is resized anyhow, which changes nothing at 2 h, 2 w.
        """
        y: Tensor = self.conv(x)
        fits = known_to_have(y, size)
        if self.norm is None:
            return y if fits else _resized(y, size)
        if fits:
            return _normalised(self.norm, y, "relu")
        # Interpolated values have other signs than those they lie between: the ReLU comes last.
        return _resized(_normalised(self.norm, y, "identity"), size).relu_()


def _resized(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def _size(x: Tensor) -> tuple[int, int]:
    return x.shape[2], x.shape[3]


class Generator(nn.Module):
    """Eight halvings, eight doublings, skips, and the shift connection at 1/8 of the size.

    Args:
        width: channels of the first layer.
        inputs: 4, picture and known pixels, or 3.
        face: kernel 6 in the third layer, as in the published model for faces.
        mirror: also shift features of the mirrored picture: "port" or "exact", see `MirroredShift`;
            None: do not.
        norm: "instance" or "batch".

    Source: Zhaoyi-Yan/Shift-Net_pytorch: models/modules/shift_unet.py (UnetGeneratorShiftTriple,
    FaceUnetGenerator).
    """

    def __init__(
        self,
        width: int,
        inputs: int,
        *,
        face: bool = False,
        mirror: str | None = None,
        norm: str = "instance",
    ) -> None:
        super().__init__()
        widths = [inputs, *(width * (1 << min(i, 3)) for i in range(DEPTH))]
        for i in range(1, DEPTH + 1):
            layer = Down(
                widths[i - 1],
                widths[i],
                "none" if i in (1, DEPTH) else norm,
                kernel=6 if face and i == SHIFT else 4,
                last=i == DEPTH,
            )
            self.add_module(f"down{i}", layer)
        for i in range(DEPTH, 0, -1):
            # Decoder and skip, and after the shift the shifted features.
            joined = 1 if i == DEPTH else 3 if i == SHIFT else 2
            outputs = widths[i - 1] if i > 1 else 3
            up = Up(joined * widths[i], outputs, norm if i > 1 else "none")
            self.add_module(f"up{i}", up)
        self.mirror = mirror
        self.shift = ShiftConnection() if mirror is None else MirroredShift(mirror)
        # The public start draws the scales of batch normalisations and leaves others at 1.
        initialise(self, 0.02, norms=norm == "batch")

    def _down_and_up(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return [decoder | encoder] after ReLU at 1/8 of the size, and the skips left."""
        if x.dim() != 4 or min(checks.sizes(x)[2:]) < MINIMUM:
            raise ValueError(
                "shift_net.generator: x must have shape (N, C, H, W) with sides of at least "
                f"{MINIMUM}, got {tuple(x.shape)}"
            )
        skips = []
        for i in range(1, DEPTH + 1):
            x = self.get_submodule(f"down{i}")(x)
            skips.append(x)
        x = skips.pop()
        for i in range(DEPTH, SHIFT, -1):
            x = self._joined(i, x, skips.pop())
        return x, skips

    def _joined(self, level: int, x: Tensor, skip: Tensor) -> Tensor:
        """Return [decoder | relu(skip)]; ReLU after the skip's leaky ReLU is ReLU alone."""
        decoder = self.get_submodule(f"up{level}")(x, _size(skip))
        return stacked(decoder, skip.relu())

    def forward(
        self, x: Tensor, hole: Tensor, truth: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Fill a picture.

        The port returns a picture of even sides, one pixel smaller where a side is odd; here it is
        resized (bilinear) to the size of x.

        Args:
            x: (N, inputs, H, W): picture in [-1, 1] with 0 where it is missing, then 1 where it is
                known. At least 256 pixels a side.
            hole: (N or 1, 1, H, W), 1 = missing.
            truth: as x, of the complete picture; in a training step, for `GuidanceLoss`.

        Returns:
            (N, 3, H, W) in [-1, 1], known pixels predicted too. With `truth` also the features
            before the shift, (N, 2 C, H / 8, W / 8), of x and, without a gradient, of `truth`.

        Raises:
            ValueError: wrong shape.
        """
        if truth is None:
            return self._finish(x, hole)[0]
        with torch.no_grad():
            wanted, _ = self._down_and_up(truth)
        return *self._finish(x, hole), wanted

    def _finish(self, x: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Return the picture and the features before the shift."""
        features, skips = self._down_and_up(x)
        if self.mirror is None:
            y, _ = self.shift(features, hole)
        else:
            y, _ = self.shift(features, self._mirrored(x), hole)
        for i in range(SHIFT, 1, -1):
            y = self._joined(i, y, skips.pop())
        return self.get_submodule("up1")(y, _size(x)), features

    def _mirrored(self, x: Tensor) -> Tensor:
        """Return the encoder's feature of the mirrored picture, after ReLU."""
        # The port sends no gradient there.
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.mirror == "exact"):
            y = arranged(x.flip(3))
            for i in range(1, SHIFT + 1):
                y = self.get_submodule(f"down{i}")(y)
            return y.relu()


class Discriminator(nn.Module):
    """70 x 70 patches with spectral norm and normalisation ("instance" or "batch").

    Source: Zhaoyi-Yan/Shift-Net_pytorch: models/modules/discrimators.py (NLayerDiscriminator).
    """

    def __init__(self, width: int, norm: str = "instance") -> None:
        super().__init__()
        inputs = 3
        for i, (outputs, stride) in enumerate(
            ((width, 2), (2 * width, 2), (4 * width, 2), (8 * width, 1), (1, 1)), start=1
        ):
            normed = 1 < i < 5
            activation = "leaky_relu" if i == 1 else "identity"
            bias = not normed or norm == "instance"
            conv = FusedConv2d(inputs, outputs, 4, stride, 1, bias=bias, activation=activation)
            self.add_module(f"conv{i}", conv)
            if normed:
                self.add_module(f"norm{i}", _norm(norm, outputs, "leaky_relu"))
            inputs = outputs
        initialise(self, 0.02, norms=norm == "batch")
        for i in range(1, 6):
            spectral(self.get_submodule(f"conv{i}"))

    def forward(self, x: Tensor, logits: bool = False) -> Tensor:
        """(N, 3, H, W) in [-1, 1] to (N, 1, h, w) probabilities, or their logits."""
        for name, layer in self.named_children():
            x = _normalised(layer, x, "leaky_relu") if name.startswith("norm") else layer(x)
        return x if logits else x.sigmoid()
