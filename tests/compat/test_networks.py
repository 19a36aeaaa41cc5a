"""Generators and critics of nipponjo (both files) and daa233: keys, golden files, inference."""

import numpy as np
import pytest
import torch
from model_cases import manifest
from support import check_close, check_network, golden, network_state
from torch import nn

from inpaint_ops.compat import daa233, nipponjo, nipponjo_tf

DAA = {"input_dim": 3, "ngf": 32, "ndf": 64}
NETWORKS = {
    "deepfillv2.nipponjo": lambda: nipponjo.Generator(),
    "deepfillv2.nipponjo_disc": lambda: nipponjo.Discriminator(4, 64),
    "deepfillv2.nipponjo_tf": lambda: nipponjo_tf.Generator(),
    "deepfillv2.nipponjo_tf_disc": lambda: nipponjo_tf.Discriminator(4, 64),
    "deepfillv1.daa233": lambda: daa233.Generator(DAA, False, None),
    "deepfillv1.daa233_local_disc": lambda: daa233.LocalDis(DAA, False),
    "deepfillv1.daa233_global_disc": lambda: daa233.GlobalDis(DAA, False),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_keys(name):
    with torch.device("meta"):
        network = NETWORKS[name]()
    got = {key: list(value.shape) for key, value in network.state_dict().items()}
    wanted = {key: list(shape) for key, shape in manifest(name).items()}
    assert got == wanted
    # Optimisers know parameters by their number.
    assert list(got) == list(wanted)


GOLDENS = {
    "deepfillv2_gen_s1": ("deepfillv2.nipponjo", 48, lambda n: nipponjo.Generator(cnum=n)),
    "deepfillv2tf_gen_s1": ("deepfillv2.nipponjo_tf", 48, lambda n: nipponjo_tf.Generator(cnum=n)),
    "deepfillv1_gen_s1": (
        "deepfillv1.daa233",
        32,
        lambda n: daa233.Generator({"input_dim": 3, "ngf": n}, True, [0]),
    ),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name):
    z = golden(name)
    file, width, make = GOLDENS[name]
    shapes = {
        key: tuple(n * z["cnum"] // width if n > 6 else n for n in shape[:2]) + tuple(shape[2:])
        for key, shape in manifest(file).items()
        if "fuse_weight" not in key
    }
    state = network_state(shapes, z["seed"], z["gain"])
    network = make(z["cnum"])
    if name == "deepfillv2_gen_s1":
        state["stage2.contextual_attention.fuse_weight"] = torch.eye(3).view(1, 1, 3, 3)
    network.load_state_dict(state, strict=True)
    image, hole = z["image_u8"][None].float() / 127.5 - 1, z["mask"][None].float()
    x = image * (1 - hole)
    if name != "deepfillv1_gen_s1":
        x = torch.cat([x, torch.ones_like(hole), hole], 1)
    with torch.no_grad():
        first, second, *flow = network(x, hole)
    check_network(first, z["x1"])
    check_network(second, z["x2"])
    assert [f.shape for f in flow] == ([hole.expand(1, 3, -1, -1).shape] if "v1" in name else [])


def test_critic_golden():
    z = golden("snpatchgan_s1")
    critic = nipponjo.Discriminator(4, 4)
    state = {key[2:]: value for key, value in z.items() if key[:2] in ("p.", "u.")}
    critic.load_state_dict(state, strict=True)
    x = z["x"].requires_grad_()
    y = critic(x)
    check_network(y.detach(), z["y"])
    y.backward(z["gy"])
    check_network(x.grad, z["gx"])
    for key, value in z.items():
        if key.startswith("u_after."):
            check_close(critic.state_dict()[key.removeprefix("u_after.")], value, terms=4096)


@pytest.mark.parametrize("flow", [False, True], ids=["", "flow"])
@pytest.mark.parametrize("port", [nipponjo, nipponjo_tf], ids=["nipponjo", "nipponjo_tf"])
def test_inference(port, flow, tmp_path):
    torch.manual_seed(0)
    torch.save({"G": port.Generator(cnum=8).state_dict()}, tmp_path / "states.pth")
    network = port.Generator(cnum=8, return_flow=flow, checkpoint=tmp_path / "states.pth")
    assert not network.training
    image, mask = torch.rand(3, 35, 42), torch.zeros(1, 35, 42)
    mask[:, 8:20, 10:30] = 1
    names = ["inpainted", "stage1", "STAGE2"] + (["flow"] if flow else [])
    pictures = network.infer(image, mask, names)
    for picture in pictures[:3]:
        assert picture.dtype == np.uint8
        assert picture.shape == (32, 40, 3)
    known = (mask[0, :32, :40] == 0).numpy()
    true = ((image[:, :32, :40] * 2 - 1 + 1) * 127.5).permute(1, 2, 0).numpy()
    assert abs(pictures[0].astype(float) - true)[known].max() <= 1
    if flow:
        assert pictures[3].shape == (1, 3, 8, 10)
        assert len(network(torch.randn(1, 5, 16, 16), torch.zeros(1, 1, 16, 16))) == 3
    else:
        with pytest.raises(ValueError, match="return_vals must be among"):
            network.infer(image, mask, ["flow"])
    alone = network.infer(image, mask, "stage1" if port is nipponjo else ["stage1"])
    assert isinstance(alone, np.ndarray if port is nipponjo else list)


def test_training_step():
    """One step of the generator against its critic, as a training script of the port makes it."""
    torch.manual_seed(0)
    generator, critic = nipponjo.Generator(cnum=8), nipponjo.Discriminator(4, 4)
    optimiser = torch.optim.Adam(generator.parameters(), lr=1e-4)
    image, hole = torch.rand(1, 3, 64, 64) * 2 - 1, torch.zeros(1, 1, 64, 64)
    hole[..., 16:40, 20:50] = 1
    x = torch.cat([image * (1 - hole), torch.ones_like(hole), hole], 1)
    first, second = generator(x, hole)
    joined = torch.cat([second * hole + image * (1 - hole), hole], 1)
    loss = (first - image).abs().mean() + (second - image).abs().mean() - critic(joined).mean()
    loss.backward()
    assert all(p.grad is not None for p in generator.parameters())
    before = [p.detach().clone() for p in generator.parameters()]
    optimiser.step()
    assert all((p != q).any() for p, q in zip(generator.parameters(), before))


def test_daa233_config_is_checked():
    with pytest.raises(TypeError, match="config must be a mapping"):
        daa233.Generator(3, False, None)
    with pytest.raises(ValueError, match="config must have 'ngf'"):
        daa233.Generator({"input_dim": 3}, False, None)
    with pytest.raises(TypeError, match="must be an int"):
        daa233.LocalDis({"input_dim": 3, "ndf": "64"})
    assert isinstance(daa233.DisConvModule(3, 4), nn.Module)
