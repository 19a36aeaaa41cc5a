"""Spectral normalisation that computes the normalised weight again only after a change."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from inpaint_ops import checks
from inpaint_ops.ops import tensors
from inpaint_ops.ops.weight_state import Kept


class SpectralNorm(nn.Module):
    """Parametrisation W / sigma(W) by power iteration, v first as in the public ports.

    Each forward pass in training mode does one iteration. Gradients take both vectors as constants.
    In evaluation mode without gradients the quotient is kept until the weight or a vector changes,
    and with it the convolution's packed form of it. (PyTorch's own parametrisation iterates in the
    other order, which gives other numbers until it has converged.) Vectors and quotient are formed
    in float32 at least, under autocast or not; the quotient has the dtype of the weight.

    Args:
        weight: the weight to normalise. On the meta device only shapes are computed.
        dim: the output dimension: 1 for transposed convolutions.
        always: iterate in evaluation mode too, as TensorFlow's and shepnerd's do.

    Source: Miyato et al., ICLR 2018 (arXiv 1802.05957), algorithm 1.
    """

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, *, dim: int = 0, always: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.always = always
        matrix = self._matrix(weight.detach())
        if weight.is_meta:  # shapes only
            u, v = (matrix.new_empty(length) for length in matrix.shape)
        else:
            u = F.normalize(torch.randn_like(matrix[:, 0]), dim=0, eps=1e-12)
            v = F.normalize(matrix.T @ u, dim=0, eps=1e-12)
        self.register_buffer("_u", u)
        self.register_buffer("_v", v)
        # The quotient is the layer's `weight`, which anybody may edit.
        self._kept = Kept(exposed=True)

    def _matrix(self, weight: Tensor) -> Tensor:
        return weight.movedim(self.dim, 0).flatten(1)

    def forward(self, weight: Tensor) -> Tensor:
        """Return the normalised weight, of the same shape."""
        if weight.is_meta:
            return weight.clone()
        # A trace is one for both, with gradients and without.
        recorded = torch.is_grad_enabled() or checks.tracing() is not None
        if not (self.training or self.always or recorded):
            return self._remembered(weight)
        with torch.autocast(weight.device.type, enabled=False):
            if self.training or self.always:
                self._iterate(self._matrix(tensors.compute_dtype(weight.detach())))
            return self._quotient(weight)

    @torch.no_grad()
    def _iterate(self, matrix: Tensor) -> None:
        u = tensors.compute_dtype(self._u)
        v = F.normalize(matrix.T @ u, dim=0, eps=1e-12)
        self._u.copy_(F.normalize(matrix @ v, dim=0, eps=1e-12))
        self._v.copy_(v)

    def _quotient(self, weight: Tensor) -> Tensor:
        # Copies: a second pass before the backward pass overwrites the buffers.
        u, v = (tensors.compute_dtype(x).clone() for x in (self._u, self._v))
        wide = tensors.compute_dtype(weight)
        return (wide / torch.dot(u, self._matrix(wide) @ v)).to(weight.dtype)

    def _remembered(self, weight: Tensor) -> Tensor:
        def quotient() -> tuple[Tensor]:
            with torch.autocast(weight.device.type, enabled=False):
                return (self._quotient(weight),)

        return self._kept.of((weight, self._u, self._v), quotient)[0]

    def extra_repr(self) -> str:
        """Return the options, for printing."""
        return f"dim={self.dim}, always={self.always}"


def spectral(layer: nn.Module, *, dim: int = 0, always: bool = False) -> Any:
    """Put the weight of a layer under spectral normalisation and return the layer."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    parametrize.register_parametrization(
        layer, "weight", SpectralNorm(weight, dim=dim, always=always)
    )
    return layer
