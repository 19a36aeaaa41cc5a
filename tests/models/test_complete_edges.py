"""`complete` of every method where pictures and holes are extreme."""

import pytest
import torch
import torch.nn.functional as F
from model_cases import picture, small

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import create_model, list_models
from inpaint_ops.models.msnps.texture_energies import PAPER_LAYERS, RELEASED_LAYERS

NAMES = list_models()
# Holes that leave next to nothing are what this is about.
pytestmark = pytest.mark.filterwarnings("ignore::inpaint_ops.models.HoleNote")
SIZES = [(1, 1), (1, 37), (53, 1), (2, 3), (5, 300), (17, 16), (300, 270)]


def holes(h, w):
    """Masks by name: what may be missing of h x w pixels."""
    zero = torch.zeros(1, 1, h, w)
    frame = zero.clone()
    frame[..., 0, :] = frame[..., -1, :] = frame[..., :, 0] = frame[..., :, -1] = 1
    last, corner = zero.clone(), zero.clone()
    last[..., -1, -1] = 1
    corner[..., : (h + 1) // 2, : (w + 1) // 2] = 1
    checks = (torch.arange(h)[:, None] + torch.arange(w)) % 2
    return {
        "everything": zero + 1,
        "all but one": 1 - last,
        "the last pixel": last,
        "a corner": corner,
        "the frame": frame,
        "every second": checks.view(1, 1, h, w).float(),
    }


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_every_hole_of_every_size_is_filled(name, size):
    model = small(name)
    image = picture(1, 3, *size)
    cases = holes(*size)
    if size[0] * size[1] > 10_000:
        cases = {key: cases[key] for key in ("everything", "the frame")}
    for key, hole in cases.items():
        missing = (hole > 0).expand_as(image)
        damaged = image.masked_fill(missing, float("nan"))
        result = model.complete(damaged, hole)
        assert result.shape == image.shape, key
        assert torch.equal(result[~missing], image[~missing]), key
        assert bool(((result >= 0) & (result <= 1)).all()), key


VARIANTS = [
    ("context_encoder", {"variant": "random_64"}),
    ("context_encoder", {"variant": "convolutional", "overlap": 0}),
    ("context_encoder", {"variant": "alexnet", "base_channels": 4}),
    ("deepfill_v1", {"padding": "symmetric", "pick": "floor", "key_norm": "sum"}),
    ("deepfill_v2", {"variant": "zhaoyuzhi"}),
    ("deepfill_v2", {"fuse": False, "sketch": True}),
    ("edge_connect", {"merge_edges": True}),
    ("glcic", {"norm_first": False, "subtract_mean": False}),
    ("partial_conv_unet", {"levels": 8, "normalise": "sum", "stem_bias": True}),
    ("patch_gan", {"in_channels": 4}),
    ("shift_net", {"face": True, "mirror": "port"}),
    ("shift_net", {"face": True, "mirror": "exact", "in_channels": 3}),
    ("shift_net", {"norm": "batch"}),
]


@pytest.mark.parametrize(("name", "options"), VARIANTS, ids=str)
def test_variants_fill_extreme_holes(name, options):
    model = small(name, **options)
    for size in ((1, 1), (5, 30)):
        image = picture(2, 3, *size)
        for key, hole in holes(*size).items():
            missing = (hole > 0).expand_as(image)
            result = model.complete(image.masked_fill(missing, float("nan")), hole)
            assert torch.equal(result[~missing], image[~missing]), (size, key)
            assert bool(((result >= 0) & (result <= 1)).all()), (size, key)


@pytest.mark.parametrize("name", NAMES)
def test_no_sample_and_no_pixel(name):
    model = small(name)
    image, hole = torch.zeros(0, 3, 20, 24), torch.ones(0, 1, 20, 24)
    assert model.complete(image, hole).shape == (0, 3, 20, 24)
    assert model.complete(image, torch.ones(1, 1, 20, 24)).shape == (0, 3, 20, 24)
    for h, w, side in ((0, 24, "height"), (20, 0, "width")):
        with pytest.raises(ValueError, match=f"{name}.complete: {side} of image must be"):
            model.complete(torch.zeros(1, 3, h, w), torch.zeros(1, 1, h, w))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(37, 53), (1, 19)], ids=str)
def test_other_sizes_are_those_of_the_padded_picture(name, size):
    """Repeated edges, or missing pixels, up to the next size the networks take; then cut off."""
    model = small(name)
    image = picture(1, 3, *size)
    hole = torch.zeros(1, 1, *size)
    hole[..., size[0] // 3 :, size[1] // 4 : size[1] // 2] = 1
    sides = [max(model.minimum, -(-side // model.multiple) * model.multiple) for side in size]
    more = (0, sides[1] - size[1], 0, sides[0] - size[0])
    clean = torch.where(hole > 0, 0.0, image)
    if model.pad_as == "hole":
        padded, missing = F.pad(clean, more), F.pad(hole, more, value=1.0)
    else:
        padded, missing = F.pad(clean, more, "replicate"), F.pad(hole, more, "replicate")
    whole = model.complete(padded, missing)[..., : size[0], : size[1]]
    assert torch.equal(model.complete(image, hole), whole)


@pytest.mark.parametrize(
    ("energy", "layers"), [("paper", PAPER_LAYERS), ("released", RELEASED_LAYERS)]
)
def test_texture_synthesis_of_small_pictures_and_extreme_holes(energy, layers):
    options = {"base_channels": 4, "bottleneck": 8, "size": 64, "levels": 2, "iterations": 1}
    model = create_model("msnps", energy=energy, **options)
    model.load_features(FeatureNetwork.untrained("vgg19", layers=layers))
    for size in ((1, 1), (1, 37), (33, 17)):
        image = picture(1, 3, *size)
        for key in ("everything", "all but one", "the last pixel", "the frame"):
            hole = holes(*size)[key]
            missing = (hole > 0).expand_as(image)
            result = model.complete(image, hole)
            assert torch.equal(result[~missing], image[~missing]), (size, key)
            assert bool(((result >= 0) & (result <= 1)).all()), (size, key)
