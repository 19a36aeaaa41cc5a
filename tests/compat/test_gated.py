"""Gated convolutions and blocks of nipponjo, zhaoyuzhi and daa233."""

import copy
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from compat import twins
from compat.agreement import agree, exchange
from support import check_close, golden
from torch import nn
from torch.nn.utils import prune

from inpaint_ops.compat import daa233, nipponjo, nipponjo_tf, zhaoyuzhi

MANIFESTS = Path(__file__).parents[1] / "manifests"
X = torch.randn(2, 4, 14, 11, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("sizes", "padding", "options"),
    [
        ((6, 3), 1, {}),
        ((6, 5, 2), 2, {"bias": False}),
        ((6, 3, 1, "auto", 4), 4, {"activation": nn.ReLU()}),
        ((6, 3, 1, 0), 0, {"activation": nn.LeakyReLU(0.1)}),
        ((6, 3), 1, {"activation": nn.PReLU()}),
        ((3, 3), 1, {"activation": None, "gated": False}),
    ],
    ids=str,
)
def test_nipponjo(sizes, padding, options):
    layer = nipponjo.GConv(4, *sizes, **options)
    stride, rate = (*sizes[2:3], 1)[0], (*sizes[4:5], 1)[0]
    activation = copy.deepcopy(options.get("activation", nn.ELU()))
    others = {k: v for k, v in options.items() if k != "activation"}
    twin = twins.Gated(4, sizes[0], sizes[1], stride, padding, rate, activation, **others)
    agree(layer, twin, X)


@pytest.mark.parametrize(
    ("sizes", "activation"),
    [((6, 3), nn.ELU()), ((6, 5, 2), nn.ReLU()), ((6, 3, 1, 4), nn.ELU()), ((6, 4, 2), nn.ELU())],
    ids=str,
)
def test_nipponjo_tf(sizes, activation):
    layer = nipponjo_tf.GConv(4, *sizes, activation=activation)
    stride, rate = (*sizes[2:3], 1)[0], (*sizes[3:4], 1)[0]
    sizes = (4, sizes[0], sizes[1], stride, 0, rate)
    agree(layer, twins.Gated(*sizes, activation, same=True), X)


@pytest.mark.parametrize(("filters", "activation"), [(3, nn.ELU()), (6, None)])
def test_nipponjo_tf_without_gate(filters, activation):
    layer = nipponjo_tf.GConv(4, filters, 3, activation=activation)
    agree(layer, twins.Gated(4, filters, 3, activation=activation, same=True, gated=False), X)


@pytest.mark.parametrize("port", [nipponjo, nipponjo_tf], ids=["nipponjo", "nipponjo_tf"])
def test_nipponjo_upsampling(port):
    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            same = port is nipponjo_tf
            padding = 0 if same else 1
            self.conv = twins.Gated(4, 6, 3, 1, padding, 1, nn.ELU(), same=same, twice=True)

        def forward(self, x):
            return self.conv(x)

    agree(port.GDeConv(4, 6), Twin(), X)


def test_nipponjo_golden():
    data = golden("gated_conv_s2")
    layer = nipponjo.GConv(8, 16, 3, stride=2)
    layer.load_state_dict({"conv.weight": data["weight"], "conv.bias": data["bias"]})
    x = data["x"].requires_grad_()
    y = layer(x)
    y.backward(data["gy"])
    check_close(y.detach(), data["y"], terms=72)
    check_close(x.grad, data["gx"], terms=288)
    check_close(layer.conv.weight.grad, data["gweight"], terms=y[:, 0].numel())
    check_close(layer.conv.bias.grad, data["gbias"], terms=y[:, 0].numel())


def test_nipponjo_keys_of_blocks():
    """The keys of the down and up blocks inside the published networks."""
    manifest = json.loads((MANIFESTS / "deepfillv2.nipponjo.json").read_text())
    with torch.device("meta"):
        parts = {
            "stage1.conv1": nipponjo.GConv(5, 24, 5, padding=2),
            "stage1.down_block1": nipponjo.GDownsamplingBlock(24, 48),
            "stage1.up_block2": nipponjo.GUpsamplingBlock(48, 12, cnum_hidden=24),
            "stage1.conv_to_rgb": nipponjo.GConv(12, 3, 3, gated=False),
            "stage2.contextual_attention": nipponjo.ContextualAttention(rate=2, fuse=True),
        }
    for prefix, part in parts.items():
        wanted = {k: v for k, v in manifest.items() if k.startswith(f"{prefix}.")}
        got = {f"{prefix}.{k}": list(v.shape) for k, v in part.state_dict().items()}
        assert got == wanted
    manifest = json.loads((MANIFESTS / "deepfillv2.nipponjo_disc.json").read_text())
    state = nipponjo.DConv(4, 64).state_dict()
    wanted = {k: v for k, v in manifest.items() if k.startswith("conv1.")}
    assert {f"conv1.{k}": list(v.shape) for k, v in state.items()} == wanted


