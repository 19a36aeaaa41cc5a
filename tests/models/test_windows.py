"""`complete` in windows: holes of all kinds in pictures that no window holds whole."""

import pytest
import torch
import torch.nn.functional as F
from model_cases import picture, small
from torch import nn

from inpaint_ops.models import InpaintingModel, list_models
from inpaint_ops.models.holes import Holes, Rect
from inpaint_ops.models.windows import Windows

SIDE = 64
SIZE = (200, 150)


class StandIn(InpaintingModel):
    """Fills each missing pixel with the mean of the known ones; notes what it is given."""

    name = "stand_in"
    multiple = 4
    minimum = 8
    trained_size = SIDE
    completion_networks = ("generator",)

    def __init__(self):
        super().__init__()
        self.generator = nn.Conv2d(1, 1, 1)
        self.seen = []

    def _fill(self, image, hole, *, seed):
        self.seen.append((image, hole))
        known = (hole == 0).to(image.dtype)
        # Where all is missing, what 0 / 0 is not.
        mean = (image * known).sum((2, 3), keepdim=True) / known.sum((2, 3), keepdim=True).clamp(1)
        return mean.expand_as(image)


class Nearest(StandIn):
    """Spreads known pixels into the hole, one pixel a step."""

    def _fill(self, image, hole, *, seed):
        self.seen.append((image, hole))
        known = (hole == 0).to(image.dtype)
        x = image * known
        while known.any() and not known.all():
            count = F.avg_pool2d(known, 3, 1, 1)
            mean = F.avg_pool2d(x, 3, 1, 1) / count.clamp(1e-6)
            x = torch.where(known > 0, x, torch.where(count > 0, mean, 0.0))
            known = (count > 0).to(image.dtype)
        return x


def holes(h, w):
    """Masks by name."""

    def mask(*boxes):
        zero = torch.zeros(1, 1, h, w)
        for top, left, bottom, right in boxes:
            zero[..., top:bottom, left:right] = 1
        return zero

    points = torch.zeros(h, w)
    points[5::37, 3::29] = 1
    line = torch.eye(h, w) + torch.eye(h, w).roll(1, 1)
    line[0, -1] = 0
    return {
        "points": points[None, None],
        "a corner": mask((h - 9, w - 20, h, w)),
        "two sides": mask((40, 0, 60, 7), (0, 80, 4, 110)),
        "a scratch": line[None, None],
        "a square": mask((50, 30, 130, 120)),
        "a square at the edge": mask((100, 60, h, w)),
        "everything": mask((0, 0, h, w)),
        "all but one": 1 - mask((70, 70, 71, 71)),
        "much and little": mask((0, 0, 100, 100), (150, 20, 160, 30), (190, 140, 200, 150)),
    }


NAMES = list(holes(8, 8))


@pytest.mark.parametrize("kind", [StandIn, Nearest])
@pytest.mark.parametrize("name", NAMES)
def test_holes_are_filled_and_known_pixels_kept(name, kind):
    model = kind()
    image, hole = picture(1, 3, *SIZE), holes(*SIZE)[name]
    missing = (hole > 0).expand_as(image)
    damaged = image.masked_fill(missing, float("nan"))
    result = model.complete(damaged, hole, window="auto")
    assert torch.equal(result[~missing], image[~missing])
    assert bool(((result >= 0) & (result <= 1)).all())
    assert torch.equal(result, model.complete(damaged, hole, window=SIDE))
    if name != "everything":
        assert bool((result[missing] > 0).all())
