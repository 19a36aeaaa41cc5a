"""DeepFill v2: numbers of the public ports, parameter counts, sketch, critic."""

import math

import pytest
import torch
import torch.nn.functional as F
from model_cases import manifest, synthetic
from support import check_network, golden, network_state

from inpaint_ops.models import create_model, parameter_counts
from inpaint_ops.models._blocks import composite
from inpaint_ops.models.deepfill_v2 import PatchCritic


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
    model = create_model("deepfill_v2", weights=state)
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


def plain_zhaoyuzhi(state, stage, x):
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
            padding = {7: 3, 4: 1, 3: dilation}[kernel]
            bias = state[f"{key}.bias"]
            parts.append(F.conv2d(x, weight, bias, stride, padding, dilation))
        x = parts[0] * parts[1].sigmoid()
        if 0 < at < 15:
            x = F.instance_norm(x)
        x = x.tanh() if at == 15 else F.leaky_relu(x, 0.2)
    return x


def test_zhaoyuzhi_equals_plain_layers():
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
    model = create_model("deepfill_v2", weights=state)
    assert model.variant == "zhaoyuzhi"
    image = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(3))
    hole = torch.zeros(1, 1, 32, 40)
    hole[:, :, 8:20, 10:30] = 1
    first = plain_zhaoyuzhi(state, "coarse", torch.cat([image * (1 - hole) + hole, hole], 1))
    merged = image * (1 - hole) + first * hole
    second = plain_zhaoyuzhi(state, "refinement", torch.cat([merged, hole], 1))
    model.eval()
    with torch.no_grad():
        ours = model.generator(image, hole)
    check_network(ours[0], first)
    check_network(ours[1], second)
    filled = model.complete(image, hole)
    check_network(filled, composite(image, second.clamp(0, 1), hole))
    recipe = model.recipe()
    losses = recipe.step(image, hole)
    assert all(math.isfinite(value) for value in losses.values())
