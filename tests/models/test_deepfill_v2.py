"""DeepFill v2: numbers of the public ports, parameter counts, sketch, critic."""

import math

import pytest
import torch
import torch.nn.functional as F
from model_cases import manifest, synthetic
from support import check_network, golden, network_state

from inpaint_ops.models import create_model, parameter_counts
from inpaint_ops.models.blocks.pictures import composite
from inpaint_ops.models.deepfill_v2.networks import PatchCritic


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("deepfillv2_gen_s1", "deepfillv2.nipponjo"),
        ("deepfillv2tf_gen_s1", "deepfillv2.nipponjo_tf"),
    ],
)
def test_generator_equals_the_port(name, file):
    z = golden(name)
    shapes = {
        key: tuple(n * z["cnum"] // 48 if n > 6 else n for n in shape[:2]) + shape[2:]
        for key, shape in manifest(file).items()
        if "fuse_weight" not in key
    }
    state = network_state(shapes, z["seed"], z["gain"])
    assert sum(v.abs().double().sum().item() for v in state.values()) == pytest.approx(
        z["weight_abs_sum"]
    )
    model = create_model("deepfill_v2", weights=state, channel_order="rgb")
    image, hole = z["image_u8"][None].float() / 127.5 - 1, z["mask"][None].float()
    x = torch.cat([image * (1 - hole), torch.ones_like(hole), hole], 1)
    with torch.no_grad():
        first, second = model.generator(x, hole)
    check_network(first, z["x1"])
    check_network(second, z["x2"])


def test_critic_equals_the_port():
    z = golden("snpatchgan_s1")
    critic = PatchCritic(4, 4, "symmetric")
    state = {}
    for i in range(1, 7):
        port, ours = f"conv{i}.conv_sn", f"conv{i}"
        state[f"{ours}.bias"] = z[f"p.{port}.bias"]
        weight = state[f"{ours}.parametrizations.weight.original"] = z[f"p.{port}.weight"]
        state[f"{ours}.parametrizations.weight.0._u"] = z[f"u.{port}.weight_u"].flatten()
        state[f"{ours}.parametrizations.weight.0._v"] = torch.zeros(weight[0].numel())
    critic.load_state_dict(state)
    x = z["x"].clone().requires_grad_()
    y = critic(x)
    check_network(y, z["y"])
    (gx,) = torch.autograd.grad(y, x, z["gy"])
    check_network(gx, z["gx"])
    for i in range(1, 7):
        u = critic.get_submodule(f"conv{i}.parametrizations.weight.0")._u
        check_network(u, z[f"u_after.conv{i}.conv_sn.weight_u"].flatten())


def test_parameter_counts():
    counts = parameter_counts(create_model("deepfill_v2"))
    assert counts == {"generator": 4_052_478, "discriminator": 5_946_816}
    model = create_model("deepfill_v2")
    assert sum(p.numel() for p in model.generator.coarse.parameters()) == 1_631_151


def test_sketch_reaches_the_picture_inside_the_hole_only():
    torch.manual_seed(0)
    model = create_model("deepfill_v2", base_channels=8, critic_channels=4, sketch=True)
    image = torch.rand(1, 3, 32, 32)
    hole = torch.zeros(1, 1, 32, 32)
    hole[:, :, 8:24, 8:24] = 1
    lines = torch.zeros_like(hole)
    lines[:, :, 0] = 1
    with torch.no_grad():
        plain = model.generate(image, hole)[1]
        assert torch.equal(model.generate(image, hole, lines)[1], plain)
        lines[:, :, 12] = 1
        assert not torch.equal(model.generate(image, hole, lines)[1], plain)


@pytest.mark.parametrize("options", [{"base_channels": 10}, {"padding": "reflect"}])
def test_wrong_options(options):
    with pytest.raises(ValueError, match="deepfill_v2: "):
        create_model("deepfill_v2", **options)


def plain_zhaoyuzhi(state, stage, x, padding, activation, norm):
    """One stage from the public state dict, layer by layer in plain PyTorch."""
    shapes = [(7, 1, 1), (4, 2, 1), (3, 1, 1), (4, 2, 1)]
    shapes += [(3, 1, d) for d in (1, 1, 2, 4, 8, 16, 1, 1, 1, 1, 1)] + [(7, 1, 1)]
    for at, (kernel, stride, dilation) in enumerate(shapes):
        if at in (12, 14):
            x = F.interpolate(x, scale_factor=2)
        parts = []
        for name in ("conv2d", "mask_conv2d"):
            key = f"{stage}.{at}.{name}"
            weight = state.get(f"{key}.weight")
            if weight is None:
                key = f"{stage}.{at}.gated_conv2d.{name}.module"
                matrix = state[f"{key}.weight_bar"].flatten(1)
                sigma = state[f"{key}.weight_u"] @ matrix @ state[f"{key}.weight_v"]
                weight = state[f"{key}.weight_bar"] / sigma
            sides = [{7: 3, 4: 1, 3: dilation}[kernel]] * 4
            padded = F.pad(x, sides, PADS[padding])
            parts.append(F.conv2d(padded, weight, state[f"{key}.bias"], stride, 0, dilation))
        x = parts[0] * parts[1].sigmoid()
        if 0 < at < 15 and norm == "instance":
            x = F.instance_norm(x)
        x = x.tanh() if at == 15 else ACTIVATIONS[activation](x)
    return x


PADS = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate"}
ACTIVATIONS = {
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "relu": F.relu,
    "selu": F.selu,
    "identity": lambda x: x,
}
STYLES = [
    ("zeros", "leaky_relu", "instance"),
    ("reflect", "relu", "instance"),
    ("replicate", "selu", "instance"),
    ("reflect", "selu", "none"),
    ("replicate", "leaky_relu", "none"),
    ("zeros", "identity", "none"),
]


@pytest.mark.parametrize("style", STYLES)
def test_zhaoyuzhi_equals_plain_layers(style):
    shapes = {
        key: tuple(n // 8 if n > 7 and i < 2 else n for i, n in enumerate(shape))
        for key, shape in manifest("deepfillv2.zhaoyuzhi").items()
    }
    shapes = {
        key: (math.prod(shapes[key.replace("weight_v", "weight_bar")][1:]),)
        if key.endswith("weight_v")
        else shape
        for key, shape in shapes.items()
    }
    state = synthetic(shapes)
    given = dict(zip(("padding", "activation", "norm"), style))
    model = create_model("deepfill_v2", weights=state, critic_channels=4, **given)
    assert model.variant == "zhaoyuzhi"
    image = torch.rand(1, 3, 72, 80, generator=torch.Generator().manual_seed(3))
    hole = torch.zeros(1, 1, 72, 80)
    hole[:, :, 8:20, 10:30] = 1
    # Instance norms of small maps magnify float32's rounding: float64 it is.
    exact = {key: value.double() for key, value in state.items()}
    model.eval().double()
    seen, cells = image.double(), hole.double()
    damaged = torch.cat([seen * (1 - cells) + cells, cells], 1)
    first = plain_zhaoyuzhi(exact, "coarse", damaged, *style)
    merged = torch.cat([seen * (1 - cells) + first * cells, cells], 1)
    second = plain_zhaoyuzhi(exact, "refinement", merged, *style)
    with torch.no_grad():
        ours = model.generator(seen, cells)
        torch.testing.assert_close(ours, (first, second), rtol=0, atol=1e-9)
        second = model.float().generator(image, hole)[1]
    filled = model.complete(image, hole)
    torch.testing.assert_close(filled, composite(image, second.clamp(0, 1), hole))
    recipe = model.recipe()
    losses = recipe.step(image, hole)
    assert all(math.isfinite(value) for value in losses.values())


@pytest.mark.parametrize("style", STYLES)
def test_zhaoyuzhi_critics_and_small_pictures(style):
    """The critic against plain layers, and pictures smaller than a reflection asks for."""
    padding, activation, norm = style
    torch.manual_seed(0)
    model = create_model(
        "deepfill_v2",
        variant="zhaoyuzhi",
        base_channels=4,
        critic_channels=4,
        padding=padding,
        activation=activation,
        norm=norm,
    ).eval()
    x = torch.rand(2, 4, 64, 64)
    with torch.no_grad():
        for index in range(1, 7):
            # Power iterations, which run in evaluation too, stand still at singular vectors.
            norms = model.discriminator.get_submodule(f"block{index}").parametrizations.weight
            u, _, v = torch.linalg.svd(norms.original.flatten(1), full_matrices=False)
            norms[0]._u.copy_(u[:, 0])
            norms[0]._v.copy_(v[0])
        expected = x
        for index in range(1, 7):
            block = model.discriminator.get_submodule(f"block{index}")
            sides, stride = ([3] * 4, 1) if index == 1 else ([1] * 4, 2)
            padded = F.pad(expected, sides, PADS[padding])
            expected = F.conv2d(padded, block.weight, block.bias, stride)
            if 1 < index < 6 and norm == "instance":
                expected = F.instance_norm(expected)
            expected = expected if index == 6 else ACTIVATIONS[activation](expected)
        torch.testing.assert_close(model.discriminator(x), expected, rtol=1e-4, atol=1e-5)
    image, hole = torch.rand(1, 3, 24, 20), torch.zeros(1, 1, 24, 20)
    hole[:, :, 5:15, 6:16] = 1
    result = model.complete(image, hole)
    assert torch.equal(result[:, :, :5], image[:, :, :5])
    model.train()
    recipe = model.recipe()
    losses = recipe.step(torch.rand(1, 3, 80, 80), F.pad(hole, (0, 60, 0, 56)))
    assert all(value == value for value in losses.values())


def test_options_of_the_other_variant():
    with pytest.raises(ValueError, match="padding of official must be one of same, symmetric"):
        create_model("deepfill_v2", padding="reflect")
    with pytest.raises(ValueError, match="norm of zhaoyuzhi must be one of instance, none"):
        create_model("deepfill_v2", variant="zhaoyuzhi", norm="batch")
