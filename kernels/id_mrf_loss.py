"""id_mrf_loss on GPUs: strips of generated positions against all targets.

The library multiplies unit vectors in float32. A strip has whole rows, so its softmax over targets
needs no other strip; only the best of each target is carried from strip to strip. The backward pass
forms the strips again. A strip takes `products.STRIP_BYTES`, or what 64 rows need: memory grows
with the number of positions.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.kernels import products
from inpaint_ops.kernels.attention.similarities import BEST, COLUMNS, ROWS, SOFTMAX
from inpaint_ops.kernels.attention.similarities_backward import BACKWARD
from inpaint_ops.kernels.products import product
from inpaint_ops.kernels.program import batches, cdiv

_MIN_ROWS = 64


class _Vectors:
    """Unit vectors of both maps, (N, P, C); targets are padded to whole groups of 16."""

    def __init__(self, generated: Tensor, target: Tensor, exclude_self: bool) -> None:
        self.generated = generated.flatten(2).mT
        target = target.flatten(2).mT
        self.n, self.positions, _ = target.shape
        self.groups = cdiv(self.positions, 16)
        self.target = F.pad(target, (0, 0, 0, 16 * self.groups - self.positions))
        # Without another target the nearest is measured by itself.
        self.exclude = exclude_self and self.positions > 1

    def strips(self) -> Iterator[tuple[int, Tensor]]:
        """Strips of generated positions: first position, cosines (N, rows, 16 groups)."""
        row_bytes = 4 * self.n * 16 * self.groups
        step = max(_MIN_ROWS, products.STRIP_BYTES // max(row_bytes, 1))
        for first in range(0, self.positions, step):
            yield first, product(self.generated[:, first : first + step], self.target.mT)

    def blocks(self, strip: Tensor) -> tuple[int, int]:
        """Grid of a kernel over a strip's rows."""
        return cdiv(strip.shape[1], ROWS), self.n

    def sizes(self, strip: Tensor) -> dict[str, Any]:
        """Sizes that every kernel takes."""
        return {"rows": strip.shape[1], "positions": self.positions, "groups": self.groups}


def forward(
    generated: Tensor, target: Tensor, bandwidth: float, eps: float, exclude_self: bool
) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator; both maps hold unit vectors.

    Loss of each sample, and the best generated position of each target.
    """
    samples = list(batches(len(target)))
    if len(samples) > 1:
        options = (bandwidth, eps, exclude_self)
        parts = [forward(generated[part], target[part], *options) for part in samples]
        return torch.cat([one[0] for one in parts]), torch.cat([one[1] for one in parts])
    vectors = _Vectors(generated, target, exclude_self)
    best = target.new_full((vectors.n, vectors.positions), -1.0)
    choice = torch.zeros_like(best, dtype=torch.int64)
    for first, strip in vectors.strips():
        sizes = vectors.sizes(strip)
        SOFTMAX(
            "fp32",
            vectors.blocks(strip),
            strip_ptr=strip,
            **sizes,
            bandwidth=bandwidth,
            eps=eps,
            EXCLUDE=vectors.exclude,
        )
        BEST(
            "fp32",
            (cdiv(vectors.positions, COLUMNS), vectors.n),
            strip_ptr=strip,
            best_ptr=best,
            choice_ptr=choice,
            first=first,
            **sizes,
        )
    return -best.mean(1).log(), choice


def backward(
    grad: Tensor,
    generated: Tensor,
    target: Tensor,
    loss: Tensor,
    choice: Tensor,
    bandwidth: float,
    eps: float,
    exclude_self: bool,
) -> tuple[Tensor, Tensor]:
    """Arguments and results of the registered operator.

    Gradients of both maps; sums over strips are formed in order.
    """
    samples = list(batches(len(target)))
    if len(samples) > 1:
        options = (bandwidth, eps, exclude_self)
        parts = [
            backward(grad[i], generated[i], target[i], loss[i], choice[i], *options)
            for i in samples
        ]
        return torch.cat([one[0] for one in parts]), torch.cat([one[1] for one in parts])
    vectors = _Vectors(generated, target, exclude_self)
    grad_generated = torch.empty_like(vectors.generated)
    grad_target = torch.zeros_like(vectors.target)
    grad_best = -grad / ((-loss).exp() * vectors.positions)
    for first, strip in vectors.strips():
        BACKWARD(
            "fp32",
            vectors.blocks(strip),
            strip_ptr=strip,
            choice_ptr=choice,
            grad_best_ptr=grad_best,
            first=first,
            **vectors.sizes(strip),
            bandwidth=bandwidth,
            eps=eps,
            EXCLUDE=vectors.exclude,
        )
        last = first + strip.shape[1]
        grad_generated[:, first:last] = product(strip, vectors.target)
        grad_target += product(strip.mT, vectors.generated[:, first:last])
    return _map(grad_generated, generated), _map(grad_target[:, : vectors.positions], target)


def _map(vectors: Tensor, like: Tensor) -> Tensor:
    """(N, C, H, W) from (N, P, C), and no view of memory in another shape."""
    result = torch.empty_like(like, memory_format=torch.contiguous_format)
    result.flatten(2).copy_(vectors.mT)
    return result
