"""Channel-wise fully connected layer of the Context Encoder."""

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.channelwise_linear import channelwise_linear


class ChannelwiseLinear(nn.Module):
    """A matrix for each channel, from all its positions to all positions of the result.

    Args:
        channels: feature maps.
        size: (H, W) of the maps.
        out_size: (Ho, Wo) of the results' maps; None for `size`.
        bias: add one number for each channel and output position.
        std: of the normal distribution the weights start from; biases start from 0.

    Source: Pathak et al., CVPR 2016 (arXiv 1604.07379), section 3.1. The published code has no such
    layer; the initialisation is that of its convolutions.
    """

    def __init__(
        self,
        channels: int,
        size: tuple[int, int],
        out_size: tuple[int, int] | None = None,
        bias: bool = True,
        *,
        std: float = 0.02,
    ) -> None:
        super().__init__()
        out_size = size if out_size is None else out_size
        checks.check_int("ChannelwiseLinear", "channels", channels)
        for name, pair in (("size", size), ("out_size", out_size)):
            if len(pair) != 2:
                raise ValueError(f"ChannelwiseLinear: {name} must hold two numbers, got {pair}")
            for value in pair:
                checks.check_int("ChannelwiseLinear", name, value)
        checks.check_finite("ChannelwiseLinear", "std", std)
        self.size = (size[0], size[1])
        self.out_size = (out_size[0], out_size[1])
        self.std = std
        outputs, inputs = out_size[0] * out_size[1], size[0] * size[1]
        self.weight = nn.Parameter(torch.empty(channels, outputs, inputs))
        self.bias = nn.Parameter(torch.empty(channels, outputs)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights."""
        nn.init.normal_(self.weight, std=self.std)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, Ho, Wo).

        Raises:
            TypeError, ValueError: wrong type or shape.
        """
        if isinstance(x, Tensor) and x.dim() == 4 and tuple(checks.sizes(x)[2:]) != self.size:
            raise ValueError(
                f"ChannelwiseLinear: x must be maps of {self.size}, got {tuple(x.shape)}"
            )
        y = channelwise_linear(x, self.weight, self.bias)
        maps: Tensor = y.flatten(2).unflatten(2, self.out_size)
        return maps

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"{self.weight.shape[0]}, size={self.size}, out_size={self.out_size}, "
            f"bias={self.bias is not None}"
        )
