"""Energies that neural patch synthesis minimises: the paper's, and that of the released code."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.losses import total_variation
from inpaint_ops.models.blocks.pictures import hole_box
from inpaint_ops.ops import nearest_patch
from inpaint_ops.reference.nearest_patch import patch_origins

PATCH = 3
PAPER_LAYERS = ("relu3_1", "relu4_1")
RELEASED_LAYERS = ("relu4_1", "relu4_2")


@dataclass(frozen=True)
class Settings:
    """Numbers of the synthesis, explained in `MSNPS`."""

    energy: str = "paper"
    size: int = 512
    levels: int = 3
    iterations: int = 100
    texture_weight: float = 5e-6
    variation_weight: float = 5e-6
    rematch: bool = True
    detach_keys: bool = True
    margin: int = 0


class NoKnownPatch(ValueError):
    """There is no patch without missing pixels to take texture from."""


def cells(hole: Tensor, size: tuple[int, int], margin: int = 0) -> Tensor:
    """Return the hole on a map of features, bool: cells with a missing pixel, and `margin` more.

    Args:
        hole: (1, 1, H, W), sides multiples of those of the map.
        size: of the map.
        margin: cells.
    """
    step = (hole.shape[2] // size[0], hole.shape[3] // size[1])
    found = F.max_pool2d(hole, step)
    return F.max_pool2d(found, 2 * margin + 1, 1, margin) > 0


def _centred(missing: Tensor) -> Tensor:
    """Return which patches have a missing cell in their middle, on the grid of patches.

    A cell on the border of the map is no middle of a patch; it counts for the patch nearest to it.
    """
    moved = missing.clone()
    for axis in (2, 3):
        last = moved.shape[axis] - 1
        for edge, inner in ((0, 1), (last, last - 1)):
            row = moved.select(axis, inner) | moved.select(axis, edge)
            moved.select(axis, inner).copy_(row)
    return moved[:, :, 1:-1, 1:-1]


def _rows(features: Tensor) -> Tensor:
    """Return (1, C, h, w) as (h * w, C)."""
    return features[0].permute(1, 2, 0).reshape(-1, features.shape[1])


def _corners(origins: Tensor, width: int) -> Tensor:
    """Return the flat cells of the upper left corners of dense patches, in a map of that width."""
    columns = width - PATCH + 1
    return (origins // columns) * width + origins % columns


class PaperEnergy:
    """Content in the hole, distance of its feature patches to known ones, and total variation.

    E(x) = sum over the hole of (x - reference)^2 + texture_weight sum over layers of E_t +
    variation_weight sum of squared differences of neighbours, these in 0 ... 255, x in [0, 1];
    E_t = mean over feature patches P_i centred in the hole of |P_i - P_nn(i)|^2, nn(i) the nearest
    of all patches without a missing cell.

    Args:
        features: network with `PAPER_LAYERS`, or others.
        hole: (1, 1, H, W), 1 = missing, sides multiples of 8.
        reference: (1, 3, H, W) in [0, 1].
        settings: of the synthesis.
        unknown: (1, 1, H, W), 1 = no texture is taken from there; None: the hole.

    Raises:
        NoKnownPatch: in none of the layers.

    Source: Yang et al., CVPR 2017 (arXiv 1611.09969), equations 2 to 5.
    """

    def __init__(
        self,
        features: FeatureNetwork,
        hole: Tensor,
        reference: Tensor,
        settings: Settings,
        *,
        unknown: Tensor | None = None,
    ) -> None:
        self.features = features
        self.hole = hole
        self.reference = reference
        self.settings = settings
        self.matches: dict[str, tuple[Tensor, Tensor]] = {}
        # The paper's weights belong to a network for pixels in 0 ... 255. Convolution and ReLU
        # are homogeneous: features of a network for another range are those times a factor.
        rule = features.rule
        unit = 255 * sum(rule.deviation) / 3 / rule.scale
        self.texture_weight = settings.texture_weight * unit**2
        # The variation is of the network's input. With pixels in [0, 1] a weight of 5e-6 beside the
        # content's 1 would do nothing.
        self.variation_weight = settings.variation_weight * 255**2
        self.usable: dict[str, tuple[Tensor, Tensor]] = {}
        for name in features.layers:
            step = 1 << int(name[-3]) - 1
            size = (hole.shape[2] // step, hole.shape[3] // step)
            if min(size) < PATCH:
                continue
            where = _centred(cells(hole, size, settings.margin))
            missing = cells(hole if unknown is None else unknown, size, settings.margin)
            if (F.max_pool2d(missing.float(), PATCH, 1) == 0).any() and where.any():
                self.usable[name] = (~missing, where)
        if not self.usable:
            raise NoKnownPatch("msnps: hole must leave a known patch of features, it leaves none")

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms at a picture (1, 3, H, W) in [0, 1]."""
        content = torch.where(self.hole > 0, x - self.reference, 0.0).square().sum()
        maps = self.features(x)
        texture = torch.stack([self._distance(name, maps[name]) for name in self.usable]).sum()
        variation = total_variation(x, rule="whole", power=2, reduction="sum")
        return {
            "content": content,
            "texture": self.texture_weight * texture,
            "variation": self.variation_weight * variation,
        }

    def _distance(self, name: str, phi: Tensor) -> Tensor:
        if name not in self.matches or self.settings.rematch:
            valid, where = self.usable[name]
            index, _ = nearest_patch(
                phi, phi, valid=valid, where=where, patch_size=PATCH, metric="l2"
            )
            queries = where[0, 0].flatten().nonzero()[:, 0]
            width = phi.shape[3]
            keys = index[0].flatten()[queries]
            self.matches[name] = (_corners(queries, width), _corners(keys, width))
        queries, keys = self.matches[name]
        rows = _rows(phi)
        known = rows.detach() if self.settings.detach_keys else rows
        total = rows.new_zeros(())
        for down in range(PATCH):
            for right in range(PATCH):
                offset = down * phi.shape[3] + right
                total = total + (rows[queries + offset] - known[keys + offset]).square().sum()
        return total / len(queries)


