"""Networks of the methods against plain layers at sizes that their strides do not divide.

Shift-Net: test_shift_net_twins.py.
"""

import networks
import pytest
import torch
import torch.nn.functional as F
from model_cases import CASES, box, picture, small
from support import check_close, check_network
from torch import nn
from twins import drawn, stacks
from twins.deepfill import DeepFill, zhaoyuzhi_stage
from twins.glcic import table as glcic_table
from twins.patch_gan import plain_generator as patch_gan_twin

from inpaint_ops.layers import FusedConv2d, FusedConvTranspose2d, GatedConv2d
from inpaint_ops.models import create_model
from inpaint_ops.models.deepfill_v2.zhaoyuzhi import ZhaoyuzhiGenerator
from inpaint_ops.models.edge_connect.networks import Generator as EdgeConnectGenerator
from inpaint_ops.models.gmcnn.networks import Generator as GMCNNGenerator
from inpaint_ops.models.partial_conv_unet.networks import PartialConvUNetwork

LAYERS = (FusedConv2d, FusedConvTranspose2d, GatedConv2d, nn.Conv2d, nn.ConvTranspose2d)


def adopted(twin, ours):
    """The twin in float64 with the weights of a network whose layers come in the same order."""
    kinds = (*LAYERS, nn.BatchNorm2d)
    pairs = [[m for m in n.modules() if isinstance(m, kinds)] for n in (twin, ours)]
    assert len(pairs[0]) == len(pairs[1])
    for one, other in zip(*pairs):
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(other, name, None)
            assert (value is None) == (getattr(one, name, None) is None)
            if value is not None:
                getattr(one, name).data.copy_(value.detach())
    return twin.double().eval()


