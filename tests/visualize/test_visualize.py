"""Pictures of holes, matches, features and masks: their pixels, not only their sizes."""

import math
import sys

import numpy as np
import pytest
import torch
from torch import nn

import inpaint_ops
from inpaint_ops import visualize
from inpaint_ops.compat.naoto0804 import PConvUNet
from inpaint_ops.layers import PartialConv2d, flow_picture
from inpaint_ops.models import create_model
from inpaint_ops.reference import partial_conv2d


def pixels(picture):
    """(H, W, 3) int."""
    assert picture.mode == "RGB"
    return np.array(picture).astype(int)


def box(h, w, top, left, bottom, right):
    hole = torch.zeros(1, 1, h, w)
    hole[..., top:bottom, left:right] = 1
    return hole


def test_overlay_mixes_the_colour_in_the_hole_and_leaves_the_rest():
    image = torch.full((1, 3, 4, 6), 0.2)
    image[..., 0] = math.nan
    shown = pixels(visualize.hole_overlay(image, box(4, 6, 1, 2, 3, 5), opacity=0.5))
    assert shown.shape == (4, 6, 3)
    assert (shown[:, 0] == 0).all()
    assert (shown[0, 1:] == 51).all()
    assert (shown[1:3, 2:5] == np.array([153, 26, 153])).all()  # (0.2 + colour) / 2


def test_overlay_takes_valid_pixels_grey_pictures_and_batches():
    image = torch.rand(2, 1, 5, 7)
    hole = torch.rand(2, 1, 5, 7) > 0.5
    shown = visualize.hole_overlay(image, hole, colour=(1, 0.5, 0), opacity=1)
    assert shown.size == (2 * 7 + 2, 5)
    values = pixels(shown)
    assert (values[:, 7:9] == 255).all()
    for number, left in enumerate((0, 9)):
        part, missing = values[:, left : left + 7], hole[number, 0].numpy()
        assert (part[missing] == np.array([255, 128, 0])).all()
        grey = (image[number, 0] * 255).round().int().numpy()
        assert (part[~missing] == grey[~missing][:, None]).all()
    same = visualize.hole_overlay(image, valid=~hole, colour=(1, 0.5, 0), opacity=1)
    assert (pixels(same) == values).all()


def test_map_of_a_copy_problem():
    """Attention finds the period of a pattern; the map has the colour of that way."""
    torch.manual_seed(0)
    features = torch.randn(1, 16, 8, 8).repeat(1, 1, 1, 2)
    hole = box(8, 16, 2, 9, 6, 13)
    _, index = inpaint_ops.shift_connection(features, features, hole)
    assert torch.equal(index[hole[:, 0] > 0] % 16, index.new_tensor([1, 2, 3, 4] * 4))
    shown = pixels(visualize.match_map(index, cell=3))
    assert shown.shape == (24, 48, 3)
    inside = np.kron(hole[0, 0].numpy() > 0, np.ones((3, 3))) > 0
    assert (shown[~inside] == 191).all()
    # All ways are 8 to the left, the greatest length.
    assert len(np.unique(shown[inside].reshape(-1, 3), axis=0)) == 1
    way = torch.zeros(1, 8, 16, dtype=torch.int64) + torch.arange(128).view(8, 16)
    way[:, :, 8:] -= 8
    expected = (flow_picture(way, 16)[0, :, 0, 8] * 255).int().numpy()
    assert (shown[inside][0] == expected).all()


def test_map_of_cells_that_are_their_own_source_is_white():
    index = torch.arange(12).view(1, 3, 4)
    assert (pixels(visualize.match_map(index)) == 255).all()
    hole = box(3, 4, 0, 0, 1, 1)
    shown = pixels(visualize.match_map(index, hole=hole, cell=1))
    assert (shown[0, 0] == 255).all()
    assert (shown.reshape(-1, 3)[1:] == 191).all()


def test_map_counts_on_the_grid_of_keys():
    x = torch.randn(1, 4, 6, 6)
    index, _ = inpaint_ops.nearest_patch(x[..., :4], x, patch_size=3)
    assert index.shape == (1, 4, 2)
    shown = pixels(visualize.match_map(index, keys=(4, 4), cell=1))
    assert (shown == 255).all()
    with pytest.raises(ValueError, match=r"4 x 2 keys, got \d+; give keys=\(rows, columns\)"):
        visualize.match_map(index)


