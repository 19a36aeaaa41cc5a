"""Boxes of holes, and the squares around them that critics of several methods see."""

import torch

from inpaint_ops.models.blocks.pictures import cut_squares, hole_box, hole_squares


def test_box_of_a_hole():
    hole = torch.zeros(1, 20, 30)
    assert hole_box(hole) is None
    hole[:, 3:7, 10:12] = 1
    hole[:, 8, 25] = 1
    assert hole_box(hole) == (3, 10, 9, 26)


def test_squares_lie_around_the_holes():
    hole = torch.zeros(4, 1, 64, 64)
    hole[0, :, 20:40, 30:36] = 1
    hole[1, :, :4, 60:] = 1
    hole[2] = 1
    assert hole_squares(hole, 32) == [(14, 17), (0, 32), (16, 16), (16, 16)]
    assert hole_squares(hole, 64) == [(0, 0)] * 4
    # Odd sides: one pixel more after the middle.
    assert hole_squares(hole, 31) == [(15, 18), (0, 33), (17, 17), (17, 17)]


def test_squares_are_cut_inside_the_picture():
    image = torch.arange(40 * 50.0).view(1, 1, 40, 50).expand(3, 1, 40, 50)
    hole = torch.zeros(3, 1, 40, 50)
    hole[0, :, 18:22, 20:30] = 1
    hole[1, :, :3, 45:] = 1
    corners = hole_squares(hole, 16)
    assert corners == [(12, 17), (0, 34), (12, 17)]
    for square, (top, left) in zip(cut_squares(image, corners, 16), corners):
        assert torch.equal(square[0], image[0, 0, top : top + 16, left : left + 16])
