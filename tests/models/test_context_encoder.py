"""Context Encoder: table of layers, sizes, window around a hole, losses."""

import networks
import pytest
import torch
from support import check_network
from torch import nn

from inpaint_ops.models import create_model
from inpaint_ops.models.blocks import centre
from inpaint_ops.models.blocks.conv_block import ConvBlock

LEAKY, RELU, TANH = nn.LeakyReLU(0.2), nn.ReLU(), nn.Tanh()


def halving(i, o, norm=True, bias=False):
    return ("conv", i, o, 4, 2, 1, 1, norm, LEAKY, bias)


def doubling(i, o, bias=False):
    return ("deconv", i, o, 4, 2, 1, 1, True, RELU, bias)


def table(variant, c, code):
    down = [halving(3, c, norm=False)]
    down += [] if variant == "random_64" else [halving(c, c)]
    down += [halving(c, 2 * c), halving(2 * c, 4 * c), halving(4 * c, 8 * c)]
    bottleneck = [
        ("conv", 8 * c, code, 4, 1, 0, 1, True, LEAKY, False),
        ("deconv", code, 8 * c, 4, 1, 0, 1, True, RELU, False),
    ]
    up = [doubling(8 * c, 4 * c), doubling(4 * c, 2 * c), doubling(2 * c, c)]
    up += [doubling(c, c)] if variant == "random_128" else []
    return [*down, *bottleneck, *up, ("deconv", c, 3, 4, 2, 1, 1, False, TANH, False)]


@pytest.mark.parametrize("variant", ["centre", "random_64", "random_128"])
def test_generator_equals_the_table(variant):
    model = create_model("context_encoder", variant=variant, base_channels=8, bottleneck=40)
    plain = networks.stacked(table(variant, 8, 40))
    networks.fill(model.generator, plain)
    side = 64 if variant == "random_64" else 128
    x = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(1))
    y = networks.check_same(model.generator, plain, x)
    assert y.shape[2] == (128 if variant == "random_128" else 64)


def test_convolutional_generator_equals_its_port():
    c, code = 8, 40
    model = create_model(
        "context_encoder",
        variant="convolutional",
        base_channels=c,
        bottleneck=code,
        bias=True,
        overlap=0,
    )
    down = [halving(3, c, norm=False, bias=True)]
    down += [halving(i, o, bias=True) for i, o in ((c, c), (c, 2 * c), (2 * c, 4 * c))]
    down += [halving(4 * c, 8 * c, bias=True), ("conv", 8 * c, code, 1, 1, 0, 1, False, None, True)]
    pairs = ((code, 8 * c), (8 * c, 4 * c), (4 * c, 2 * c), (2 * c, c))
    up = [doubling(i, o, bias=True) for i, o in pairs]
    last = ("conv", c, 3, 3, 1, 1, 1, False, TANH, True)
    plain = networks.stacked([*down, *up, last], eps=0.8)
    networks.fill(model.generator, plain)
    x = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    assert networks.check_same(model.generator, plain, x).shape == (2, 3, 64, 64)


