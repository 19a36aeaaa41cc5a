"""VGG-16 and VGG-19 feature networks, filled from a torchvision file that the user has."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.checkpoints import peeled, read_checkpoint
from inpaint_ops.layers import FusedConv2d

# Convolutions in each of the five blocks, each block ending in a pooling layer.
_BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
_WIDTHS = (64, 128, 256, 512, 512)
# Keys under which files keep the state dict.
_NESTING = ("state_dict", "model", "model_state_dict")
_POOLINGS = ("max", "average")
_MEAN = (0.485, 0.456, 0.406)


@dataclass(frozen=True)
class InputRule:
    """Input of a feature network: (image * scale - mean) / deviation, channels as BGR if `bgr`.

    `mean` and `deviation` are in the order of the channels after the swap.
    """

    scale: float = 1.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    deviation: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bgr: bool = False


# MSNPS multiplies by 256 where Caffe's networks were trained on 0..255.
_CAFFE_MEAN = (103.939, 116.779, 123.68)
INPUT_RULES = {
    "imagenet": InputRule(mean=_MEAN, deviation=(0.229, 0.224, 0.225)),
    "centred": InputRule(mean=_MEAN),
    "plain": InputRule(),
    "caffe": InputRule(scale=255.0, mean=_CAFFE_MEAN, bgr=True),
    "caffe_256": InputRule(scale=256.0, mean=_CAFFE_MEAN, bgr=True),
}


class FeatureNetwork(nn.Module):
    """Frozen convolutional layers of VGG-16 or VGG-19, up to the last one asked for.

    Nothing is downloaded: the weights come from a file that torchvision wrote (``vgg16-*.pth``,
    ``vgg19-*.pth``) or that has its keys. Gradients flow to the image alone. ReLU and bias are part
    of the convolutions; the whole network runs in channels_last.

    Args:
        name: "vgg16" or "vgg19".
        weights: path of a .safetensors or PyTorch file (read with weights_only), or a state dict:
            features.N.weight and features.N.bias, with or without "features.", or with a prefix
            before all keys. Layers that are not needed, and the classifier, may be there or not.
        layers: names of the maps that `forward` returns: "conv3_1" before its ReLU, "relu3_1"
            after it, "pool3" after the pooling of block 3.
        rule: input of the network, made from images that are RGB in [0, 1]. "imagenet": less the
            mean of ImageNet, divided by its deviation (torchvision's weights, PConv); "centred":
            less the mean alone (GMCNN); "plain": as it comes (EdgeConnect; Shift-Net in [-1, 1]);
            "caffe": BGR in 0..255 less Caffe's mean; "caffe_256": the same with 256, the scale of
            MSNPS's public code; or an `InputRule`. Recipes of training know what their sources
            used: give them the file, and they make the network.
        pooling: "max" or "average" (GMCNN in TensorFlow).
        ceil: pooled maps round odd sizes up, as in Caffe.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: wrong type, or weights left out.
        ValueError: unknown network, layer or rule; missing, unknown or misshapen keys.

    Source: Simonyan and Zisserman, 2015 (arXiv 1409.1556), configurations D and E; key names of
    pytorch/vision: torchvision/models/vgg.py.
    """

    _mean: Tensor
    _deviation: Tensor

    def __init__(
        self,
        name: str,
        weights: str | os.PathLike[str] | Mapping[str, Any],
        *,
        layers: Sequence[str],
        rule: str | InputRule = "imagenet",
        pooling: str = "max",
        ceil: bool = False,
    ) -> None:
        super().__init__()
        if weights is None:
            raise TypeError(
                "FeatureNetwork: weights must be a file that torchvision wrote or its state dict, "
                "got None; nothing is downloaded"
            )
        self._build(name, layers, rule, pooling, ceil)
        self._load(weights)
        self._freeze()

    @classmethod
    def untrained(cls, name: str, *, seed: int = 0, **options: Any) -> FeatureNetwork:
        """Return a network with random weights, to try losses without a file.

        Args:
            name: "vgg16" or "vgg19".
            seed: of the weights, which are normal with variance 2 / fan-in; biases are 0.
            options: layers, rule, pooling and ceil as above.
        """
        network = cls.__new__(cls)
        nn.Module.__init__(network)
        given = {"rule": "imagenet", "pooling": "max", "ceil": False, **options}
        network._build(name, given.pop("layers"), **given)
        generator = torch.Generator().manual_seed(seed)
        for layer in network.convolutions.values():
            assert isinstance(layer, FusedConv2d)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        network._freeze()
        return network

    def _build(
        self, name: str, layers: Sequence[str], rule: str | InputRule, pooling: str, ceil: bool
    ) -> None:
        op = type(self).__name__
        checks.check_choice(op, "name", name, tuple(_BLOCKS))
        checks.check_choice(op, "pooling", pooling, _POOLINGS)
        if not isinstance(rule, InputRule):
            checks.check_choice(op, "rule", rule, tuple(INPUT_RULES))
            rule = INPUT_RULES[rule]
        plan = _plan(name)
        known = {label for step in plan for label in step.labels}
        if isinstance(layers, str) or not layers or not known.issuperset(layers):
            raise ValueError(f"{op}: layers must be among {', '.join(sorted(known))}, got {layers}")
        self.name, self.layers, self.rule = name, tuple(layers), rule
        self.pooling, self.ceil = pooling, bool(ceil)
        last = max(i for i, step in enumerate(plan) if set(step.labels) & set(layers))
        self._steps = plan[: last + 1]
        self.convolutions = nn.ModuleDict()
        for step in self._steps:
            if step.position is not None:
                # If the values before the ReLU are asked for, it is a pass of its own.
                split = step.labels[0] in layers
                self.convolutions[step.labels[0]] = FusedConv2d(
                    *(step.inputs, step.outputs, 3),
                    padding=1,
                    activation="identity" if split else "relu",
                )
        shape = (1, 3, 1, 1)
        self.register_buffer("_mean", torch.tensor(rule.mean).view(shape), persistent=False)
        factor = torch.tensor(rule.deviation).view(shape)
        self.register_buffer("_deviation", factor, persistent=False)

    def _load(self, weights: str | os.PathLike[str] | Mapping[str, Any]) -> None:
        op = type(self).__name__
        checkpoint = read_checkpoint(weights)
        state: dict[str, Tensor] = {}
        found = (one for whole in checkpoint.dicts(_NESTING) for one, _ in peeled(whole))
        for candidate in found:
            if all(key.partition(".")[0].isdigit() for key in candidate):  # its features alone
                candidate = {f"features.{key}": value for key, value in candidate.items()}
            if any(key.startswith("features.") for key in candidate):
                state = candidate
                break
        state = {k: v for k, v in state.items() if not k.startswith("classifier.")}
        positions = {f"features.{s.position}" for s in _plan(self.name) if s.position is not None}
        unknown = {k for k in state if k.rpartition(".")[0] not in positions}
        ours = {
            f"features.{step.position}.{kind}": getattr(self.convolutions[step.labels[0]], kind)
            for step in self._steps
            if step.position is not None
            for kind in ("weight", "bias")
        }
        missing = set(ours) - set(state)
        if unknown or missing:
            raise ValueError(
                f"{op}: {checkpoint.origin} must have the keys of torchvision's {self.name}, got "
                f"{_listed(unknown)} besides and no {_listed(missing)}"
            )
        for key, parameter in ours.items():
            if state[key].shape != parameter.shape:
                raise ValueError(
                    f"{op}: {key} must have shape {tuple(parameter.shape)}, got "
                    f"{tuple(state[key].shape)}"
                )
        with torch.no_grad():
            for key, parameter in ours.items():
                parameter.copy_(state[key])

    def _freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the maps asked for.

        Args:
            image: (N, 3, H, W), floating, as the rule takes it; at least 16 pixels a side to reach
                block 5.

        Returns:
            Layer name to (N, C, h, w), float32 or float64, channels_last.

        Raises:
            TypeError, ValueError: wrong type or shape.
        """
        op = type(self).__name__
        checks.check_image(op, "image", image)
        if image.shape[1] != 3:
            raise ValueError(f"{op}: image must have 3 channels, got {tuple(image.shape)}")
        x = image.to(next(self.parameters()).dtype)
        rule = self.rule
        if rule.bgr:
            x = x.flip(1)
        if rule != InputRule():
            x = (x * rule.scale - self._mean) / self._deviation
        x = x.contiguous(memory_format=torch.channels_last)
        maps: dict[str, Tensor] = {}
        for step in self._steps:
            if step.position is None:
                pool = F.max_pool2d if self.pooling == "max" else F.avg_pool2d
                x = pool(x, 2, 2, ceil_mode=self.ceil)
            else:
                x = self.convolutions[step.labels[0]](x)
                if step.labels[0] in self.layers:
                    maps[step.labels[0]] = x
                    x = F.relu(x)
            maps[step.labels[-1]] = x
        return {label: maps[label] for label in self.layers}

    def has(self, option: str, value: object) -> bool:
        """Return whether an argument of the constructor has had a value, or more layers than it."""
        if option == "layers":
            return isinstance(value, Iterable) and set(self.layers).issuperset(value)
        if option == "rule" and isinstance(value, str):
            value = INPUT_RULES[value]
        return bool(getattr(self, option) == value)

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        names = [name for name, rule in INPUT_RULES.items() if rule == self.rule]
        return (
            f"{self.name!r}, layers={self.layers}, rule={names[0] if names else self.rule!r}, "
            f"pooling={self.pooling!r}, ceil={self.ceil}"
        )


@dataclass(frozen=True)
class _Step:
    """A convolution with its ReLU (labels "conv" and "relu"), or a pooling (position None)."""

    labels: tuple[str, ...]
    position: int | None = None
    inputs: int = 0
    outputs: int = 0


def _plan(name: str) -> list[_Step]:
    """Return all layers; `position` is the index in torchvision's `features`."""
    steps, position, inputs = [], 0, 3
    for block, (count, width) in enumerate(zip(_BLOCKS[name], _WIDTHS), start=1):
        for i in range(1, count + 1):
            steps.append(_Step((f"conv{block}_{i}", f"relu{block}_{i}"), position, inputs, width))
            position, inputs = position + 2, width
        steps.append(_Step((f"pool{block}",)))
        position += 1
    return steps


def _listed(keys: set[str]) -> str:
    ordered = sorted(keys, key=lambda key: ([int(n) for n in re.findall(r"\d+", key)], key))
    return ", ".join(ordered[:6]) + (", ..." if len(keys) > 6 else "") or "none"