def test_nipponjo_starts_like_the_port():
    torch.manual_seed(2)
    layer = nipponjo.GConv(4, 6, 3)
    torch.manual_seed(2)
    conv = nn.Conv2d(4, 12, 3)
    nn.init.kaiming_uniform_(conv.weight, nonlinearity="relu", mode="fan_out")
    assert torch.equal(layer.conv.weight, conv.weight)
    assert not layer.conv.bias.any()


@pytest.mark.parametrize("port", [nipponjo, nipponjo_tf], ids=["nipponjo", "nipponjo_tf"])
def test_nipponjo_critic_layer(port):
    """The weight is divided in place, call by call; gradients do not know of it."""
    layer = port.DConv(4, 6)
    weight, u = layer.conv_sn.weight.detach().double().clone(), layer.conv_sn.weight_u.double()
    bias = layer.conv_sn.bias.detach().double()
    for _ in range(3):
        x = X.clone().requires_grad_()
        y = layer(x)
        rows = weight.flatten(1)
        v = F.normalize(rows.t() @ u, dim=0)
        u = F.normalize(rows @ v, dim=0)
        weight = weight / (u.t() @ rows @ v)
        weight.requires_grad_()
        wide = X.double().requires_grad_()
        padded = twins.same_padded(wide, 5, 2) if port is nipponjo_tf else F.pad(wide, [2] * 4)
        wanted = F.leaky_relu(F.conv2d(padded, weight, bias, 2), 0.2)
        check_close(y.detach(), wanted.detach(), terms=400)
        layer.zero_grad()
        y.sum().backward()
        grads = torch.autograd.grad(wanted.sum(), (wide, weight))
        check_close(x.grad, grads[0], terms=4096)
        check_close(layer.conv_sn.weight.grad, grads[1], terms=4096)
        weight = weight.detach()
        check_close(layer.conv_sn.weight.detach(), weight, terms=4096)
        check_close(layer.conv_sn.weight_u, u, terms=4096)


ZHAOYUZHI = [
    {"activation": "lrelu"},
    {"pad_type": "reflect", "norm": "in", "stride": 2},
    {"pad_type": "replicate", "norm": "ln", "activation": "none"},
    {"norm": "bn", "activation": "tanh", "dilation": 2},
    {"sn": True, "activation": "selu"},
    {"sn": True, "norm": "in", "pad_type": "reflect"},
    {"activation": "prelu"},
    {"activation": "sigmoid", "pad_type": "reflect"},
    {"activation": "relu", "padding": 0},
]


@pytest.mark.parametrize("options", ZHAOYUZHI, ids=str)
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_zhaoyuzhi(options, gated):
    options = {"padding": 1, "pad_type": "zero", **options}
    kind = zhaoyuzhi.GatedConv2d if gated else zhaoyuzhi.Conv2dLayer
    twin = twins.Block(4, 6, 3, gated=gated, **options)
    calls = 2 if options.get("sn") else 1
    agree(kind(4, 6, 3, **options), twin, X, calls=calls, terms=1024)


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
def test_zhaoyuzhi_upsampling(gated, factor):
    name = "gated_conv2d" if gated else "conv2d"

    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            self.add_module(name, twins.Block(4, 6, 3, padding=1, gated=gated, sn=gated))

        def forward(self, x):
            return getattr(self, name)(F.interpolate(x, scale_factor=factor, mode="nearest"))

    kind = zhaoyuzhi.TransposeGatedConv2d if gated else zhaoyuzhi.TransposeConv2dLayer
    layer = kind(4, 6, 3, padding=1, scale_factor=factor)
    agree(layer, Twin(), X, calls=2, terms=1024)


def test_zhaoyuzhi_keys():
    manifest = json.loads((MANIFESTS / "deepfillv2.zhaoyuzhi.json").read_text())
    shapes = {k.partition("coarse.12.")[2]: v for k, v in manifest.items() if ".12." in k}
    wanted = {k: v for k, v in shapes.items() if k.startswith("gated_conv2d.")}
    layer = zhaoyuzhi.TransposeGatedConv2d(256, 128, 3, 1, 1, activation="lrelu")
    assert {k: list(v.shape) for k, v in layer.state_dict().items()} == wanted


def test_zhaoyuzhi_spectral_norm_of_any_module():
    layer = zhaoyuzhi.SpectralNorm(nn.Linear(11, 5))
    names = ["module.bias", "module.weight_u", "module.weight_v", "module.weight_bar"]
    assert [name for name, _ in layer.named_parameters()] == names
    with torch.no_grad():
        for _ in range(50):
            y = layer(X)
    weight, bias = layer.module.weight_bar.detach(), layer.module.bias
    weight = weight / torch.linalg.matrix_norm(weight, 2)
    torch.testing.assert_close(y, F.linear(X, weight, bias).detach(), rtol=1e-3, atol=1e-4)
    assert not hasattr(layer.module, "weight")
    copy.deepcopy(layer)


