"""The two-stage generators of DeepFill v1 and v2: tables of layers, and the second stage."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import ContextualAttention, FusedConv2d
from inpaint_ops.models.blocks.pictures import pad_for, stacked

# Layer, channels in multiples of the first layer's, kernel, stride, dilation; names ending in
# "upsample" double the size first.
Row = tuple[str, float, int, int, int]


def check_sides(op: str, x: Tensor) -> None:
    """Raise ValueError for sizes that two halvings and two doublings do not restore."""
    shape = checks.sizes(x)
    if x.dim() != 4 or shape[2] % 4 or shape[3] % 4:
        raise ValueError(
            f"{op}: x must have shape (N, C, H, W) with sides that are multiples of 4, got "
            f"{tuple(x.shape)}; complete pads"
        )


def _atrous(prefix: str) -> tuple[Row, ...]:
    return tuple((f"{prefix}conv{7 + i}_atrous", 4, 3, 1, 2 << i) for i in range(4))


def _decoding(prefix: str) -> tuple[Row, ...]:
    return (
        (f"{prefix}conv11", 4, 3, 1, 1),
        (f"{prefix}conv12", 4, 3, 1, 1),
        (f"{prefix}conv13_upsample", 2, 3, 1, 1),
        (f"{prefix}conv14", 2, 3, 1, 1),
        (f"{prefix}conv15_upsample", 1, 3, 1, 1),
        (f"{prefix}conv16", 0.5, 3, 1, 1),
    )


COARSE: tuple[Row, ...] = (
    ("conv1", 1, 5, 1, 1),
    ("conv2_downsample", 2, 3, 2, 1),
    ("conv3", 2, 3, 1, 1),
    ("conv4_downsample", 4, 3, 2, 1),
    ("conv5", 4, 3, 1, 1),
    ("conv6", 4, 3, 1, 1),
    *_atrous(""),
    *_decoding(""),
)
CONVOLUTION: tuple[Row, ...] = (
    ("xconv1", 1, 5, 1, 1),
    ("xconv2_downsample", 1, 3, 2, 1),
    ("xconv3", 2, 3, 1, 1),
    ("xconv4_downsample", 2, 3, 2, 1),
    ("xconv5", 4, 3, 1, 1),
    ("xconv6", 4, 3, 1, 1),
    *_atrous("x"),
)
BEFORE_ATTENTION: tuple[Row, ...] = (
    ("pmconv1", 1, 5, 1, 1),
    ("pmconv2_downsample", 1, 3, 2, 1),
    ("pmconv3", 2, 3, 1, 1),
    ("pmconv4_downsample", 4, 3, 2, 1),
    ("pmconv5", 4, 3, 1, 1),
    ("pmconv6", 4, 3, 1, 1),
)
AFTER_ATTENTION: tuple[Row, ...] = (("pmconv9", 4, 3, 1, 1), ("pmconv10", 4, 3, 1, 1))
MERGED: tuple[Row, ...] = _decoding("all")

# All layers of a generator by the name of the sequence that holds them.
LAYERS: dict[str, tuple[str, ...]] = {
    "coarse": (*(row[0] for row in COARSE), "conv17"),
    "refinement.convolution": tuple(row[0] for row in CONVOLUTION),
    "refinement.before_attention": tuple(row[0] for row in BEFORE_ATTENTION),
    "refinement.after_attention": tuple(row[0] for row in AFTER_ATTENTION),
    "refinement.decoder": (*(row[0] for row in MERGED), "allconv17"),
}


def chain(
    layer: Callable[..., nn.Module],
    rows: tuple[Row, ...],
    inputs: int,
    width: int,
    padding: str,
) -> OrderedDict[str, nn.Module]:
    """Return the layers of a table by name.

    Args:
        layer: `FusedConv2d`, or a class with its arguments.
        rows: the table.
        inputs: channels of the input.
        width: channels of the generator's first layer.
        padding: "same" (TensorFlow's rule) or "symmetric".
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for name, times, kernel, stride, dilation in rows:
        outputs = int(times * width)
        options: dict[str, Any] = {
            # The one exception in all published networks.
            "activation": "relu" if name == "pmconv6" else "elu",
            "upsample": 2 if name.endswith("upsample") else 1,
        }
        pad = pad_for(kernel, dilation, padding)
        layers[name] = layer(inputs, outputs, kernel, stride, pad, dilation, **options)
        inputs = outputs
    return layers


def to_picture(
    layers: OrderedDict[str, nn.Module], name: str, width: int, padding: str, last: str
) -> nn.Sequential:
    """Append a convolution to three channels, and "tanh" or "clip" to [-1, 1]."""
    activation = "tanh" if last == "tanh" else "identity"
    pad = pad_for(3, 1, padding)
    layers[name] = FusedConv2d(width // 2, 3, 3, padding=pad, activation=activation)
    if last == "clip":
        layers["clip"] = nn.Hardtanh()
    return nn.Sequential(layers)


class Refinement(nn.Module):
    """The second stage: a convolution branch and an attention branch, decoded together.

    Args:
        layer: class of the convolutions.
        inputs: channels of the input.
        width: channels of the generator's first layer.
        padding: "same" or "symmetric".
        attention: the layer in the middle.
        last: of `to_picture`.
    """

    def __init__(
        self,
        layer: Callable[..., nn.Module],
        inputs: int,
        width: int,
        padding: str,
        attention: ContextualAttention,
        last: str,
    ) -> None:
        super().__init__()

        def branch(rows: tuple[Row, ...], inputs: int) -> OrderedDict[str, nn.Module]:
            return chain(layer, rows, inputs, width, padding)

        self.convolution = nn.Sequential(branch(CONVOLUTION, inputs))
        self.before_attention = nn.Sequential(branch(BEFORE_ATTENTION, inputs))
        self.attention = attention
        self.after_attention = nn.Sequential(branch(AFTER_ATTENTION, 4 * width))
        self.decoder = to_picture(branch(MERGED, 8 * width), "allconv17", width, padding, last)

    def forward(self, x: Tensor, hole: Tensor) -> Tensor:
        """(N, inputs, H, W) and (N, 1, H, W) to (N, 3, H, W) in [-1, 1]."""
        features = self.before_attention(x)
        attended, _ = self.attention(features, features, hole)
        merged = stacked(self.convolution(x), self.after_attention(attended))
        y: Tensor = self.decoder(merged)
        return y
