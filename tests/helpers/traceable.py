"""Layers and generators as tracers see them: modules and the tensors they take, at any size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from model_cases import ToyFeatures, box, picture, small
from operators import OPERATORS, attention_tensors, draw, options_of
from torch import Tensor, nn

from inpaint_ops import layers, ops

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Traceable:
    """A module as the tests trace it.

    Attributes:
        module: makes it, in evaluation mode, with equal weights at each call.
        inputs: its tensors for a batch, a height and a width.
        sizes: the batch, height and width it is traced with, and others.
    """

    module: Callable[[], nn.Module]
    inputs: Callable[[int, int, int], Sequence[Tensor]]
    sizes: Sequence[Sizes] = ((2, 11, 14), (3, 16, 9), (1, 17, 22))

    def axes(self) -> tuple[dict[int, Any], ...]:
        """The axes of each input that differ between the sizes, as dynamic ones."""
        several = [self.inputs(*size) for size in self.sizes]
        return tuple(
            {
                axis: torch.export.Dim.DYNAMIC
                for axis in range(tensors[0].dim())
                if len({tensor.shape[axis] for tensor in tensors}) > 1
            }
            for tensors in zip(*several, strict=True)
        )


class Call(nn.Module):
    """An operator as a module: its weights are parameters, its images arguments."""

    def __init__(self, op: str, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.op, self.options = op, options
        entry = OPERATORS[op]
        self.names = [name for name in entry.tensors() if name not in entry.shared]
        for name in entry.shared:
            self.register_parameter(name, nn.Parameter(entry.tensors()[name]))

    def forward(self, a: Tensor, b: Any = None, c: Any = None, d: Any = None, e: Any = None) -> Any:
        images = dict(zip(self.names, (a, b, c, d, e)))
        shared = {name: getattr(self, name) for name in OPERATORS[self.op].shared}
        return getattr(ops, self.op)(**images, **shared, **self.options)


def _images(op: str) -> Callable[[int, int, int], list[Tensor]]:
    """The operator's tensors that hold images, at any size."""
    entry = OPERATORS[op]

    def images(n: int, height: int, width: int) -> list[Tensor]:
        made = attention_tensors(4, height, width) if op == "contextual_attention" else {}
        sized = []
        for name, tensor in entry.tensors().items():
            if name in entry.shared:
                continue
            shape = list(tensor.shape)
            if op != "channelwise_linear":
                shape[-2:] = shape[-2] + height - 6, shape[-1] + width - 6
            if name in made:
                shape[-2:] = made[name].shape[-2:]
            if shape[0] != 1:
                shape[0] = n
            values = draw(*shape)
            sized.append((values > 0.5).to(tensor) if name in entry.masks else values.to(tensor))
        return sized

    return images


def _operator(op: str, options: Mapping[str, Any]) -> Traceable:
    return Traceable(lambda: Call(op, options).eval(), _images(op))


def _layer(
    make: Callable[..., nn.Module], inputs: Callable[..., Sequence[Tensor]], *sizes: Sizes
) -> Traceable:
    def module() -> nn.Module:
        torch.manual_seed(0)
        return make().eval()

    return Traceable(module, inputs, *([sizes] if sizes else []))


def _mask(n: int, channels: int, height: int, width: int) -> Tensor:
    return (draw(n, channels, height, width) < 0.5).float()


def _hole(n: int, height: int, width: int) -> Tensor:
    """A hole of about a quarter of the image, with known pixels around it."""
    return box(n, height, width).float()


class Guided(nn.Module):
    """A guidance loss with its target."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = layers.GuidanceLoss()

    def forward(self, x: Tensor, complete: Tensor, hole: Tensor) -> Tensor:
        self.loss.set_target(complete)
        return self.loss(x, hole)


class First(nn.Module):
    """A layer whose second result may be None, which not every tracer takes: the first alone."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, a: Tensor, b: Tensor, mask: Tensor) -> Tensor:
        return self.layer(a, b, mask)[0]


def _one(n: int, h: int, w: int) -> list[Tensor]:
    return [draw(n, 4, h, w)]


