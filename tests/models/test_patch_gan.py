"""Patch-based GAN: table of layers, two heads on one trunk, losses."""

import networks
import pytest
import torch
from support import check_network
from torch import nn
from twins.patch_gan import plain_generator

from inpaint_ops import backend
from inpaint_ops.models import create_model
from inpaint_ops.models.patch_gan.networks import ResidualBlock

RELU, LEAKY = nn.ReLU(), nn.LeakyReLU(0.2)


@pytest.mark.parametrize(
    ("options", "pairs"),
    [
        ({}, [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1)]),
        ({"dilated": "second", "dilations": (1, 3)}, [(1, 1), (1, 3)]),
        ({"dilated": "none", "in_channels": 4, "dilations": (2,)}, [(1, 1)]),
    ],
)
@pytest.mark.parametrize("size", [(16, 20), (72, 100)], ids=str)
def test_generator_equals_the_table(options, pairs, size):
    model = create_model("patch_gan", base_channels=8, image_size=64, **options)
    channels = model.in_channels
    plain = plain_generator(8, channels, pairs)
    networks.fill(model.generator, plain, gain=1.0)
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))
    networks.check_same(model.generator, plain, x)


class Judge(nn.Module):
    def __init__(self, c, size):
        super().__init__()

        def row(i, o, stride, norm=True):
            return ("conv", i, o, 4, stride, 1, 1, norm, LEAKY, not norm)

        trunk = [row(3, c, 2, norm=False), row(c, 2 * c, 2), row(2 * c, 4 * c, 2)]
        self.trunk = networks.stacked(trunk)
        last = ("conv", 8 * c, 1, 4, 1, 1, 1, False, None, True)
        self.patch_head = networks.stacked([row(4 * c, 8 * c, 1), last])
        deep = [row(4 * c, 8 * c, 2), row(8 * c, 8 * c, 2), row(8 * c, 8 * c, 2)]
        self.global_head = networks.stacked(deep)
        self.fuse = nn.Linear(8 * c * (size // 64) ** 2, 1)

    def forward(self, x):
        shared = self.trunk(x)
        whole = self.fuse(self.global_head(shared).flatten(1))
        return torch.cat([whole, self.patch_head(shared).flatten(1)], 1)


@pytest.mark.parametrize("size", [64, 128])
def test_discriminator_equals_the_table(size):
    model = create_model("patch_gan", base_channels=8, image_size=size)
    plain = Judge(8, size)
    networks.fill(model.discriminator, plain)
    x = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    y = networks.check_same(
        model.discriminator, plain, x, lambda y: torch.cat([y[0][:, None], y[1].flatten(1)], 1)
    )
    assert y.shape == (3, 1 + (size // 8 - 2) ** 2)


def test_parameter_counts():
    with torch.device("meta"):
        model = create_model("patch_gan")
        four = create_model("patch_gan", in_channels=4)
        block = ResidualBlock(256, (2, 1))

    def count(*modules):
        return sum(p.numel() for module in modules for p in module.parameters())

    assert count(model.generator) == 6_660_739
    assert count(four.generator) == 6_663_875
    assert count(block) == 1_180_672
    judge = model.discriminator
    assert count(judge.trunk) == 659_264
    assert count(judge.patch_head) == 2_106_369
    assert count(judge.global_head, judge.fuse) == 10_497_025
    assert count(judge) == 13_262_658


def test_patch_logits_see_70_pixels():
    judge = create_model("patch_gan", base_channels=8, image_size=128).discriminator.eval()
    networks.fill(judge, Judge(8, 128))
    x = torch.zeros(1, 3, 128, 128, requires_grad=True)
    # Winograd leaves rounding errors beside the pixels that count.
    with backend("direct"):
        judge(x)[1][0, 0, 7, 7].backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()
    assert rows[-1] - rows[0] + 1 == 70


def test_training_step_is_the_sheet():
    torch.manual_seed(0)
    model = create_model("patch_gan", base_channels=8, image_size=64)
    recipe = model.recipe()
    image, hole = torch.rand(2, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    hole[..., 16:48, 16:48] = 1
    model.train()
    with torch.no_grad():
        target = image * 2 - 1
        predicted = model.generator(target * (1 - hole))
        completed = target * (1 - hole) + predicted * hole
        pairs = zip(model.discriminator(target), model.discriminator(completed))
        judged = [
            -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean())
            for real, fake in pairs
        ]
    losses = recipe.step(image, hole)
    # L1 over the whole picture, mean colour 0.5 in the hole.
    expected = (predicted - target).abs().mean().item()
    assert losses["reconstruction"] == pytest.approx(expected, rel=1e-4)
    assert losses["global_discriminator"] == pytest.approx(judged[0].item(), rel=1e-3)
    assert losses["patch_discriminator"] == pytest.approx(judged[1].item(), rel=1e-3)
    names = ("reconstruction", "global_adversarial", "patch_adversarial")
    assert [recipe.numbers[name] for name in names] == [0.995, 0.0025, 0.0025]


def test_completion_uses_the_mask_channel_where_asked():
    torch.manual_seed(0)
    image, hole = torch.rand(1, 3, 32, 32), torch.zeros(1, 1, 32, 32)
    hole[..., 8:20, 8:20] = 1
    model = create_model("patch_gan", base_channels=8, image_size=64, in_channels=4).eval()
    networks.fill(model.generator, plain_generator(8, 4, [(d, 1) for d in (1, 2, 4, 8, 16)]))
    seen = torch.cat([(image * 2 - 1) * (1 - hole), hole], 1)
    with torch.no_grad():
        predicted = (model.generator(seen) + 1) / 2
    check_network(model.complete(image, hole), torch.where(hole > 0, predicted, image))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"in_channels": 5}, "in_channels must be 3 or 4"),
        ({"image_size": 100}, "image_size must be a multiple of 64"),
        ({"dilated": "both"}, "dilated must be one of"),
        ({"dilations": (1, 0)}, "dilations must be"),
        ({"mean": (0.5,)}, "mean must be three numbers"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=f"patch_gan: {text}"):
        create_model("patch_gan", **{"base_channels": 8, **options})


def test_discriminator_refuses_other_sizes():
    model = create_model("patch_gan", base_channels=8, image_size=64)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, 64, 64\)"):
        model.discriminator(torch.zeros(1, 3, 128, 128))
