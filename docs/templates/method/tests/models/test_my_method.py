"""my_method: what is special about it; test_models.py holds what all methods have in common."""

import torch
from model_cases import box, picture, small


def test_the_hole_is_not_looked_at():
    """Whatever the hole holds, the completion is the same."""
    model = small("my_method")
    image, hole = picture(1, 3, 16, 16), box(1, 16, 16)
    dirty = torch.where(hole, float("nan"), image)
    assert torch.equal(model.generate(dirty, hole), model.generate(image, hole))
