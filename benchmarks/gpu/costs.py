"""Operations, bytes and launches of the ways to compute a convolution layer."""

from __future__ import annotations

from dataclasses import dataclass

from inpaint_ops.benchmarks.cases.conv_layers import Layer

# Of the library's usual speed, in transposed convolutions.
_TRANSPOSED_SHARE = 0.8


@dataclass(frozen=True)
class Cost:
    """Cost of one way to compute a layer.

    Args:
        operations, product: of the product, and the bytes that it moves.
        passes: bytes that the passes before and after it move.
        launches: of kernels.
        share: of the library's usual speed that it has in this product.
        layer: whose convolution the library forms; None: another product.
    """

    operations: float
    product: float
    passes: float
    launches: int
    share: float = 1.0
    layer: Layer | None = None

    @property
    def moved(self) -> float:
        """Bytes of all kernels."""
        return self.product + self.passes


def elements(layer: Layer, batch: int) -> dict[str, float]:
    """Numbers in each tensor of a layer."""
    out = layer.out_size**2 * batch
    x = float(batch * layer.channels * layer.size**2)
    return {
        "x": x,
        "read": x * layer.upsample**2,
        "w": float(layer.channels * layer.filters * layer.kernel**2),
        "pre_activation": float(layer.filters * out),
        "y": float(layer.out * out),
        "mask": float(batch * layer.size**2),
    }


def _prologue(layer: Layer, e: dict[str, float]) -> tuple[float, int]:
    """Elements moved and kernels launched by the public formula before the convolution."""
    moved, launches = 0.0, 0
    if layer.upsample > 1:
        moved, launches = moved + e["x"] + e["read"], launches + 1
    if layer.padding_mode != "zeros":
        moved, launches = moved + 2 * e["read"], launches + 1
    if layer.op == "partial":
        # Masking x, the mask's own convolution, mask ratio and updated mask.
        moved, launches = moved + 2 * e["x"] + e["mask"] * 4, launches + 5
    return moved, launches


def eager(layer: Layer, e: dict[str, float], operations: float, size: int) -> Cost:
    """Cost of the public formula, a kernel for each step."""
    moved, launches = _prologue(layer, e)
    product = e["read"] + e["w"] + e["pre_activation"]
    moved, launches = moved + 2 * e["pre_activation"], launches + 2  # with the bias
    if layer.op == "gated":
        # Activation, sigmoid, product.
        moved, launches = moved + 2 * e["y"] + 2 * e["y"] + 3 * e["y"], launches + 3
    elif layer.op == "partial":
        moved, launches = moved + 4 * e["y"], launches + 2
    elif layer.activation != "identity":
        moved, launches = moved + 2 * e["y"], launches + 1
    return Cost(operations, product * size, moved * size, launches, _share(layer), layer)


def _share(layer: Layer) -> float:
    return _TRANSPOSED_SHARE if layer.op == "transposed" else 1.0


def compiled(layer: Layer, e: dict[str, float], operations: float, size: int) -> Cost:
    """Cost where each chain of elementwise passes is one and the convolution's result is stored."""
    product, moved, launches = e["read"] + e["w"] + e["pre_activation"], 0.0, 2
    if layer.upsample > 1 or layer.padding_mode != "zeros" or layer.op == "partial":
        moved, launches = moved + e["x"] + e["read"], launches + 1
    if layer.op == "partial":
        moved, launches = moved + 4 * e["mask"], launches + 2
    moved += e["pre_activation"] + e["y"]
    return Cost(operations, product * size, moved * size, launches, _share(layer), layer)


def _doubled(layer: Layer) -> bool:
    """Whether it is four 2x2 convolutions of the small image."""
    return layer.upsample == 2 and layer.kernel == 3


def library(layer: Layer, e: dict[str, float], operations: float, size: int) -> Cost:
    """Cost of the library's product and one pass of ours after it."""
    read, share, moved, launches = e["read"], _share(layer), 0.0, 2
    masks = 2 * e["mask"] if layer.op == "partial" else 0.0
    if _doubled(layer) and layer.padding_mode == "zeros":
        read, share = e["x"], _TRANSPOSED_SHARE
        operations *= 4 / 9
    elif layer.upsample > 1 or layer.padding_mode != "zeros":
        moved, launches = moved + e["x"] + e["read"], launches + 1
    if layer.op == "partial":
        moved, launches = moved + 2 * e["x"] + masks, launches + 2
    product = read + e["w"] + e["pre_activation"]
    moved += e["pre_activation"] + e["y"]
    return Cost(operations, product * size, moved * size, launches, share, layer)


def fused(layer: Layer, e: dict[str, float], operations: float, size: int) -> Cost:
    """Cost of the fused kernel; `loops` knows its time."""
    masks = 2 * e["mask"] if layer.op == "partial" else 0.0
    operations *= 4 / 9 if _doubled(layer) else 1.0
    return Cost(operations, (e["x"] + e["w"] + e["y"] + masks) * size, 0.0, 1)
