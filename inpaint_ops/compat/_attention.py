"""Contextual attention as the public PyTorch ports call it."""

from typing import Any

from torch import Tensor, nn

from inpaint_ops import checks, layers


class PortAttention(layers.ContextualAttention):
    """`layers.ContextualAttention` with the ports' checks, attributes and rule for the mask.

    Args:
        ksize, stride, rate, fuse_k, softmax_scale, n_down, fuse, return_flow: of
            `layers.ContextualAttention`.
        device_ids: kept, not read.
        options: its keywords.
    """

    def __init__(
        self,
        ksize: int,
        stride: int,
        rate: int,
        fuse_k: int,
        softmax_scale: float,
        n_down: int,
        fuse: bool,
        return_flow: bool,
        device_ids: Any,
        **options: str,
    ) -> None:
        checks.check_flag("ContextualAttention", "fuse", fuse)
        checks.check_flag("ContextualAttention", "return_flow", return_flow)
        checks.check_int("ContextualAttention", "stride", stride)
        checks.check_finite("ContextualAttention", "softmax_scale", softmax_scale)
        if device_ids is not None and not isinstance(device_ids, (list, tuple)):
            kind = type(device_ids).__name__
            raise TypeError(f"ContextualAttention: device_ids must be a list or None, got {kind}")
        super().__init__(
            ksize,
            stride,
            rate,
            fuse_k,
            softmax_scale,
            bool(fuse),
            n_down,
            bool(return_flow),
            **options,
        )
        self.ksize = ksize
        self.stride = stride
        self.fuse_k = fuse_k
        self.device_ids = device_ids

    def match(self, f: Tensor, b: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As forward, but with the index of each cell's best key: (y, (N, h, w) int64)."""
        # The ports read the mask of the first sample alone.
        first = mask[:1] if isinstance(mask, Tensor) and mask.dim() == 4 else mask
        return super().match(f, b, first)

    def picture(self, index: Tensor, b: Tensor) -> Tensor:
        """Colours 0 to 1 of the displacements, one for each cell: (N, 3, h, w) float32."""
        return layers.flow_picture(index, -(-b.shape[3] // self.rate))

    def _load_from_state_dict(self, *args: Any) -> None:
        # Not the layer's own, which drops the constant that one port keeps among its weights.
        nn.Module._load_from_state_dict(self, *args)