def test_arrows_go_from_source_to_cell():
    image = torch.zeros(1, 3, 40, 80)
    index = torch.full((1, 4, 8), -1)
    index[0, 2, 6] = 2 * 8 + 1  # from column 1, in the same row
    shown = pixels(visualize.match_arrows(image, index, every=1))
    drawn = shown.any(-1)
    rows, columns = np.nonzero(drawn)
    assert set(rows) <= {24, 25, 26}
    assert columns.min() == 15
    assert columns.max() == 66
    assert drawn[25, 15:66].all()
    colour = pixels(visualize.match_map(index, cell=1))[2, 6]
    assert (shown[25, 40] == colour).all()
    # Neither a row nor a column of every third cell.
    assert not pixels(visualize.match_arrows(image, index, every=5)).any()


def test_grid_of_features():
    x = torch.zeros(2, 3, 2, 2)
    x[1, 0] = torch.tensor([[0.0, 1.0], [2.0, 4.0]])
    x[1, 1] = 7.0
    x[1, 2] = torch.tensor([[-1.0, math.nan], [math.inf, 1.0]])
    shown = pixels(visualize.feature_grid(x, sample=1, columns=2, scale=2))
    assert shown.shape == (10, 10, 3)
    assert shown[::2, ::2, 0][:2, :2].tolist() == [[0, 64], [128, 255]]
    assert (shown[:4, 6:] == 0).all()  # constant
    assert (shown[:4, 4:6] == 255).all()  # gap
    assert shown[6:, :4, 0][::2, ::2].tolist() == [[0, 0], [0, 255]]
    assert (shown[6:, 6:] == 255).all()  # no fourth map
    shared = pixels(visualize.feature_grid(x, sample=1, columns=3, shared=True))
    assert shared[:, :2, 0].tolist() == [[32, 64], [96, 159]]
    assert (shared[:, 4:6] == 255).all()
    assert pixels(visualize.feature_grid(x, most=1)).shape == (2, 2, 3)