def donor_rows(size: int, start: int, stop: int) -> list[int]:
    """Return the known row that replaces each row start ... stop - 1 of an image of `size` rows.

    Rows from above the box come first, rows from below it last. A gap between them repeats the rows
    above.
    """
    above, length = start, stop - start
    first = list(range(min(above, length)))
    last = list(range(stop, size))[-(length - len(first)) :] if length > len(first) else []
    gap = length - len(first) - len(last)
    source = range(above) if above else range(stop, size)
    if not source:
        raise NoKnownPatch("msnps: hole must leave a known row above or below, it leaves none")
    middle = [source[(i - gap) % len(source)] for i in range(gap)]
    return first + middle + last


def overwritten(image: Tensor, hole: Tensor, margin: int) -> Tensor:
    """Return the image with known rows copied over the hole's box and `margin` pixels more.

    Source: leehomyc/Faster-High-Res-Neural-Inpainting: run_texture_optimization.lua, whose box and
    rows these are for its hole in the middle of 512 x 512 pixels.
    """
    box = hole_box(hole[0])
    if box is None:
        return image
    height, width = image.shape[2:]
    top, bottom = max(box[0] - margin, 0), min(box[2] + margin, height)
    left, right = max(box[1] - margin, 0), min(box[3] + margin, width)
    rows = donor_rows(height, top, bottom)
    result = image.clone()
    result[:, :, top:bottom, left:right] = image[:, :, rows, left:right]
    return result


def turned(image: Tensor, angle: float, scale: float) -> Tensor:
    """Return the image turned, cut to the largest rectangle of its proportions, and resized."""
    height, width = image.shape[2:]
    c, s = math.cos(angle), abs(math.sin(angle))
    inner = min(width / (width * c + height * s), height / (height * c + width * s))
    size = [1, 3, max(8, round(height * inner * scale)), max(8, round(width * inner * scale))]
    s = math.sin(angle)
    ratio = height / width
    theta = torch.tensor([[[c * inner, -s * inner * ratio, 0], [s * inner / ratio, c * inner, 0]]])
    grid = F.affine_grid(theta.to(image), size, align_corners=False)
    return F.grid_sample(image, grid, padding_mode="border", align_corners=False)


