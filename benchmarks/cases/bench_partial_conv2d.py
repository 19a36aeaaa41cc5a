"""partial_conv2d over the layers of the partial-convolution U-Net, and over the whole network."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops import partial_conv2d
from inpaint_ops.benchmarks.cases import conv_contestants, conv_problems
from inpaint_ops.benchmarks.cases.conv_layers import Layer, partial_unet
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target

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
    """Return the problem of one layer or of the U-Net without norms, or with all gradients."""
    if case.sizes["layer"] != _PASS:
        return conv_problems.setup(case)
    layers = partial_unet(512, _LEVELS)
    weights = [(1.4 * w, b) for *_, w, b in map(conv_contestants.draw, layers)]
    image = conv_contestants.draw(layers[0])[0]
    hole = torch.ones(1, 1, 512, 512)
    hole[:, :, 128:384, 128:384] = 0

    def network(image: Tensor, flat: Any, valid: Tensor, step: Any) -> Tensor:
        """Run encoder and decoder; `step` is one layer of one or two images and masks."""
        skips = [(image, valid)]
        pairs = list(zip(flat[::2], flat[1::2]))
        for i in range(_LEVELS):
            x, valid = step(layers[i], pairs[i], *zip(skips[-1]))
            skips.append((x.relu(), valid))
        x, valid = skips.pop()
        for i in range(_LEVELS):
            skip, skip_valid = skips.pop()
            x, valid = step(layers[_LEVELS + i], pairs[_LEVELS + i], (x, skip), (valid, skip_valid))
            if i + 1 < _LEVELS:
                x = F.leaky_relu(x, 0.2)
        result: Tensor = x
        return result

    def ours_step(layer: Layer, pair: Any, images: Any, masks: Any) -> tuple[Tensor, Tensor]:
        factors = tuple(factor for _, factor in layer.parts)
        return partial_conv2d(
            images, masks, *pair, stride=layer.stride, padding=layer.pad, upsample=factors
        )

    def public_step(layer: Layer, pair: Any, images: Any, masks: Any) -> tuple[Tensor, Tensor]:
        x, mask = (conv_contestants.concatenated(layer, both) for both in (images, masks))
        weight, bias = pair
        return conv_contestants.partial_public(x, mask, weight, bias, layer.stride, layer.pad)

    def eager(image: Tensor, *flat: Tensor) -> Tensor:
        whole = hole.to(image).expand(-1, 3, -1, -1).contiguous()
        return network(image, flat, whole, public_step)

    # 16 layers pass their errors on.
    return conv_problems.network(
        layers,
        (image, *(t for pair in weights for t in pair)),
        lambda image, *flat: network(image, flat, hole.to(image.device), ours_step),
        eager,
        backward=case.sizes.get("backward", False),
        terms=64 * 10**4,
        kinks=True,
    )
