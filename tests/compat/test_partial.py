"""NVIDIA's and naoto0804's partial convolutions."""

import json
from pathlib import Path

import pytest
import torch
from compat import twins
from compat.agreement import agree
from golden_networks import drawn_state, network_golden
from support import check_close, check_network, golden
from torch import nn
from torch.nn.utils import prune

from inpaint_ops.compat import naoto0804, nvidia

MANIFESTS = Path(__file__).parents[1] / "manifests"


def inputs(channels, size=(13, 11), seed=0):
    """An image and a mask with windows that see nothing."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 4, *size, generator=generator)
    mask = (torch.rand(2, channels, *size, generator=generator) > 0.4).float()
    mask[:, :, :6, :6] = 0
    return x, mask


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
@pytest.mark.parametrize(
    "options",
    [{}, {"stride": 2}, {"dilation": 2, "padding": 2}, {"multi_channel": True, "groups": 2}],
    ids=str,
)
@pytest.mark.parametrize("return_mask", [False, True], ids=["y", "y-mask"])
def test_nvidia(options, bias, return_mask):
    options = {"padding": 1, "bias": bias, "return_mask": return_mask, **options}
    x, mask = inputs(4 if options.get("multi_channel") else 1)
    layer = nvidia.PartialConv2d(4, 6, 3, **options)
    assert isinstance(layer, nn.Conv2d)
    assert layer.slide_winsize == (36 if options.get("multi_channel") else 9)
    agree(layer, twins.Partial(4, 6, 3, **options), x, mask)


def test_nvidia_without_mask_forgets_the_last_one():
    x, mask = inputs(1)
    layer, twin = nvidia.PartialConv2d(4, 6, 3, padding=1), twins.Partial(4, 6, 3, padding=1)
    layer(x, mask)
    agree(layer, twin, x)


@pytest.mark.parametrize(
    "sizes", [(3, 1, 1), (5, 2, 2), (3, 1, 2, 2), (3, 1, 1, 1, 2), (3, 1, 1, 1, 1, False)], ids=str
)
def test_naoto0804(sizes):
    x, mask = inputs(4)
    _, known = agree(naoto0804.PartialConv(4, 6, *sizes), twins.SumPartial(4, 6, *sizes), x, mask)
    assert not known.all()
    assert not known.requires_grad


def test_naoto0804_soft_mask_and_one_mask_for_all():
    x, _ = inputs(4)
    soft = torch.rand(1, 4, 13, 11, generator=torch.Generator().manual_seed(3))
    agree(naoto0804.PartialConv(4, 6, 3, 1, 1), twins.SumPartial(4, 6, 3, 1, 1), x, soft)


CASES = range(5)


@pytest.mark.parametrize("case", CASES)
def test_naoto0804_golden(case):
    data = golden("partialconv_naoto0804_layer")
    option = json.loads(data["cases"])[case]
    data = {k.partition(".")[2]: v for k, v in data.items() if k.startswith(f"c{case:02d}.")}
    _, cin, cout, _, _ = option["shape"]
    where = [option[name] for name in ("k", "stride", "pad", "dil", "groups", "bias")]
    layer = naoto0804.PartialConv(cin, cout, *where)
    layer.input_conv.weight.data = data["weight"]
    if option["bias"]:
        layer.input_conv.bias.data = data["bias"]
    x = data["x"].requires_grad_()
    y, mask = layer(x, data["mask"])
    y.backward(data["gout"])
    assert torch.equal(mask, data["mask_out"])
    pixels = y[:, 0].numel()
    check_close(y.detach(), data["out"], terms=layer.input_conv.weight[0].numel())
    check_close(x.grad, data["gx"], terms=layer.input_conv.weight[:, 0].numel())
    check_close(layer.input_conv.weight.grad, data["gweight"], terms=pixels)
    if option["bias"]:
        check_close(layer.input_conv.bias.grad, data["gbias"], terms=pixels)


def test_naoto0804_three_channel_mask_is_asked_for():
    layer = naoto0804.PartialConv(3, 4, 3)
    with pytest.raises(
        ValueError, match=r"mask must have shape \(N, 3, H, W\), got \(1, 1, 8, 8\)"
    ):
        layer(torch.randn(1, 3, 8, 8), torch.ones(1, 1, 8, 8))


def test_naoto0804_starts_like_the_port():
    torch.manual_seed(5)
    layer = naoto0804.PartialConv(4, 6, 3)
    torch.manual_seed(5)
    twin = twins.SumPartial(4, 6, 3)
    for key, value in twin.state_dict().items():
        assert torch.equal(layer.state_dict()[key], value), key
    assert not layer.mask_conv.weight.requires_grad


@pytest.mark.parametrize(
    ("options", "kernel"),
    [({}, 3), ({"sample": "down-7", "bn": False, "activ": "leaky", "conv_bias": True}, 7)],
)
def test_naoto0804_block(options, kernel):
    class Twin(nn.Module):
        def __init__(self):
            super().__init__()
            stride = 1 if kernel == 3 else 2
            sizes = (4, 6, kernel, stride, kernel // 2)
            self.conv = twins.SumPartial(*sizes, bias=options.get("conv_bias", False))
            if options.get("bn", True):
                self.bn = nn.BatchNorm2d(6)
            self.activation = nn.LeakyReLU(0.2) if options else nn.ReLU()

        def forward(self, x, mask):
            y, known = self.conv(x, mask)
            return self.activation(self.bn(y) if hasattr(self, "bn") else y), known

    agree(naoto0804.PCBActiv(4, 6, **options), Twin(), *inputs(4), terms=4096)


def test_naoto0804_network_keys():
    manifest = json.loads((MANIFESTS / "partialconv.naoto0804.json").read_text())
    with torch.device("meta"):
        network = naoto0804.PConvUNet()
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == manifest
    names = [name.rpartition(".")[0] for name in state]
    order = [f"enc_{i}" for i in range(1, 8)] + [f"dec_{i}" for i in (5, 6, 7, 4, 3, 2, 1)]
    assert list(dict.fromkeys(name.partition(".")[0] for name in names)) == order


def test_naoto0804_network_golden():
    data, recipe = network_golden("pconvunet_naoto0804_ls5_64")
    network = naoto0804.PConvUNet(layer_size=5).eval()
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    network.load_state_dict(drawn_state(shapes, recipe, data["param_sum"]), strict=True)
    x = data["x"].requires_grad_()
    y, mask = network(x, data["mask"])
    check_network(y.detach(), data["out"])
    assert torch.equal(mask, data["mask_out"])
    (gx,) = torch.autograd.grad(y, x, data["gout"])
    assert (gx - data["gx"]).norm() <= 5e-3 * data["gx"].norm()


def test_naoto0804_freezing():
    network = naoto0804.PConvUNet(layer_size=4)
    network.freeze_enc_bn = True
    network.train()
    assert not network.enc_2.bn.training
    assert network.dec_2.bn.training
    network.freeze_enc_bn = False
    assert network.train().enc_2.bn.training


@pytest.mark.parametrize("hooked", ["spectral_norm", "prune"])
def test_reparametrised_weights_are_used(hooked):
    layer = naoto0804.PartialConv(4, 6, 3, 1, 1)
    if hooked == "prune":
        prune.l1_unstructured(layer.input_conv, "weight", 0.5)
    else:
        nn.utils.spectral_norm(layer.input_conv)
    x, mask = inputs(4)
    y, _ = layer(x, mask)
    twin = twins.SumPartial(4, 6, 3, 1, 1)
    state = {"weight": layer.input_conv.weight.detach(), "bias": layer.input_conv.bias}
    twin.input_conv.load_state_dict(state)
    check_close(y.detach(), twin.double()(x.double(), mask.double())[0].detach())
