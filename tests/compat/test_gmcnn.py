"""shepnerd's losses and layers."""

import functools
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from compat import twins
from support import check_close, golden
from torch import nn

from inpaint_ops.compat import shepnerd


class Features(nn.Module):
    """A small stand-in for VGG-19."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.shallow = nn.Conv2d(3, 6, 3, 4)
        self.deep = nn.Conv2d(6, 8, 3, 2)
        for parameter in self.parameters():
            parameter.data.normal_(0, 0.3, generator=generator)

    def forward(self, x):
        y = self.shallow(x).relu()
        return {"relu3_2": y, "relu4_2": self.deep(y).relu() + 0.1 * self.deep(y)}


def images(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, 40, 36, generator=generator)


def test_id_mrf():
    loss = shepnerd.IDMRFLoss(Features)
    assert [key.partition(".")[0] for key in loss.state_dict()] == ["featlayer"] * 4
    twin = Features().double()
    twin.load_state_dict(loss.featlayer.state_dict())
    gen, wide = images().requires_grad_(), images().double().requires_grad_()
    tar, true = images(1).requires_grad_(), images(1).double().requires_grad_()
    value = loss(gen, tar)
    made, wanted = twin(wide), twin(true)
    layers = {name: twins.id_mrf(made[name], wanted[name]) for name in made}
    check_close(value.detach(), (layers["relu3_2"] + 2 * layers["relu4_2"]).detach(), terms=4096)
    check_close(loss.style_loss.detach(), sum(layers.values()).detach(), terms=4096)
    check_close(loss.content_loss.detach(), layers["relu4_2"].detach(), terms=4096)
    value.backward()
    (layers["relu3_2"] + 2 * layers["relu4_2"]).backward()
    check_close(gen.grad, wide.grad, terms=16384)
    check_close(tar.grad, true.grad, terms=16384)


def test_id_mrf_weights_may_change():
    loss = shepnerd.IDMRFLoss(Features)
    whole = loss(images(), images(1))
    style, content = loss.style_loss, loss.content_loss
    loss.lambda_style, loss.lambda_content = 0.5, 3.0
    torch.testing.assert_close(loss(images(), images(1)), 0.5 * style + 3 * content)
    torch.testing.assert_close(whole, style + content)
    loss.feat_style_layers, loss.lambda_style = {"relu4_2": 2.0}, 1.0
    torch.testing.assert_close(loss(images(), images(1)), 5 * content)
    with pytest.raises(TypeError, match="tar must be a Tensor"):
        loss(images(), None)


def test_id_mrf_golden():
    data = golden("id_mrf_shepnerd")
    loss = shepnerd.IDMRFLoss(Features)
    for case in ("c00", "c01"):
        value = loss.mrf_loss(data[f"{case}.gen"], data[f"{case}.tar"])
        assert value.item() == pytest.approx(data[f"{case}.loss"], rel=1e-5)


@functools.cache
def vgg_state():
    """Weights in the keys of torchvision's features, small and reproducible."""
    generator = torch.Generator().manual_seed(0)
    state, inputs, place = {}, 3, 0
    for count, width in ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512)):
        for _ in range(count):
            shape = (width, inputs, 3, 3)
            state[f"{place}.weight"] = torch.randn(shape, generator=generator) / (4 * inputs) ** 0.5
            state[f"{place}.bias"] = torch.zeros(width)
            inputs, place = width, place + 2
        place += 1
    return state


def test_vgg_names_and_values():
    state = vgg_state()
    network = shepnerd.VGG19FeatLayer(state)
    assert list(network.state_dict()) == [f"vgg19.{key}" for key in state]
    assert not any(p.requires_grad for p in network.parameters())
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    maps = network(x, {"relu3_2", "relu4_2", "pool_1"})
    y = x - torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    wanted = {}
    for place in range(21):  # features[11] and features[20] are the ReLUs of the two names
        if f"{place}.weight" in state:
            y = F.conv2d(y, state[f"{place}.weight"], state[f"{place}.bias"], padding=1)
        else:
            y = F.max_pool2d(y, 2) if place in (4, 9, 18) else y.relu()
        wanted[place] = y
    for name, place in (("pool_1", 4), ("relu3_2", 11), ("relu4_2", 20)):
        check_close(maps[name], wanted[place].double(), terms=65536)
    assert set(maps) == {"relu3_2", "relu4_2", "pool_1"}
    every = network(x)
    assert list(every)[:6] == ["conv1_1", "relu1_2", "conv1_3", "relu1_4", "pool_1", "conv2_1"]
    assert list(every)[-2:] == ["relu5_8", "pool_5"]
    assert len(every) == 37
    check_close(every["relu4_2"], wanted[20].double(), terms=65536)
    with pytest.raises(ValueError, match="must be its own"):
        network(x, {"relu3_1"})


def test_vgg_by_default_is_torchvisions(monkeypatch):
    made = []

    def vgg19(weights):
        made.append(weights)
        network = nn.Module()
        network.features = nn.Module()
        network.features.state_dict = vgg_state
        return network

    models = types.SimpleNamespace(
        vgg19=vgg19, VGG19_Weights=types.SimpleNamespace(IMAGENET1K_V1="imagenet")
    )
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    loss = shepnerd.IDMRFLoss()
    assert made == ["imagenet"]
    assert isinstance(loss.featlayer, shepnerd.VGG19FeatLayer)
    x = torch.rand(1, 3, 16, 16, requires_grad=True)
    loss(x, torch.rand(1, 3, 16, 16)).backward()
    assert x.grad.any()


def test_vgg_without_torchvision_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ImportError, match="install torchvision"):
        shepnerd.IDMRFLoss()


def test_confidence_golden():
    data = golden("gmcnn_confidence_mask")
    for count in (1, 7):
        weights = shepnerd.ConfidenceDrivenMaskLayer(iters=count)(data["mask"])
        check_close(weights, data[f"iter{count}"], terms=65 * 65)


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_upsampling(mode):
    x = images()[:, :, :5, :4]
    corners = None if mode == "nearest" else True
    wanted = F.interpolate(x, size=(15, 12), mode=mode, align_corners=corners)
    assert torch.equal(shepnerd.PureUpsampling(3, mode)(x), wanted)


def test_spectral_norm():
    layer = shepnerd.SpectralNorm(nn.Conv2d(3, 5, 3), power_iteration=30)
    names = ["module.bias", "module.weight_u", "module.weight_v", "module.weight_bar"]
    assert list(layer.state_dict()) == names
    y = layer(images())
    weight = layer.module.weight_bar.detach()
    weight = weight / torch.linalg.matrix_norm(weight.flatten(1), 2)
    wanted = F.conv2d(images(), weight, layer.module.bias).detach()
    torch.testing.assert_close(y.detach(), wanted, rtol=1e-3, atol=1e-4)
