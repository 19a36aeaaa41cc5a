"""The layer of my_op, if a public layer exists whose place it takes."""

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.my_op import my_op


class MyOp(nn.Module):
    """A learnt factor for each channel, ones at first.

    Args:
        channels: of x.
        device, dtype: of the parameter.

    Raises:
        TypeError, ValueError: wrong type or value.

    Source: the public layer whose state dict and arguments it takes over.
    """

    def __init__(
        self,
        channels: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        checks.check_int("MyOp", "channels", channels)
        self.weight = nn.Parameter(torch.ones(channels, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, H, W) to the same, see `my_op`."""
        return my_op(x, self.weight)

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"{self.weight.shape[0]}"
