"""Shift connection that also looks into the mirrored picture, of Shift-Net's models for faces."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.layers import reduce_hole
from inpaint_ops.models.blocks.pictures import stacked
from inpaint_ops.ops import nearest_patch

RULES = ("port", "exact")


class MirroredShift(nn.Module):
    """[D | E] -> [D | E | N]: N from the known features of the picture or of its mirror image.

    D is the decoder's feature, E the encoder's and M the encoder's of the picture mirrored left to
    right, at the positions of the mirrored grid. Every p in the hole asks for the known position of
    E and for that of M whose cosine with D_p is largest, q(p) and m(p); the better of the two wins,
    E where they are equal. A position of M is known where the mirrored hole is 0.

    "exact" is the rule that was meant: N_p = E_q(p) or M_m(p), and the gradient of N flows to the
    source of the feature.

    "port" is the rule that trained the published weights, checked by running that code:

    * The k-th position of the hole asks M not with its own D but with D at the k-th position of the
      mirrored hole (row by row). For holes that are their own mirror image this is the same.
    * Every winner is paired with every source: N_p is the sum of E_q over all positions q that any
      p of the hole asked for, or the sum of M_m: one and the same vector for all p.
    * Position 0 is never filled, nor is a hole of one position.
    * The gradient of N flows to E alone, that of the mirrored sum to the same positions as if M
      were E.

    Where a vector is zero, nothing is known or the hole is empty, the rules of `shift_connection`
    hold; the port fails or gives NaN there. It takes one picture at a time, this layer any number.

    Args:
        rule: "port" or "exact".

    Source: Zhaoyi-Yan/Shift-Net_pytorch: models/face_shift_net (InnerFaceShiftTriple).
    """

    def __init__(self, rule: str) -> None:
        super().__init__()
        checks.check_choice("MirroredShift", "rule", rule, RULES)
        self.rule = rule

    def forward(self, x: Tensor, mirrored: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Shift.

        Args:
            x: (N, 2 C, h, w), decoder feature first, encoder feature second, both after ReLU.
            mirrored: (N, C, h, w), encoder feature of the mirrored picture after ReLU.
            hole: (N or 1, 1, H, W), 1 = missing, of the picture itself.

        Returns:
            y: (N, 3 C, h, w), x followed by N.
            index: (N, h, w) int64, the winner: flat position in E, or h w plus that in M; -1 where
                nothing was asked for or is known.
        """
        decoder, encoder = x.chunk(2, 1)
        n, _, h, w = decoder.shape
        missing = reduce_hole(hole, (h, w)).expand(n, 1, h, w)
        own, own_score = nearest_patch(
            decoder, encoder, valid=~missing, where=missing, patch_size=1
        )
        asking = missing if self.rule == "exact" else missing.flip(3)
        other, other_score = nearest_patch(
            decoder, mirrored, valid=~missing.flip(3), where=asking, patch_size=1
        )
        if self.rule == "port":
            other, other_score = (_reordered(t, asking, missing) for t in (other, other_score))
        # Without a match the index is -1 and the score -inf, on both sides.
        turned = other_score > own_score
        index = torch.where(turned, h * w + other, own)
        combine = _paired if self.rule == "exact" else _summed
        shifted = combine(encoder, mirrored, own.flatten(1), other.flatten(1), turned.flatten(1))
        return stacked(decoder, encoder, shifted.view_as(decoder)), index

    def extra_repr(self) -> str:
        """Options, for printing."""
        return f"rule={self.rule!r}"


def _reordered(values: Tensor, asking: Tensor, missing: Tensor) -> Tensor:
    """Move the k-th value where `asking` is set to the k-th place where `missing` is, (N, h, w)."""
    places = torch.arange(asking[0].numel(), device=asking.device).expand_as(asking.flatten(1))
    source = places.scatter(1, _ranks(asking), places)
    return values.flatten(1).gather(1, source.gather(1, _ranks(missing))).view_as(values)


def _ranks(mask: Tensor) -> Tensor:
    """Return each place's rank, (N, h w), among those where the mask is set, then among others."""
    chosen = mask.flatten(1).long()
    others = chosen.sum(1, keepdim=True) + (1 - chosen).cumsum(1)
    return torch.where(chosen > 0, chosen.cumsum(1), others) - 1


def _paired(
    encoder: Tensor, mirrored: Tensor, own: Tensor, other: Tensor, turned: Tensor
) -> Tensor:
    """Return the features at the winners, (N, C, h w), 0 without one; indices are (N, h w)."""

    def at(feature: Tensor, index: Tensor) -> Tensor:
        places = index.clamp_min(0)[:, None].expand(-1, feature.shape[1], -1)
        return feature.flatten(2).gather(2, places)

    picked = torch.where(turned[:, None], at(mirrored, other), at(encoder, own))
    return torch.where((own >= 0)[:, None], picked, picked.new_zeros(()))


def _summed(
    encoder: Tensor, mirrored: Tensor, own: Tensor, other: Tensor, turned: Tensor
) -> Tensor:
    """Return the same as `_paired` by the port's index arithmetic."""

    def total(feature: Tensor, index: Tensor) -> Tensor:
        asked = torch.zeros_like(index).scatter_add_(1, index.clamp_min(0), (index >= 0).long())
        flat = feature.flatten(2)
        return torch.where((asked > 0)[:, None], flat, flat.new_zeros(())).sum(2, keepdim=True)

    filled = own >= 0
    filled = filled & (filled.sum(1, keepdim=True) > 1)
    filled[:, 0] = False
    # The value is the mirrored features', the derivative the encoder's at the same positions.
    lent = total(encoder, other)
    reflected = total(mirrored.detach(), other) + (lent - lent.detach())
    sums = torch.where(turned[:, None], reflected, total(encoder, own))
    return torch.where(filled[:, None], sums, sums.new_zeros(()))
