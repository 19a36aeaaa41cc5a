"""partial_conv2d over the layers of the partial-convolution U-Net, and over the whole network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import partial_conv2d
from inpaint_ops.benchmarks import conv_problems
from inpaint_ops.benchmarks.case import Case, Problem, Target
from inpaint_ops.benchmarks.conv_layers import partial_unet

_PASS = "u-net-512x512"
CASES = (
    Case("partial_conv2d", _PASS, {"layer": _PASS}, target=Target(must=2, aim=3.5), quick=True),
    Case(
        "partial_conv2d",
        f"forward-backward-{_PASS}",
        {"layer": _PASS, "backward": True},
        target=Target(must=1.5, aim=2.5),
        compile=False,
    ),
    *conv_problems.cases("partial_conv2d", "partial"),
)
_LEVELS = 8


def setup(case: Case) -> Problem:
    """One layer, or the U-Net's convolutions without norms, with all gradients if `backward`."""
    if case.sizes["layer"] != _PASS:
        return conv_problems.setup(case)
    layers = partial_unet(512, _LEVELS)
    weights = [(1.4 * w, b) for _, w, b in map(conv_problems.draw, layers)]
    image = conv_problems.draw(layers[0])[0]
    hole = torch.ones(1, 1, 512, 512)
    hole[:, :, 128:384, 128:384] = 0

    def network(image: Tensor, flat: Any, valid: Tensor, step: Any, join: Any) -> Tensor:
        """Encoder, then decoder; `step` is one layer, `join` the concatenation of two."""
        skips = [(image, valid)]
        pairs = list(zip(flat[::2], flat[1::2]))
        for i in range(_LEVELS):
            x, valid = step(i, pairs[i], *skips[-1], None)
            skips.append((x.relu(), valid))
        x, valid = skips.pop()
        for i in range(_LEVELS):
            skip, skip_valid = skips.pop()
            x = F.interpolate(x, scale_factor=2, mode="nearest")
            valid = F.interpolate(valid, scale_factor=2, mode="nearest")
            parts = (x.shape[1], skip.shape[1])
            joined = join(valid, skip_valid)
            x, valid = step(_LEVELS + i, pairs[_LEVELS + i], torch.cat([x, skip], 1), joined, parts)
            if i + 1 < _LEVELS:
                x = F.leaky_relu(x, 0.2)
        result: Tensor = x
        return result

    def ours_step(i: int, pair: Any, x: Tensor, valid: Tensor, parts: Any) -> tuple[Tensor, Tensor]:
        layer = layers[i]
        return partial_conv2d(x, valid, *pair, stride=layer.stride, padding=layer.pad, parts=parts)

    def public_step(
        i: int, pair: Any, x: Tensor, valid: Tensor, parts: Any
    ) -> tuple[Tensor, Tensor]:
        layer, (weight, bias) = layers[i], pair
        y, updated = conv_problems.partial_public(x, valid, weight, bias, layer.stride, layer.pad)
        return y, updated

    def join(a: Tensor, b: Tensor) -> Tensor:
        return torch.cat([a, b], 1)

    def eager(image: Tensor, *flat: Tensor) -> Tensor:
        whole = hole.to(image).expand(-1, 3, -1, -1).contiguous()
        return network(image, flat, whole, public_step, join)

    # 16 layers pass their errors on.
    return conv_problems.network(
        layers,
        (image, *(t for pair in weights for t in pair)),
        lambda image, *flat: network(image, flat, hole.to(image.device), ours_step, join),
        eager,
        backward=case.sizes.get("backward", False),
        terms=64 * 10**4,
        kinks=True,
    )