@pytest.mark.parametrize("size", [64, 128])
def test_discriminator_equals_the_table(size):
    variant = "random_128" if size == 128 else "centre"
    model = create_model("context_encoder", variant=variant, base_channels=8, bottleneck=8)
    rows = [halving(3, 8, norm=False)] + ([halving(8, 8)] if size == 128 else [])
    rows += [halving(8, 16), halving(16, 32), halving(32, 64)]
    plain = networks.stacked([*rows, ("conv", 64, 1, 4, 1, 0, 1, False, None, False)])
    networks.fill(model.discriminator, plain)
    x = torch.randn(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    networks.check_same(model.discriminator, plain, x, lambda y: y.view(4, 1, 1, 1))


def test_patch_discriminator_equals_its_port():
    c = 8
    options = {"variant": "convolutional", "base_channels": c, "bottleneck": 8, "overlap": 0}
    judge = create_model("context_encoder", **options).discriminator
    plain = [nn.Conv2d(3, c, 3, 2, 1), LEAKY]
    for i, o, stride in ((c, 2 * c, 2), (2 * c, 4 * c, 2), (4 * c, 8 * c, 1)):
        plain += [nn.Conv2d(i, o, 3, stride, 1), nn.InstanceNorm2d(o), LEAKY]
    plain = nn.Sequential(*plain, nn.Conv2d(8 * c, 1, 3, 1, 1))
    for ours, theirs in zip(judge.parameters(), plain.parameters()):
        theirs.data.copy_(ours.data.normal_(std=0.1))
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    y = networks.check_same(judge, plain, x)
    assert y.shape == (2, 1, 8, 8)


def test_convolutional_variant_trains_with_squares():
    torch.manual_seed(0)
    options = {"variant": "convolutional", "base_channels": 8, "bottleneck": 8, "overlap": 0}
    model = create_model("context_encoder", **options)
    image, hole = torch.rand(2, 3, 128, 128), torch.zeros(1, 1, 128, 128)
    hole[..., 32:96, 32:96] = 1
    model.train()
    with torch.no_grad():
        seen = torch.where(hole > 0, 1.0, image * 2 - 1)
        predicted = model.generator(seen)
        real = model.discriminator(image[..., 32:96, 32:96] * 2 - 1)
        expected = (real - 1).square().mean() + model.discriminator(predicted).square().mean()
    losses = model.recipe().step(image, hole)
    assert losses["discriminator"] == pytest.approx(expected.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("variant", "bias", "generator", "discriminator"),
    [
        ("centre", False, 71_124_544, 2_765_568),
        ("centre", True, 71_130_531, 2_766_529),
        ("random_128", True, 71_196_259, 2_832_257),
        ("random_64", True, 71_064_803, 2_766_529),
    ],
)
def test_parameter_counts(variant, bias, generator, discriminator):
    with torch.device("meta"):
        model = create_model("context_encoder", variant=variant, bias=bias)
    assert sum(p.numel() for p in model.generator.parameters()) == generator
    assert sum(p.numel() for p in model.discriminator.parameters()) == discriminator


def test_alexnet_sizes():
    model = create_model("context_encoder", variant="alexnet", base_channels=8).eval()
    network, sides = model.generator, []
    for layer in [*network.encoder, network.bottleneck, *network.decoder]:
        layer.register_forward_hook(lambda m, x, y: sides.append(y.shape[3]))
    with torch.no_grad():
        y = network(torch.rand(1, 3, 227, 227))
    assert sides == [55, 27, 27, 13, 13, 13, 13, 6, 6, 11, 21, 41, 81, 161]
    assert y.shape == (1, 3, 227, 227)
    with torch.device("meta"):
        layer = create_model("context_encoder", variant="alexnet").generator.bottleneck
    assert (layer.weight.numel(), layer.bias.numel()) == (331_776, 9_216)


def test_alexnet_trains_in_the_hole():
    torch.manual_seed(0)
    model = create_model("context_encoder", variant="alexnet", base_channels=4)
    recipe = model.recipe()
    image, hole = torch.rand(1, 3, 240, 240), torch.zeros(1, 1, 240, 240)
    hole[..., 60:150, 80:200] = 1
    before = [p.detach().clone() for p in model.generator.parameters()]
    first = recipe.step(image, hole)["reconstruction"]
    assert all(not torch.equal(a, b) for a, b in zip(before, model.generator.parameters()))
    for _ in range(4):
        last = recipe.step(image, hole)["reconstruction"]
    assert last < first


def test_fill_colour_is_the_published_permutation():
    model = create_model("context_encoder", base_channels=8, bottleneck=8)
    colour = model.colour(torch.zeros(1)).flatten()
    torch.testing.assert_close(colour, torch.tensor([-0.082353, -0.184314, -0.035294]))
    swapped = create_model("context_encoder", base_channels=8, bottleneck=8, channel_order="bgr")
    assert torch.equal(swapped.colour(torch.zeros(1)).flatten(), colour.flip(0))


def test_completion_of_the_natural_size_is_the_published_one():
    torch.manual_seed(0)
    model = create_model("context_encoder", base_channels=8, bottleneck=40).eval()
    networks.fill(model.generator, networks.stacked(table("centre", 8, 40)))
    image = torch.rand(1, 3, 128, 128)
    hole = torch.zeros(1, 1, 128, 128)
    hole[..., 36:92, 36:92] = 1
    seen = image * 2 - 1
    seen[..., 36:92, 36:92] = model.colour(image)
    with torch.no_grad():
        predicted = (model.generator(seen) + 1) / 2
    result = model.complete(image, hole)
    # The square is the picture itself: nothing is interpolated.
    check_network(result[..., 36:92, 36:92], predicted[..., 4:60, 4:60])


def numbers(kind, *values):
    """A window or box of one sample."""
    return kind(*(torch.tensor([value]) for value in values))


@pytest.mark.parametrize("size", [(128, 128), (40, 300), (16, 16), (1000, 700)])
@pytest.mark.parametrize("overlap", [0, 4, 7])
def test_hole_fits_what_is_predicted(size, overlap):
    generator = torch.Generator().manual_seed(sum(size) + overlap)
    for _ in range(50):
        corners = [torch.randint(0, side, (2,), generator=generator).sort()[0] for side in size]
        (top, bottom), (left, right) = (c.tolist() for c in corners)
        box = (top, left, bottom + 1, right + 1)
        where = centre.window(numbers(centre.Box, *box), *size, overlap)
        assert where.side % 32 == 0
        inner = where.side * (32 - overlap) / 128
        for first, last, start in ((box[0], box[2], where.top), (box[1], box[3], where.left)):
            middle = start + where.side / 2
            assert middle - inner <= first
            assert last <= middle + inner


def test_crop_of_a_flat_picture_is_flat_and_outside_has_the_colour():
    colour = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)
    flat = torch.full((1, 3, 50, 60), 0.7)
    inside = centre.crop(flat, numbers(centre.Window, 4, 8, 32), colour)
    torch.testing.assert_close(inside, torch.full((1, 3, 128, 128), 0.7))
    outside = centre.crop(flat, numbers(centre.Window, 200, 0, 64), colour)
    torch.testing.assert_close(outside, colour.expand(1, 3, 128, 128))