PARTIAL = {"padding": 1, "return_mask": True}
LAYERS: dict[str, Traceable] = {
    "FusedConv2d": _layer(lambda: layers.FusedConv2d(4, 6, 3, padding=1, activation="elu"), _one),
    "FusedConv2d, silu": _layer(lambda: layers.FusedConv2d(4, 6, 3, activation="silu"), _one),
    "FusedConv2d, same": _layer(lambda: layers.FusedConv2d(4, 6, 3, padding="same"), _one),
    "FusedConv2d, reflected": _layer(
        lambda: layers.FusedConv2d(4, 6, 3, padding=1, padding_mode="reflect", upsample=2), _one
    ),
    "GatedConv2d": _layer(lambda: layers.GatedConv2d(4, 6, 3, padding=1), _one),
    "FusedConvTranspose2d": _layer(
        lambda: layers.FusedConvTranspose2d(4, 6, 4, 2, 1, activation="relu"), _one
    ),
    "PartialConv2d": _layer(
        lambda: layers.PartialConv2d(4, 6, 3, **PARTIAL),
        lambda n, h, w: [draw(n, 4, h, w), _mask(n, 1, h, w)],
    ),
    "PartialConv2d, a mask a channel": _layer(
        lambda: layers.PartialConv2d(4, 6, 3, multi_channel=True, **PARTIAL),
        lambda n, h, w: [draw(n, 4, h, w), _mask(n, 4, h, w)],
    ),
    "PartialConv2d, no mask": _layer(lambda: layers.PartialConv2d(4, 6, 3, **PARTIAL), _one),
    "InstanceNorm2d": _layer(
        lambda: layers.InstanceNorm2d(4, affine=True, activation="elu"),
        lambda n, h, w: [draw(n, 4, h, w), draw(n + 1, 4, h, w)[1:]],
    ),
    "ChannelwiseLinear": _layer(
        lambda: layers.ChannelwiseLinear(4, (3, 3), (2, 4)),
        lambda n, h, w: [draw(n, 4, 3, 3)],
    ),
    "ContextualAttention": _layer(
        lambda: First(layers.ContextualAttention(n_down=1, fuse=True)),
        lambda n, h, w: [draw(n, 4, h, w), draw(n, 4, h + 2, w), _mask(n, 1, 2 * h + 4, 2 * w)],
    ),
    "ContextualAttention, even picks and flow": _layer(
        lambda: layers.ContextualAttention(n_down=1, pick="align_corners", return_flow=True),
        lambda n, h, w: [draw(n, 4, h, w), draw(n, 4, h, w), _mask(n, 1, 2 * h, 2 * w)],
    ),
    "ShiftConnection": _layer(
        layers.ShiftConnection, lambda n, h, w: [draw(n, 8, h, w), _hole(n, h, w)]
    ),
    "ShiftConnection, a hole of the image": _layer(
        layers.ShiftConnection, lambda n, h, w: [draw(n, 8, h, w), _hole(n, 8 * h, 8 * w)]
    ),
    "ShiftConnection, averaged hole": _layer(
        lambda: layers.ShiftConnection(hole_rule="convolution"),
        lambda n, h, w: [draw(n, 8, h, w), _hole(n, 8 * h, 8 * w)],
    ),
    "GuidanceLoss": _layer(
        Guided, lambda n, h, w: [draw(n, 8, h, w), draw(n + 1, 8, h, w)[1:], _hole(n, h, w)]
    ),
    "IDMRFLoss": _layer(
        lambda: layers.IDMRFLoss(ToyFeatures(["relu3_2", "relu4_2"])),
        lambda n, h, w: [picture(n, 3, 3 * h, 3 * w), picture(n, 3, 3 * h, 3 * w, seed=2)],
    ),
}
OPERATOR_CALLS = {
    f"{op} {i}": _operator(op, options)
    for op in OPERATORS
    for i, options in enumerate(options_of(op))
}


@dataclass(frozen=True)
class _Generator:
    method: str
    channels: int = 3
    hole: bool = False
    network: str = "generator"
    options: Mapping[str, Any] = field(default_factory=dict)
    sizes: Sequence[Sizes] = ((2, 24, 32), (3, 36, 20), (1, 40, 44))

    def traceable(self) -> Traceable:
        def inputs(n: int, h: int, w: int) -> list[Tensor]:
            x = picture(n, self.channels, h, w) * 2 - 1
            return [x, box(n, h, w).float()] if self.hole else [x]

        def module() -> nn.Module:
            return getattr(small(self.method, **self.options), self.network).eval()

        return Traceable(module, inputs, self.sizes)


_FIXED = ((2, 128, 128), (3, 128, 128), (1, 128, 128))
_HALVED_OFTEN = ((2, 256, 264), (3, 270, 256), (1, 264, 272))
GENERATORS: dict[str, Traceable] = {
    name: generator.traceable()
    for name, generator in {
        "context_encoder": _Generator("context_encoder", sizes=_FIXED),
        "context_encoder, random_128": _Generator(
            "context_encoder", options={"variant": "random_128"}, sizes=_FIXED
        ),
        "deepfill_v1": _Generator("deepfill_v1", hole=True),
        "deepfill_v2": _Generator("deepfill_v2", 5, hole=True),
        "glcic": _Generator("glcic", 4),
        "msnps": _Generator("msnps", network="content_network", sizes=_FIXED),
        "patch_gan": _Generator("patch_gan"),
        "edge_connect, edges": _Generator("edge_connect", network="edge_generator"),
        "edge_connect, picture": _Generator("edge_connect", 4, network="inpaint_generator"),
        "shift_net": _Generator("shift_net", 4, hole=True, sizes=_HALVED_OFTEN),
        "gmcnn": _Generator("gmcnn", 4, sizes=((2, 196, 200), (3, 212, 196), (1, 204, 208))),
        "partial_conv_unet": _Generator(
            "partial_conv_unet", hole=True, sizes=((2, 64, 96), (3, 96, 64), (1, 128, 64))
        ),
    }.items()
}


def listed(results: Any) -> list[Tensor]:
    """All tensors of a result."""
    if isinstance(results, Tensor):
        return [results]
    return [] if results is None else [tensor for one in results for tensor in listed(one)]


def check_equal(actual: Any, expected: Any, tolerance: float = 1e-5) -> None:
    """Compare results; the tolerance is relative to the largest value."""
    for one, other in zip(listed(actual), listed(expected), strict=True):
        finite = other[other.isfinite()].double().abs()
        scale = finite.max().item() if finite.numel() else 0.0
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * scale, equal_nan=True)