def chain():
    torch.manual_seed(0)

    class Chain(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = PartialConv2d(3, 4, 5, 2, 2, return_mask=True)
            self.second = PartialConv2d(4, 4, 3, 1, 1, return_mask=True)

        def forward(self, x, valid):
            return self.second(*self.first(x, valid))

    return Chain()


def test_updated_masks_are_those_of_the_reference():
    model = chain()
    image, hole = torch.rand(1, 3, 24, 32), box(24, 32, 4, 6, 20, 30)
    masks = visualize.updated_masks(model, image, hole)
    assert list(masks) == ["first", "second"]
    valid = 1 - hole
    for layer, mask in zip((model.first, model.second), masks.values()):
        x = torch.zeros(1, layer.in_channels, *valid.shape[2:])
        options = {"stride": layer.stride, "padding": layer.padding}
        _, valid = partial_conv2d(x, valid, layer.weight, layer.bias, **options)
        assert torch.equal(mask, valid)
    assert 0 < float(masks["first"].mean()) < float(masks["second"].mean()) < 1
    assert not model.first._forward_hooks


def test_updated_masks_of_the_method():
    torch.manual_seed(0)
    model = create_model("partial_conv_unet", base_channels=4, levels=5).train()
    image, hole = torch.rand(1, 3, 64, 64), box(64, 64, 4, 4, 60, 60)
    masks = visualize.updated_masks(model, image, hole)
    assert model.training
    assert list(masks) == [
        *(f"generator.encoder.{i}" for i in range(5)),
        *(f"generator.decoder.{i}" for i in reversed(range(5))),
    ]
    # A 7 x 7 window of stride 2 that sees a known pixel: those of the first 4 and last 4 pixels.
    first = masks["generator.encoder.0"][0, 0]
    assert first.shape == (32, 32)
    middle = first[4:28, 4:28]
    assert float(middle.sum()) == 0
    assert bool((first[:3] == 1).all())
    assert bool((masks["generator.encoder.4"] == 1).all())


def test_updated_masks_of_a_port():
    model = PConvUNet(layer_size=5)
    masks = visualize.updated_masks(
        model, torch.rand(1, 3, 32, 32), box(32, 32, 8, 8, 24, 24), multi_channel=True
    )
    assert next(iter(masks)).startswith("enc_1")
    assert masks["dec_1.conv"].shape == (1, 3, 32, 32)


def test_mask_updates_are_drawn_in_order():
    masks = {"a": torch.tensor([[[[0.0, 1.0]]]]), "b": torch.tensor([[[[1.0]], [[0.0]]]])}
    shown = pixels(visualize.mask_updates(masks, side=4))
    assert shown.shape == (4, 8 + 2 + 8, 3)
    assert (shown[:, :4] == 0).all()
    assert (shown[:, 4:8] == 255).all()
    assert (shown[:, 8:10] == 128).all()
    assert (shown[:, 10:14] == 128).all()  # the mean of two channels
    many = {str(number): torch.ones(1, 1, 4, 4) for number in range(9)}
    assert visualize.mask_updates(many, side=4).size == (8 * 6 - 2, 10)


IMAGE, HOLE = torch.rand(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)
INDEX = torch.zeros(1, 4, 4, dtype=torch.int64)
WRONG = [
    (visualize.hole_overlay, (IMAGE,), {}, ValueError, "either hole .* or valid"),
    (visualize.hole_overlay, (IMAGE, HOLE), {"valid": HOLE}, ValueError, "either hole"),
    (visualize.hole_overlay, (IMAGE[0], HOLE), {}, ValueError, "image must have shape"),
    (visualize.hole_overlay, (IMAGE, HOLE + 0.5), {}, ValueError, "hole must hold only 0 and 1"),
    (visualize.hole_overlay, (IMAGE, HOLE), {"colour": "red"}, TypeError, "colour must be three"),
    (visualize.hole_overlay, (IMAGE, HOLE), {"colour": (255, 0, 0)}, ValueError, "in .0, 1., got"),
    (visualize.hole_overlay, (IMAGE, HOLE), {"opacity": 2}, ValueError, "opacity must be in"),
    (visualize.match_map, (INDEX.int(),), {}, TypeError, "index must be an int64 Tensor"),
    (visualize.match_map, (INDEX[0],), {}, ValueError, "index must have shape"),
    (visualize.match_map, (INDEX - 2,), {}, ValueError, "index must be -1 or a position"),
    (visualize.match_map, (INDEX,), {"keys": 3}, TypeError, "keys must be rows and columns"),
    (visualize.match_map, (INDEX,), {"keys": (0, 3)}, ValueError, "keys must be at least 1"),
    (visualize.match_map, (INDEX,), {"hole": HOLE[..., 1:]}, ValueError, "hole must have shape"),
    (visualize.match_map, (INDEX,), {"cell": 0}, ValueError, "cell must be at least 1"),
    (visualize.match_arrows, (IMAGE[:0], INDEX), {}, ValueError, "image must have shape"),
    (visualize.match_arrows, (IMAGE.repeat(2, 1, 1, 1), INDEX), {}, ValueError, "agree in N"),
    (visualize.match_arrows, (IMAGE, INDEX), {"every": 0}, ValueError, "every must be at least"),
    (visualize.feature_grid, (IMAGE,), {"sample": 1}, ValueError, "sample must be at most 0"),
    (visualize.feature_grid, (IMAGE,), {"columns": 0}, ValueError, "columns must be at least 1"),
    (visualize.feature_grid, (IMAGE[..., :0],), {}, ValueError, "features must hold values"),
    (visualize.updated_masks, (len, IMAGE, HOLE), {}, TypeError, "model must be an nn.Module"),
    (
        *(visualize.updated_masks, (nn.Bilinear(4, 4, 4), IMAGE, HOLE.expand(1, 1, 4, 4)), {}),
        *(ValueError, "got none in Bilinear; PartialConv2d does with return_mask=True"),
    ),
    (visualize.mask_updates, ({},), {}, TypeError, "masks must be tensors by name"),
    (visualize.mask_updates, ({"a": HOLE[0]},), {}, ValueError, "a must have shape"),
    (visualize.mask_updates, ({"a": HOLE + 2},), {}, ValueError, "a must be in"),
]


@pytest.mark.parametrize(("draw", "given", "options", "error", "text"), WRONG)
def test_refusals_name_the_argument(draw, given, options, error, text):
    if draw is visualize.updated_masks and isinstance(given[0], nn.Bilinear):
        given = (given[0], IMAGE.expand(1, 3, 4, 4)[:, :1], given[2])
    with pytest.raises(error, match=f"^{draw.__name__}: .*{text}"):
        draw(*given, **options)


def test_pillow_is_asked_for_when_a_picture_is_made(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"inpaint-ops\[image\]"):
        visualize.hole_overlay(IMAGE, HOLE)
