"""Contextual attention layer of DeepFill v1 and v2."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.ops.contextual_attention import contextual_attention
from inpaint_ops.ops.overrides import call, has_override, inside, tracing

# Hues of the Middlebury colour wheel between red, yellow, green, cyan, blue, magenta and red.
_HUES = (15, 6, 4, 11, 13, 6)


class ContextualAttention(nn.Module):
    """Feature map rebuilt from patches of another map, or of itself outside the hole.

    Args:
        ksize: side of the patches that are compared, cells; 3 as in all published networks.
        stride: cells from patch to patch; 1, as the public layers fail with any other.
        rate: feature pixels a cell.
        fuse_k: side of the fuse step's kernel, cells; 3 as in all published networks.
        softmax_scale: factor on the scores.
        fuse: add the scores of neighbours, as the published networks do. Off by default, as in the
            public layer; the operator's default is on.
        n_down: halvings between the image, and with it `mask`, and the features.
        return_flow: forward returns the picture of displacements, too.
        pick, key_norm, hole_mode, overlap: see `inpaint_ops.contextual_attention`. Drop-in for
            nipponjo/deepfillv2-pytorch: the defaults (its networks_tf: pick="align_corners"); for
            daa233/generative-inpainting-pytorch: key_norm="sum"; for open-mmlab/mmagic:
            hole_mode="exclude", overlap="count".

    Source: nipponjo/deepfillv2-pytorch: model/networks.py (no parameters, no state dict).
    Deviations: every sample has its own mask; the flow is counted in the background's own width.
    """

    def __init__(  # noqa: PLR0913
        self,
        ksize: int = 3,
        stride: int = 1,
        rate: int = 2,
        fuse_k: int = 3,
        softmax_scale: float = 10.0,
        fuse: bool = False,
        n_down: int = 2,
        return_flow: bool = False,
        *,
        pick: str = "floor",
        key_norm: str = "max",
        hole_mode: str = "zero",
        overlap: str = "constant",
    ) -> None:
        super().__init__()
        for name, value in (("ksize", ksize), ("fuse_k", fuse_k)):
            checks.check_int("ContextualAttention", name, value)
            if value != 3:
                raise ValueError(f"ContextualAttention: {name} must be 3, got {value}")
        if stride != 1:
            raise ValueError(f"ContextualAttention: stride must be 1, got {stride}")
        checks.check_int("ContextualAttention", "rate", rate)
        checks.check_int("ContextualAttention", "n_down", n_down, minimum=0)
        self.rate = rate
        self.softmax_scale = softmax_scale
        self.fuse = fuse
        self.n_down = n_down
        self.return_flow = return_flow
        self.pick = pick
        self.key_norm = key_norm
        self.hole_mode = hole_mode
        self.overlap = overlap

    def forward(
        self, f: Tensor, b: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rebuild `f` from patches of `b`.

        Args:
            f: (N, C, H, W) foreground features.
            b: (N, C, Hb, Wb) background features; in the published networks `f` again.
            mask: (N or 1, 1, Hm, Wm), not 0 = missing, as large as the image of `b`: Hb and Wb
                times 2 ** n_down.

        Returns:
            y: (N, C, H, W).
            flow: with `return_flow` (N, 3, H, W), colours 0 to 1 of the displacements, for display;
                otherwise None.

        Raises:
            TypeError, ValueError: wrong type, shape or option.
        """
        y, index = self.match(f, b, mask)
        if not self.return_flow:
            return y, None
        columns = -(-b.shape[3] // self.rate)
        picture = flow_picture(index, columns).to(y.dtype)
        size = (f.shape[2], f.shape[3])
        return y, F.interpolate(picture, size=size, mode="bilinear", align_corners=True)

    def match(self, f: Tensor, b: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return y as forward does, and the index of each cell's best key, (N, h, w) int64."""
        result = contextual_attention(
            f,
            b,
            None if mask is None else _hole(b, mask, self.n_down, self.rate, self.pick),
            rate=self.rate,
            softmax_scale=self.softmax_scale,
            fuse=self.fuse,
            pick=self.pick,
            key_norm=self.key_norm,
            hole_mode=self.hole_mode,
            overlap=self.overlap,
            return_index=True,
        )
        return result[0], result[1]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # The public layers keep the constant kernel of the fuse step among their weights.
        state_dict.pop(prefix + "fuse_weight", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return (
            f"rate={self.rate}, softmax_scale={self.softmax_scale}, fuse={self.fuse}, "
            f"n_down={self.n_down}, return_flow={self.return_flow}, pick={self.pick!r}, "
            f"key_norm={self.key_norm!r}, hole_mode={self.hole_mode!r}, overlap={self.overlap!r}"
        )


def _hole(b: Tensor, mask: Tensor, n_down: int, rate: int, pick: str) -> Tensor:
    """Return the mask on the grid of cells, each cell with the value of its picked pixel."""
    if has_override(b, mask):
        return call(_hole, locals())
    _check_mask(b, mask, n_down)
    if pick == "floor":
        # Two steps: traced sizes are seen to be those of the features, then of the cells.
        pixels = mask[:, :, :: 2**n_down, :: 2**n_down]
        return pixels[:, :, ::rate, ::rate]
    rows, columns = (
        _evenly(mask.shape[axis], (b.shape[axis] + rate - 1) // rate, mask.device)
        for axis in (2, 3)
    )
    return mask[:, :, rows][:, :, :, columns]


def _check_mask(b: Tensor, mask: Tensor, n_down: int) -> None:
    if tracing() and not inside():
        call(_check_mask, locals())
        return
    checks.check_image("ContextualAttention", "b", b)
    if not isinstance(mask, Tensor):
        raise TypeError(f"ContextualAttention: mask must be a Tensor, got {type(mask).__name__}")
    size = tuple(n * 2**n_down for n in b.shape[2:])
    if mask.dim() != 4 or mask.shape[1] != 1 or tuple(mask.shape[2:]) != size:
        raise ValueError(
            f"ContextualAttention: mask must have shape (N, 1, {size[0]}, {size[1]}), got "
            f"{tuple(mask.shape)}"
        )


def _evenly(size: int, count: int, device: torch.device) -> Tensor:
    """Return `count` even positions from 0 to size - 1, rounded half up."""
    i = torch.arange(count, device=device)
    # Of one position the denominator is 1, without asking for the number, which may be traced.
    return (2 * i * (size - 1) + count - 1) // (2 * (count - 1) + 1 // count)


def flow_picture(index: Tensor, columns: int) -> Tensor:
    """Return displacements as colours: hue is direction, saturation is length.

    Args:
        index: (N, h, w) int64, flat key position v * columns + u of each cell.
        columns: cells of a row of keys.

    Returns:
        (N, 3, h, w) float32, levels k / 255. Lengths are relative to the greatest of this sample
        and those before it in the batch, as in the public code.

    Source: Middlebury colour code (Baker et al., IJCV 2011) as used by
    JiahuiYu/neuralgym: neuralgym/ops/summary_ops.py.
    """
    if has_override(index):
        return call(flow_picture, locals())
    h, w = index.shape[1:]
    row = index // columns
    dy = (row - torch.arange(h, device=index.device)[:, None]).double()
    dx = (index - row * columns - torch.arange(w, device=index.device)).double()
    greatest = (dy.square() + dx.square()).sqrt().flatten(1).amax(1)
    sample = torch.arange(greatest.shape[0], device=index.device)
    greatest = torch.where(sample[:, None] >= sample, greatest, 0).amax(1)
    scale = (greatest + torch.finfo(torch.float64).eps)[:, None, None]
    return displacement_colours(dy / scale, dx / scale)


def displacement_colours(dy: Tensor, dx: Tensor) -> Tensor:
    """Return the Middlebury colours of displacements.

    Args:
        dy: (N, h, w) float64, rows to go down, as a part of the greatest length.
        dx: the same of columns to the right.

    Returns:
        (N, 3, h, w) float32, levels k / 255.
    """
    length = (dy.square() + dx.square()).sqrt()

    wheel = _colour_wheel(dy.device)
    place = (torch.atan2(-dx, -dy) / math.pi + 1) / 2 * (wheel.shape[0] - 1)
    low = place.floor()
    weight = (place - low)[..., None]
    low = low.long()
    colour = (1 - weight) * wheel[low] + weight * wheel[(low + 1) % wheel.shape[0]]
    colour = torch.where(
        length[..., None] <= 1, 1 - length[..., None] * (1 - colour), 0.75 * colour
    )
    return ((255 * colour).floor() / 255).permute(0, 3, 1, 2).float()


def _colour_wheel(device: torch.device) -> Tensor:
    """Return the colours of the wheel, (55, 3), from 0 to 1."""
    segments = []
    for i, count in enumerate(_HUES):
        # Of the three channels one is full, one is empty and one rises or falls.
        ramp = (255 * torch.arange(count, dtype=torch.float64, device=device) / count).floor()
        rising = i % 2 == 0
        channel = (1, 0, 2, 1, 0, 2)[i]
        full = (0, 1, 1, 2, 2, 0)[i]
        segment = torch.zeros(count, 3, dtype=torch.float64, device=device)
        segment[:, full] = 255
        segment[:, channel] = ramp if rising else 255 - ramp
        segments.append(segment)
    return torch.cat(segments) / 255
