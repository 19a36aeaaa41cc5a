"""GLCIC: table of layers, both orders of normalisation, fusion, crops, phases, blending."""

from itertools import pairwise

import networks
import pytest
import torch
from model_cases import manifest
from support import check_network
from torch import nn
from twins.glcic import table

from inpaint_ops.blending import poisson_blend
from inpaint_ops.models import create_model

SMALL = {"base_channels": 8, "global_size": 64, "local_size": 32}
RELU = nn.ReLU()


# 20 pixels: the map is smaller than the reach of dilation 16; 140: it is larger.
@pytest.mark.parametrize("size", [(20, 24), (140, 136)], ids=str)
@pytest.mark.parametrize("norm_first", [True, False])
def test_generator_equals_the_table(norm_first, size):
    model = create_model("glcic", norm_first=norm_first, **SMALL)
    plain = networks.stacked(table(8), norm_first=norm_first)
    networks.fill(model.generator, plain)
    x = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(1))
    networks.check_same(model.generator, plain, x)


class Judge(nn.Module):
    """The two stacks, their dense layers and the fusion, local first."""

    def __init__(self, c, whole, norm_first):
        super().__init__()

        def trunk(size, count):
            widths = [3, c, 2 * c, 4 * c, 8 * c, 8 * c, 8 * c][: count + 1]
            pairs = pairwise(widths)
            rows = [("conv", i, o, 5, 2, 2, 1, True, RELU, True) for i, o in pairs]
            numbers = 8 * c * (size >> count) ** 2
            dense = [nn.Flatten(), nn.Linear(numbers, 16 * c), nn.ReLU()]
            return nn.Sequential(*networks.stacked(rows, norm_first=norm_first), *dense)

        self.local = trunk(32, 5)
        self.whole = trunk(whole, 6 if whole >= 192 else 5)
        self.fuse = nn.Linear(32 * c, 1)

    def forward(self, x):
        local = self.local(x[:, :, :32, :32])
        return self.fuse(torch.cat([local, self.whole(x)], 1)).sigmoid()


@pytest.mark.parametrize(("whole", "norm_first"), [(64, True), (64, False), (192, True)])
def test_discriminator_equals_the_table(whole, norm_first):
    options = {**SMALL, "global_size": whole, "norm_first": norm_first}
    model = create_model("glcic", **options)
    plain = Judge(8, whole, norm_first)
    networks.fill(model.discriminator, plain)
    x = torch.randn(3, 3, whole, whole, generator=torch.Generator().manual_seed(1))

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.judge = model.discriminator

        def forward(self, x):
            return self.judge(x[:, :, :32, :32], x).sigmoid()[:, None]

    networks.check_same(Both(), plain, x)


@pytest.mark.parametrize(
    ("sizes", "local", "whole", "total"),
    [
        ((256, 128), 19_253_248, 25_808_384, 45_063_681),
        ((160, 96), 15_583_232, 23_971_840, 39_557_121),
    ],
)
def test_parameter_counts(sizes, local, whole, total):
    with torch.device("meta"):
        model = create_model("glcic", global_size=sizes[0], local_size=sizes[1])

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert count(model.generator) == 6_072_131
    assert count(model.discriminator.local_trunk) == local
    assert count(model.discriminator.global_trunk) == whole
    assert count(model.discriminator) == total


def test_manifests_hold_what_the_sheet_counts():
    assert len(manifest("glcic.otenim")) == 114
    assert len(manifest("glcic.official_converted_sequential")) == 98
    assert len(manifest("glcic.otenim.discriminator_celeba_160_96")) == 76
    assert len(manifest("glcic.otenim.discriminator_places2_256_128")) == 83


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_inputs_of_both_conventions(order):
    image = torch.rand(1, 3, 8, 8)
    hole = torch.zeros(1, 1, 8, 8)
    hole[..., 2:5, 3:6] = 1
    mean = torch.tensor((0.1, 0.2, 0.3) if order == "rgb" else (0.3, 0.2, 0.1)).view(3, 1, 1)
    options = {**SMALL, "mean": (0.1, 0.2, 0.3), "channel_order": order}
    official = create_model("glcic", **options).inputs(image, hole)
    torch.testing.assert_close(official, torch.cat([(image - mean) * (1 - hole), hole], 1))
    port = create_model("glcic", subtract_mean=False, **options).inputs(image, hole)
    torch.testing.assert_close(port, torch.cat([image * (1 - hole) + mean * hole, hole], 1))


def test_blending_is_an_option():
    torch.manual_seed(0)
    plain = create_model("glcic", **SMALL).eval()
    blended = create_model("glcic", blend="poisson", **SMALL)
    blended.load_state_dict(plain.state_dict())
    image, hole = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    hole[..., 8:20, 10:25] = 1
    with torch.no_grad():
        prediction = plain.generator(plain.inputs(image, hole))
    known = torch.where(hole > 0, prediction, image)
    check_network(plain.complete(image, hole), known)
    check_network(blended.complete(image, hole), poisson_blend(prediction, image, hole))
    assert not torch.equal(plain.complete(image, hole), blended.complete(image, hole))


def test_phases_train_what_they_name():
    torch.manual_seed(0)
    model = create_model("glcic", **SMALL)
    image, hole = torch.rand(2, 3, 64, 64), torch.zeros(2, 1, 64, 64)
    hole[:, :, 20:40, 10:30] = 1
    statistics = model.generator.layers[0].norm.running_mean.clone()
    recipe = model.recipe("discriminator")
    assert set(recipe.step(image, hole)) == {"discriminator"}
    assert torch.equal(statistics, model.generator.layers[0].norm.running_mean)
    recipe = model.recipe("completion")
    model.train()
    with torch.no_grad():
        predicted = model.generator(model.inputs(image, hole))
    losses = recipe.step(image, hole)
    # A mean over all pixels, those outside the hole counting 0.
    expected = (hole * (predicted - image).square()).mean()
    assert losses["reconstruction"] == pytest.approx(expected.item(), rel=1e-4)
    joint = model.recipe("joint")
    assert joint.numbers["adversarial"] == 0.0004
    assert set(joint.step(image, hole)) == {"discriminator", "reconstruction", "adversarial"}
    with pytest.raises(ValueError, match="discriminator: whole must have shape"):
        joint.step(torch.rand(1, 3, 96, 96), torch.ones(1, 1, 96, 96))
    assert [(p.name, p.iterations) for p in recipe.phases] == [
        ("completion", 90_000),
        ("discriminator", 10_000),
        ("joint", 400_000),
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"global_size": 250}, "global_size must be a multiple of 64"),
        ({"local_size": 100}, "local_size must be a multiple of 32"),
        ({"global_size": 96, "local_size": 128}, "local_size must be at most 96"),
        ({"mean": (0.5, 2.0, 0.5)}, "mean must be three numbers"),
        ({"blend": "clone"}, "blend must be one of"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=f"glcic: {text}"):
        create_model("glcic", **{"base_channels": 8, **options})
