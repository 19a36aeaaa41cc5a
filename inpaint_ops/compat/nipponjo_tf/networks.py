"""Generator and critic."""

from typing import Any

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.compat import _arguments, _chain, _deepfill
from inpaint_ops.compat.nipponjo_tf.layers import ContextualAttention, DConv, GConv, GDeConv


def _encoder(module: nn.Module, prefix: str, inputs: int, widths: tuple[int, ...]) -> None:
    """Six convolutions, the second and the fourth of stride 2; the last keeps the width."""
    names = ("conv1", "conv2_downsample", "conv3", "conv4_downsample", "conv5", "conv6")
    for i, (name, outputs) in enumerate(zip(names, (*widths, widths[-1]))):
        activation = nn.ReLU() if prefix == "pm" and i == 5 else nn.ELU()
        kernel, stride = (5, 1) if i == 0 else (3, 2 if i in (1, 3) else 1)
        module.add_module(
            prefix + name, GConv(inputs, outputs, kernel, stride, activation=activation)
        )
        inputs = outputs


def _atrous(module: nn.Module, prefix: str, width: int) -> None:
    for i in range(4):
        layer = GConv(width, width, 3, rate=2 ** (i + 1))
        module.add_module(f"{prefix}conv{i + 7}_atrous", layer)


def _decoder(module: nn.Module, prefix: str, inputs: int, cnum: int) -> None:
    wide = 2 * cnum
    rows: dict[str, nn.Module] = {
        "conv11": GConv(inputs, wide, 3),
        "conv12": GConv(wide, wide, 3),
        "conv13_upsample": GDeConv(wide, cnum),
        "conv14": GConv(cnum, cnum, 3),
        "conv15_upsample": GDeConv(cnum, cnum // 2),
        "conv16": GConv(cnum // 2, cnum // 4, 3),
        "conv17": GConv(cnum // 4, 3, 3, activation=None),
    }
    for name, layer in rows.items():
        module.add_module(prefix + name, layer)


_ENCODER = "{0}conv1 {0}conv2_downsample {0}conv3 {0}conv4_downsample {0}conv5 {0}conv6"
_ATROUS = "{0}conv7_atrous {0}conv8_atrous {0}conv9_atrous {0}conv10_atrous"
_DECODER = (
    "{0}conv11 {0}conv12 {0}conv13_upsample {0}conv14 {0}conv15_upsample {0}conv16 {0}conv17 tanh"
)


class Generator(_deepfill.Completing):
    """Both stages.

    Args:
        cnum_in: channels of x: three of the image, ones, and the mask.
        cnum: width.
        return_flow: whether forward returns the picture of displacements too.
        checkpoint: file whose key "G" holds the state dict.

    Raises:
        TypeError, ValueError: wrong type or value.

    As in the port, the attention runs without its fuse step, unlike the TensorFlow original's.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks_tf.py.
    """

    def __init__(
        self, cnum_in: int = 5, cnum: int = 48, return_flow: bool = False, checkpoint: Any = None
    ) -> None:
        super().__init__()
        _arguments.check_counts("Generator", cnum_in=cnum_in, cnum=cnum)
        checks.check_flag("Generator", "return_flow", return_flow)
        half, wide = cnum // 2, 2 * cnum
        _encoder(self, "", cnum_in, (half, cnum, cnum, wide, wide))
        _atrous(self, "", wide)
        _decoder(self, "", wide, cnum)
        self.tanh = nn.Tanh()
        _encoder(self, "x", 3, (half, half, cnum, cnum, wide))
        _atrous(self, "x", wide)
        _encoder(self, "pm", 3, (half, half, cnum, wide, wide))
        self.contextual_attention = ContextualAttention(
            rate=2, softmax_scale=10, fuse=False, return_flow=return_flow
        )
        self.pmconv9 = GConv(wide, wide, 3)
        self.pmconv10 = GConv(wide, wide, 3)
        _decoder(self, "all", 2 * wide, cnum)
        self.return_flow = return_flow
        self.start(checkpoint)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        """Complete.

        Args:
            x: (N, cnum_in, H, W): masked image in [-1, 1], ones, mask; sides multiples of 8.
            mask: (N or 1, 1, H, W), 1 = missing.

        Returns:
            The images of both stages, (N, 3, H, W), and with `return_flow` the flow.
        """
        first = _chain.run(self, f"{_ENCODER} {_ATROUS} {_DECODER}".format(""), x)
        joined = first * mask + x[:, :3] * (1.0 - mask)
        dilated = _chain.run(self, f"{_ENCODER} {_ATROUS}".format("x"), joined)
        y = _chain.run(self, _ENCODER.format("pm"), joined)
        y, flow = self.contextual_attention(y, y, mask)
        y = _chain.run(self, "pmconv9 pmconv10", y)
        second = _chain.run(self, _DECODER.format("all"), torch.cat([dilated, y], 1))
        return (first, second, flow) if self.return_flow else (first, second)

    @torch.inference_mode()
    def infer(
        self,
        image: Tensor,
        mask: Tensor,
        return_vals: list[str] = ["inpainted", "stage1"],  # noqa: B006 - is not changed
        device: str = "cuda",
    ) -> list[Any]:
        """Complete one image, cut to multiples of 8.

        Args:
            image: (3, H, W) in [0, 1].
            mask: (channels, H, W), of which the first counts: more than 0 = missing.
            return_vals: among "inpainted", "stage1", "stage2" and, with `return_flow`, "flow".
            device: not read, as in the port.

        Returns:
            An (H, W, 3) uint8 array for each name.

        Raises:
            ValueError: another name.
        """
        high, wide = (size // 8 * 8 for size in image.shape[1:])
        image, hole = image[None, :3, :high, :wide], mask[None, :1, :high, :wide]
        return self.pictures(image, hole, list(return_vals))


class Discriminator(_deepfill.PatchCritic):
    """Six `DConv` layers of stride 2, flattened.

    Args:
        cnum_in: channels of x.
        cnum: channels of the first layer.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: nipponjo/deepfillv2-pytorch at 4899fd3: model/networks_tf.py.
    """

    def __init__(self, cnum_in: int, cnum: int) -> None:
        super().__init__(DConv, cnum_in, cnum)
