"""Generator and critic."""

from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments, _chain, _deepfill
from inpaint_ops.compat.nipponjo.layers import (
    ContextualAttention,
    DConv,
    GConv,
    GDownsamplingBlock,
    GUpsamplingBlock,
)

_RATES = (2, 4, 8, 16)


def _bottleneck(module: nn.Module, prefix: str, width: int) -> None:
    """A convolution, and four of growing dilation."""
    module.add_module(f"{prefix}1", GConv(width, width, 3))
    for i, rate in enumerate(_RATES, start=2):
        module.add_module(f"{prefix}{i}", GConv(width, width, 3, rate=rate))


def _decoder(module: nn.Module, cnum: int, cnum_out: int) -> None:
    module.add_module("up_block1", GUpsamplingBlock(2 * cnum, cnum))
    module.add_module("up_block2", GUpsamplingBlock(cnum, cnum // 4, cnum_hidden=cnum // 2))
    picture = GConv(cnum // 4, cnum_out, 3, activation=None, gated=False)
    module.add_module("conv_to_rgb", picture)
    module.add_module("tanh", nn.Tanh())


class CoarseGenerator(nn.Module):
    """First stage.

    Args:
        cnum_in: channels of x.
        cnum_out: channels of the result.
        cnum: width.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(self, cnum_in: int, cnum_out: int, cnum: int) -> None:
        super().__init__()
        self.conv1 = GConv(cnum_in, cnum // 2, 5)
        self.down_block1 = GDownsamplingBlock(cnum // 2, cnum)
        self.down_block2 = GDownsamplingBlock(cnum, 2 * cnum)
        _bottleneck(self, "conv_bn", 2 * cnum)
        self.conv_bn6 = GConv(2 * cnum, 2 * cnum, 3)
        self.conv_bn7 = GConv(2 * cnum, 2 * cnum, 3)
        _decoder(self, cnum, cnum_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, cnum_in, H, W) to (N, cnum_out, H, W) in [-1, 1]; sides are multiples of 4."""
        middle = " ".join(f"conv_bn{i}" for i in range(1, 8))
        names = f"conv1 down_block1 down_block2 {middle} up_block1 up_block2 conv_to_rgb tanh"
        return _chain.run(self, names, x)


class FineGenerator(nn.Module):
    """Second stage: a branch of dilated convolutions and one of contextual attention.

    Args:
        cnum_in: channels of x.
        cnum_out: channels of the result.
        cnum: width.
        return_flow: whether forward returns the picture of displacements.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(self, cnum_in: int, cnum_out: int, cnum: int, return_flow: bool = False) -> None:
        super().__init__()
        half, wide = cnum // 2, 2 * cnum
        self.conv_conv1 = GConv(cnum_in, half, 5)
        self.conv_down_block1 = GDownsamplingBlock(half, cnum, cnum_hidden=half)
        self.conv_down_block2 = GDownsamplingBlock(cnum, wide, cnum_hidden=cnum)
        _bottleneck(self, "conv_conv_bn", wide)
        self.ca_conv1 = GConv(cnum_in, half, 5)
        self.ca_down_block1 = GDownsamplingBlock(half, cnum, cnum_hidden=half)
        self.ca_down_block2 = GDownsamplingBlock(cnum, wide)
        self.ca_conv_bn1 = GConv(wide, wide, 3, activation=nn.ReLU())
        self.contextual_attention = ContextualAttention(
            rate=2, softmax_scale=10, fuse=True, return_flow=return_flow
        )
        self.ca_conv_bn4 = GConv(wide, wide, 3)
        self.ca_conv_bn5 = GConv(wide, wide, 3)
        self.conv_bn6 = GConv(2 * wide, wide, 3)
        self.conv_bn7 = GConv(wide, wide, 3)
        _decoder(self, cnum, cnum_out)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Refine.

        Args:
            x: (N, cnum_in, H, W), sides multiples of 8.
            mask: (N or 1, 1, H, W), 1 = missing.

        Returns:
            (N, cnum_out, H, W) in [-1, 1], and the flow of `ContextualAttention`.
        """
        rates = " ".join(f"conv_conv_bn{i}" for i in range(1, 6))
        dilated = _chain.run(self, f"conv_conv1 conv_down_block1 conv_down_block2 {rates}", x)
        y = _chain.run(self, "ca_conv1 ca_down_block1 ca_down_block2 ca_conv_bn1", x)
        y, flow = self.contextual_attention(y, y, mask)
        y = _chain.run(self, "ca_conv_bn4 ca_conv_bn5", y)
        y = torch.cat([dilated, y], 1)
        names = "conv_bn6 conv_bn7 up_block1 up_block2 conv_to_rgb tanh"
        return _chain.run(self, names, y), flow


class Generator(_deepfill.Completing):
    """Both stages.

    Args:
        cnum_in: channels of x: those of the image, ones, and the mask.
        cnum_out: channels of the image.
        cnum: width.
        return_flow: whether forward returns the picture of displacements too.
        checkpoint: file whose key "G" holds the state dict.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(
        self,
        cnum_in: int = 5,
        cnum_out: int = 3,
        cnum: int = 48,
        return_flow: bool = False,
        checkpoint: Any = None,
    ) -> None:
        super().__init__()
        _arguments.check_counts("Generator", cnum_in=cnum_in, cnum_out=cnum_out, cnum=cnum)
        checks.check_flag("Generator", "return_flow", return_flow)
        self.stage1 = CoarseGenerator(cnum_in, cnum_out, cnum)
        self.stage2 = FineGenerator(cnum_out, cnum_out, cnum, return_flow)
        self.return_flow = return_flow
        self.cnum_in = cnum_in
        self.start(checkpoint)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Complete.

        Args:
            x: (N, cnum_in, H, W): masked image in [-1, 1], ones, mask; sides multiples of 8.
            mask: (N or 1, 1, H, W), 1 = missing.

        Returns:
            The images of both stages, (N, cnum_out, H, W), and with `return_flow` the flow.
        """
        first = self.stage1(x)
        joined = first * mask + x[:, : self.cnum_in - 2] * (1.0 - mask)
        second, flow = self.stage2(joined, mask)
        return (first, second, flow) if self.return_flow else (first, second)

    @torch.inference_mode()
    def infer(
        self,
        image: Tensor,
        mask: Tensor,
        return_vals: str | list[str] = ["inpainted", "stage1"],  # noqa: B006 - is not changed
    ) -> Any:
        """Complete one image, cut to multiples of 8.

        Args:
            image: (cnum_out, H, W) in [0, 1].
            mask: (1 to 3 channels, H, W), a sum of more than 0 = missing.
            return_vals: among "inpainted", "stage1", "stage2" and, with `return_flow`, "flow".

        Returns:
            An (H, W, C) uint8 array for each name, or alone if there is one name.

        Raises:
            ValueError: another name.
        """
        wanted = [return_vals] if isinstance(return_vals, str) else list(return_vals)
        high, wide = (size // 8 * 8 for size in image.shape[1:])
        image = image[None, : self.cnum_in, :high, :wide]
        hole = mask[None, :3, :high, :wide].sum(1, keepdim=True)
        output = self.pictures(image, hole, wanted)
        return output[0] if len(output) == 1 else output


class Discriminator(_deepfill.PatchCritic):
    """Six `DConv` layers of stride 2, flattened.

    Args:
        cnum_in: channels of x.
        cnum: channels of the first layer.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks.py.
    """

    def __init__(self, cnum_in: int, cnum: int) -> None:
        super().__init__(DConv, cnum_in, cnum)