def noise(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def compare(ours, expected):
    if ours.dtype == torch.float64:
        check_close(ours, expected, terms=10**4)
    check_network(ours.double(), expected)
    assert expected.std() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize(("size", "rounded"), [((37, 53), (40, 56)), ((70, 101), (72, 104))])
def test_halvings_that_round_up(size, rounded):
    """GLCIC and the patch-based GAN: other sides give the next multiples of 4, as in the ports."""
    x = noise(1, 4, *size)
    for norm_first in (True, False):
        glcic = create_model("glcic", norm_first=norm_first, **CASES["glcic"].small)
        plain = networks.stacked(glcic_table(8), norm_first=norm_first)
        networks.fill(glcic.generator, plain)
        assert networks.check_same(glcic.generator, plain, x).shape[2:] == rounded
    model = create_model("patch_gan", in_channels=4, **CASES["patch_gan"].small)
    plain = patch_gan_twin(8, 4, [(d, 1) for d in (1, 2, 4, 8, 16)])
    networks.fill(model.generator, plain, gain=1.0)
    assert networks.check_same(model.generator, plain, x).shape[2:] == rounded


@pytest.mark.parametrize("size", [(12, 16), (37, 53), (70, 102)], ids=str)
@pytest.mark.parametrize("edges", [True, False], ids=["edges", "colours"])
def test_edge_connect(edges, size):
    """Other sides give the multiples of 4 below, as in the port."""
    inputs, outputs = (3, 1) if edges else (4, 3)
    ours = drawn(EdgeConnectGenerator(inputs, outputs, 6, 2, edges=edges)).eval()
    twin = adopted(stacks.EdgeConnect(inputs, outputs, 6, 2, edges=edges), ours)
    x = noise(2, inputs, *size)
    with torch.no_grad():
        y = ours(x)
        assert y.shape[2:] == (size[0] // 4 * 4, size[1] // 4 * 4)
        compare(y, twin(x.double()))


@pytest.mark.parametrize("size", [(196, 196), (200, 212)], ids=str)
def test_gmcnn(size):
    ours = drawn(GMCNNGenerator(2))
    twin = adopted(stacks.GMCNN(2), ours)
    x = noise(1, 4, *size)
    with torch.no_grad():
        compare(ours(x), twin(x.double()))


@pytest.mark.parametrize("size", [(32, 32), (96, 32), (64, 160)], ids=str)
@pytest.mark.parametrize("rule", ["window", "sum"])
def test_partial_conv_unet(rule, size):
    ours = drawn(PartialConvUNetwork(5, 4, normalise=rule)).eval()
    twin = adopted(stacks.PartialUNet(5, 4, rule), ours)
    x = noise(2, 3, *size)
    valid = torch.ones(2, 1, *size)
    valid[0, :, : size[0] // 2 + 3, 3:29] = 0
    valid[1, :, 10:, size[1] // 2 :] = 0
    with torch.no_grad():
        y, known = ours(x, valid)
        expected, mask = twin(x.double(), valid.double())
    compare(y, expected)
    assert torch.equal(known.double(), mask)


VARIANTS = [
    ("deepfill_v1", {}, {"pick": "align_corners", "key_norm": "max"}),
    ("deepfill_v1", {"padding": "symmetric"}, {"pick": "floor", "key_norm": "sum"}),
    ("deepfill_v2", {}, {"pick": "align_corners", "fuse": True}),
    ("deepfill_v2", {"padding": "symmetric"}, {"pick": "floor", "fuse": False}),
]


@pytest.mark.parametrize("size", [(16, 24), (40, 72), (20, 28)], ids=str)
@pytest.mark.parametrize(("name", "options", "attention"), VARIANTS)
def test_deepfill(name, options, attention, size):
    model = create_model(name, **{**CASES[name].small, **options, **attention})
    drawn(model.generator)
    version = 1 if name == "deepfill_v1" else 2
    width = model.base_channels // version
    padding = options.get("padding", "same")
    twin = adopted(DeepFill(version, width, padding, **attention), model.generator)
    hole = torch.zeros(1, 1, *size)
    hole[..., 3:13, 5 : size[1] // 2 + 3] = 1
    x = noise(1, 3, *size).clamp(-1, 1) * (1 - hole)
    planes = [x, torch.ones_like(hole), hole]
    with torch.no_grad():
        ours = model.generator(x if version == 1 else torch.cat(planes, 1), hole)
        theirs = twin(x.double(), hole.double())
    for a, b in zip(ours, theirs):
        compare(a, b)


@pytest.mark.parametrize("size", [(20, 36), (36, 52)], ids=str)
def test_zhaoyuzhi(size):
    # In float64: normalising maps of a few pixels makes much of float32's rounding.
    ours = drawn(ZhaoyuzhiGenerator(4)).double().eval()
    image, hole = picture(1, 3, *size).double(), box(1, *size).double()
    with torch.no_grad():
        first, second = ours(image, hole)
        wanted = zhaoyuzhi_stage(ours.coarse, torch.cat([image * (1 - hole) + hole, hole], 1))
        compare(first, wanted)
        merged = image * (1 - hole) + wanted * hole
        compare(second, zhaoyuzhi_stage(ours.refinement, torch.cat([merged, hole], 1)))


@pytest.mark.parametrize("name", ["deepfill_v1", "deepfill_v2"])
def test_sides_that_two_stages_cannot_join_are_refused(name):
    model = small(name)
    x, hole = torch.zeros(1, 3 if name == "deepfill_v1" else 5, 22, 24), torch.zeros(1, 1, 22, 24)
    with pytest.raises(ValueError, match=r"sides that are multiples of 4, got \(1, ., 22, 24\)"):
        model.generator(x, hole)
    with pytest.raises(ValueError, match="sides that are multiples of 4"):
        ZhaoyuzhiGenerator(4)(torch.zeros(1, 3, 18, 24), torch.zeros(1, 1, 18, 24))


@pytest.mark.parametrize("name", ["context_encoder", "msnps"])
@pytest.mark.parametrize(("size", "side"), [((187, 153), 128), ((70, 101), 96)], ids=str)
def test_centre_networks_see_a_resized_square(name, size, side):
    """A window of `side` pixels: cut from the picture in its colour's frame, resized, and back."""
    model = small(name).eval()
    network = model.generator if name == "context_encoder" else model.content_network
    image, hole = picture(1, 3, *size), torch.zeros(1, 1, *size)
    top, left, high, wide = size[0] // 2 - 15, 20, 30, 26
    hole[..., top : top + high, left : left + wide] = 1
    colour = model.colour(image)
    seen = torch.where(hole > 0, colour, image * 2 - 1)
    # A frame of 2 side pixels, of which 2 * 128 are the resized ones: both start on a whole pixel.
    frame = F.pad(seen - colour, (2 * side,) * 4) + colour
    row, column = (top + top + high) // 2 - side // 2, (left + left + wide) // 2 - side // 2
    shifted = frame[..., row + side :, column + side :][..., : 3 * side, : 3 * side]
    square = F.interpolate(shifted, (384, 384), mode="bilinear", antialias=True)
    square = square[..., 128:256, 128:256].clone()
    square[..., 36:92, 36:92] = colour
    with torch.no_grad():
        predicted = (network(square) + 1) / 2
    back = F.interpolate(predicted, (side // 2, side // 2), mode="bilinear", antialias=True)
    row, column = row + side // 4, column + side // 4
    expected = back[..., top - row :, left - column :][..., :high, :wide].clamp(0, 1)
    result = model.complete(image, hole)[..., top : top + high, left : left + wide]
    check_network(result, expected)