class ReleasedEnergy:
    """The energy of the released code: features of the whole picture, fixed matches by cosine.

    20 mean (phi - phi(content))^2 at relu4_2, plus 1e-4 / 2 sum |phi - T|^2 at relu4_1, T the mean
    of the matched patches that cover a cell, plus 1e-4 / 2 of the squared variation, at pixels in
    the units of the network's input. Its gradients are those of the code, which has no energy
    itself. Patches, every second one and the last, are taken from nine turned and scaled copies of
    the picture whose hole is overwritten with known rows. Matches are made at the first evaluation
    of a scale.

    Args:
        features: network with `RELEASED_LAYERS`.
        content: (1, 3, H, W) in [0, 1], the hole filled.
        style: the same size, the hole overwritten.

    Source: leehomyc/Faster-High-Res-Neural-Inpainting: transfer_CNNMRF_wrapper.lua, mylib/mrf.lua,
    mylib/content.lua, mylib/tv.lua.
    """

    content_weight = 20.0
    texture_weight = 1e-4
    variation_weight = 1e-4
    # Pixels times this are the optimiser's variables; its steps depend on the unit.
    scale = 256.0

    def __init__(self, features: FeatureNetwork, content: Tensor, style: Tensor) -> None:
        self.features = features
        with torch.no_grad():
            self.reference = features(content)["relu4_2"]
            self.keys = [
                features(turned(style, angle, size))["relu4_1"]
                for angle in (-math.pi / 24, 0.0, math.pi / 24)
                for size in (1 / 1.05, 1.0, 1.05)
            ]
        self.target: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> dict[str, Tensor]:
        """Return the weighted terms at a picture (1, 3, H, W) in [0, 1]."""
        maps = self.features(x)
        phi = maps["relu4_1"]
        if self.target is None:
            self.target = self._match(phi.detach())
        target, covered = self.target
        pixels = x * self.scale
        here = pixels[:, :, :-1, :-1]
        steps = (here - pixels[:, :, :-1, 1:]).square() + (here - pixels[:, :, 1:, :-1]).square()
        pull = torch.where(covered, phi - target, 0.0).square().sum()
        return {
            "content": self.content_weight * F.mse_loss(maps["relu4_2"], self.reference),
            "texture": self.texture_weight / 2 * pull,
            "variation": self.variation_weight / 2 * steps.sum(),
        }

    def _match(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean of the matched patches at each cell, and the cells they cover."""
        keys = [key for key in self.keys if min(key.shape[2:]) >= PATCH]
        if not keys or min(phi.shape[2:]) < PATCH:
            raise NoKnownPatch("msnps: picture must have a patch of features, it is smaller")
        found = [nearest_patch(phi, key, patch_size=PATCH, stride=2, key_stride=2) for key in keys]
        best = torch.stack([score for _, score in found]).max(0)
        corner = _grid_corners(phi)
        total, count = torch.zeros_like(_rows(phi)), phi.new_zeros(phi[0, 0].numel(), 1)
        for copy, (key, (index, _)) in enumerate(zip(keys, found)):
            # A score of 0 belongs to a patch of zeros, which is no target.
            mine = ((best.indices == copy) & (best.values > 0)).flatten()
            source = _grid_corners(key)[index.flatten()[mine]]
            for down in range(PATCH):
                for right in range(PATCH):
                    patch = _rows(key)[source + down * key.shape[3] + right]
                    place = corner[mine] + down * phi.shape[3] + right
                    total.index_add_(0, place, patch)
                    count.index_add_(0, place, torch.ones_like(patch[:, :1]))
        mean = (total / count.clamp(min=1)).T.reshape(phi.shape)
        return mean, (count > 0).view(1, 1, *phi.shape[2:])


def _grid_corners(features: Tensor) -> Tensor:
    """Return the flat upper left cells of every second patch and the last."""
    rows, columns = (
        torch.tensor(patch_origins(side, PATCH, 2), device=features.device)
        for side in features.shape[2:]
    )
    return (rows[:, None] * features.shape[3] + columns).flatten()