def test_crop_and_paste_keep_a_ramp():
    ramp = torch.linspace(0, 1, 384).expand(1, 3, 384, 384)
    where = numbers(centre.Window, 0, 0, 384)
    colour = torch.zeros(3, 1, 1)
    small = centre.crop(ramp, where, colour)
    # Bilinear resizing in both directions is exact on a ramp, away from the window's edge.
    box = numbers(centre.Box, 110, 120, 250, 260)
    back = centre.paste(torch.zeros_like(ramp), small[:, :, 32:96, 32:96], where, box)
    check_network(back[..., 110:250, 120:260], ramp[..., 110:250, 120:260])
    assert back[:, :, :110].abs().max() == 0


def test_training_step_is_the_sheet():
    torch.manual_seed(0)
    model = create_model("context_encoder", base_channels=8, bottleneck=16)
    recipe = model.recipe()
    image, hole = torch.rand(4, 3, 128, 128), torch.zeros(1, 1, 128, 128)
    hole[..., 36:92, 36:92] = 1
    seen = image * 2 - 1
    target = seen[..., 32:96, 32:96].clone()
    seen[..., 36:92, 36:92] = model.colour(image)
    weight = torch.full((64, 64), 10.0)
    weight[4:60, 4:60] = 1
    with torch.no_grad():
        model.train()
        predicted = model.generator(seen)
        expected = (weight * (predicted - target).square()).mean()
        real, fake = model.discriminator(target), model.discriminator(predicted)
        judged = -(real.sigmoid().log() + (1 - fake.sigmoid()).log()).mean()
    losses = recipe.step(image, hole)
    assert losses["reconstruction"] == pytest.approx(expected.item(), rel=1e-4)
    assert losses["discriminator"] == pytest.approx(judged.item(), rel=1e-3)
    rates = {name: o.param_groups[0]["lr"] for name, o in recipe.optimizers.items()}
    assert rates == {"discriminator": 2e-4, "generator": 2e-3}
    assert recipe.numbers["reconstruction"] + recipe.numbers["adversarial"] == 1
    with pytest.raises(ValueError, match="image must hold 2 samples"):
        recipe.step(image[:1], hole)


def test_folded_weights_follow_their_sources():
    torch.manual_seed(0)
    for transposed in (False, True):
        block = ConvBlock(4, 4, 4, transposed=transposed, stride=2, padding=1).eval()
        x = torch.rand(1, 4, 32, 32)
        with torch.no_grad():
            first = block(x)
            block.norm.running_mean += 1
            block.norm.weight *= 2
            changed = block(x)
        # With gradients the normalisation is a pass of its own.
        check_network(changed, block(x).detach())
        assert not torch.equal(first, changed)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"variant": "corner"}, "variant must be one of"),
        ({"overlap": 32}, "overlap must be below 32"),
        ({"base_channels": 0}, "base_channels must be"),
    ],
)
def test_bad_options(options, text):
    with pytest.raises(ValueError, match=f"context_encoder: {text}"):
        create_model("context_encoder", **options)


def test_networks_refuse_other_sizes():
    model = create_model("context_encoder", base_channels=8, bottleneck=8)
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, 128, 128\)"):
        model.generator(torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match=r"x must have shape \(N, 3, 64, 64\)"):
        model.discriminator(torch.zeros(1, 3, 128, 128))