def test_zhaoyuzhi_weights_changed_by_hooks():
    """Pruning and spectral norm of older style act on the two convolutions."""
    layer = zhaoyuzhi.GatedConv2d(4, 6, 3, padding=1, activation="none")
    prune.l1_unstructured(layer.conv2d, "weight", 0.5)
    nn.utils.spectral_norm(layer.mask_conv2d)
    y = layer(X)
    features, gates = (
        F.conv2d(F.pad(X, [1] * 4, "reflect"), conv.weight, conv.bias)
        for conv in (layer.conv2d, layer.mask_conv2d)
    )
    torch.testing.assert_close(y, features * gates.sigmoid(), rtol=1e-4, atol=1e-5)


def test_zhaoyuzhi_hook_that_changes_the_input_raises():
    layer = zhaoyuzhi.GatedConv2d(4, 6, 3)
    layer.mask_conv2d.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    with pytest.raises(RuntimeError, match="register it on the layer"):
        layer(X)


DAA233 = [
    {"conv_padding": 1},
    {"padding": 1, "pad_type": "reflect", "activation": "elu"},
    {"padding": 1, "conv_padding": 1, "activation": "lrelu"},
    {"padding": 1, "conv_padding": 1, "pad_type": "replicate", "norm": "bn"},
    {"pad_type": "none", "norm": "in", "activation": "selu"},
    {"activation": "prelu"},
    {"activation": "none"},
    {"transpose": True, "activation": "tanh"},
]


@pytest.mark.parametrize("options", DAA233, ids=str)
def test_daa233_block(options):
    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            pad_type = options.get("pad_type", "zero")
            pad_type = "zero" if pad_type == "none" else pad_type
            self.pad = twins.PADS[pad_type](options.get("padding", 0))
            self.norm = twins.NORMS[options.get("norm", "none")](6)
            self.activation = twins.ACTIVATIONS[options.get("activation", "relu")]()
            kind = nn.ConvTranspose2d if options.get("transpose") else nn.Conv2d
            self.conv = kind(4, 6, 3, 1, options.get("conv_padding", 0))

        def forward(self, x):
            return self.activation(self.norm(self.conv(self.pad(x))))

    agree(daa233.Conv2dBlock(4, 6, 3, 1, **options), Twin(), X, terms=1024)


@pytest.mark.parametrize(("make", "slope"), [(daa233.gen_conv, None), (daa233.dis_conv, 0.2)])
def test_daa233_functions(make, slope):
    layer = make(4, 6, 5, 2, 2)
    y = layer(X)
    z = F.conv2d(X, layer.conv.weight, layer.conv.bias, 2, 2)
    wanted = F.elu(z) if slope is None else F.leaky_relu(z, slope)
    torch.testing.assert_close(y, wanted, rtol=1e-4, atol=1e-5)
    assert list(layer.state_dict()) == ["conv.weight", "conv.bias"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_daa233_weight_norms():
    keys = {
        "sn": ["conv.bias", "conv.weight_orig", "conv.weight_u", "conv.weight_v"],
        "wn": ["conv.bias", "conv.weight_g", "conv.weight_v"],
    }
    for word, wanted in keys.items():
        layer = daa233.Conv2dBlock(4, 6, 3, 1, weight_norm=word, activation="none")
        y = layer(X)
        z = F.conv2d(X, layer.conv.weight, layer.conv.bias)
        torch.testing.assert_close(y, z, rtol=1e-4, atol=1e-5)
        assert list(layer.state_dict()) == wanted
        y.sum().backward()
        name = "weight_orig" if word == "sn" else "weight_g"
        assert getattr(layer.conv, name).grad is not None


@pytest.mark.parametrize("where", ["conv", "activation", "pad"])
def test_hooks_are_called(where):
    """Whoever watches a module inside a block sees what it would see in the port."""
    layer = zhaoyuzhi.Conv2dLayer(4, 6, 3, padding=1, pad_type="reflect")
    twin = exchange(layer, twins.Block(4, 6, 3, padding=1, pad_type="reflect"))
    seen = []
    module = layer.conv2d if where == "conv" else getattr(layer, where)
    other = twin.conv2d if where == "conv" else getattr(twin, where)
    module.register_forward_hook(lambda _, args, y: seen.append(y.detach().clone()))
    other.register_forward_hook(lambda _, args, y: seen.append(y.detach().clone()))
    y, wanted = layer(X), twin(X.double())
    check_close(y.detach(), wanted.detach(), terms=64)
    assert len(seen) == 2
    if where != "conv":
        check_close(seen[0], seen[1], terms=64)
