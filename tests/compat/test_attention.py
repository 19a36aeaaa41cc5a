"""Contextual attention of nipponjo (both files) and daa233."""

import pytest
import torch
import torch.nn.functional as F
from compat import twins
from support import check_close, golden
from torch import nn

from inpaint_ops.compat import daa233, nipponjo, nipponjo_tf
from inpaint_ops.layers import flow_picture

LAYERS = {
    "nipponjo": (nipponjo.ContextualAttention, {}),
    "nipponjo_tf": (nipponjo_tf.ContextualAttention, {"pick": "align_corners"}),
    "daa233": (daa233.ContextualAttention, {"key_norm": "sum"}),
}


def inputs():
    """Features, and masks of which the second differs."""
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(2, 6, 12, 16, generator=generator) * 0.3
    mask = torch.zeros(2, 1, 48, 64)
    mask[0, :, 10:30, 8:30] = 1
    mask[1, :, 30:, 40:] = 1
    return f, mask


@pytest.mark.parametrize("masked", [True, False], ids=["mask", "whole"])
@pytest.mark.parametrize("fuse", [False, True], ids=["plain", "fuse"])
@pytest.mark.parametrize("name", LAYERS)
def test_twin(name, fuse, masked):
    kind, rules = LAYERS[name]
    layer = kind(rate=2, fuse=fuse)
    f, mask = inputs()
    mask = mask if masked else None
    mine, wide = f.clone().requires_grad_(), f.double().requires_grad_()
    result = layer(mine, mine, mask)
    wanted, index = twins.attention(wide, wide, mask, fuse=fuse, **rules)
    assert type(result) is tuple
    assert len(result) == 2
    check_close(result[0].detach(), wanted.detach(), terms=1024)
    grad = torch.randn(f.shape, generator=torch.Generator().manual_seed(1))
    result[0].backward(grad)
    wanted.backward(grad.double())
    check_close(mine.grad, wide.grad, terms=16384)
    if name == "daa233":
        picture = flow_picture(index.view(2, 6, 8), 8)
        assert torch.equal(result[1], F.interpolate(picture, scale_factor=8, mode="nearest"))
    else:
        assert result[1] is None


@pytest.mark.parametrize("name", ["nipponjo", "nipponjo_tf"])
def test_flow(name):
    kind, rules = LAYERS[name]
    f, mask = inputs()
    _, flow = kind(rate=2, return_flow=True)(f, f, mask)
    fuse = name == "nipponjo_tf"
    _, index = twins.attention(f.double(), f.double(), mask, fuse=fuse, **rules)
    picture = flow_picture(index.view(2, 6, 8), 8)
    wanted = F.interpolate(picture, scale_factor=2, mode="bilinear", align_corners=True)
    assert torch.equal(flow, wanted)
    assert flow.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("nipponjo", "ca_nipponjo_s1"),
        ("nipponjo", "ca_nipponjo_s2"),
        ("nipponjo_tf", "ca_nipponjo_tf_s1"),
        ("daa233", "ca_daa233_s1"),
        ("daa233", "ca_daa233_s2"),
    ],
)
def test_golden(name, file):
    data = golden(file)
    layer = LAYERS[name][0](rate=data["rate"], fuse=bool(data["fuse"]))
    layer.return_flow = name != "daa233"
    f = data["f"].requires_grad_()
    b = data.get("b", data["f"]).detach().clone().requires_grad_()
    y, flow = layer(f, b, data.get("mask"))
    grads = torch.autograd.grad(y, (f, b), data["gy"])
    check_close(y.detach(), data["y"], terms=64)
    for grad, wanted in zip(grads, (data["gf"], data["gb"])):
        check_close(grad, wanted, terms=1024)
    if "flow" in data:
        assert torch.equal(flow, data["flow"])


def test_state_dicts():
    """One port keeps the constant of the fuse step among its buffers, the others nothing."""
    layer = nipponjo.ContextualAttention(rate=2)
    state = layer.state_dict()
    assert list(state) == ["fuse_weight"]
    assert torch.equal(state["fuse_weight"], torch.eye(3).view(1, 1, 3, 3))
    layer.load_state_dict(state, strict=True)
    assert "fuse_weight" in state
    with pytest.raises(RuntimeError, match="Missing key"):
        layer.load_state_dict({}, strict=True)
    for kind in (nipponjo_tf.ContextualAttention, daa233.ContextualAttention):
        assert not kind(rate=2).state_dict()
        with pytest.raises(RuntimeError, match="Unexpected key"):
            kind(rate=2).load_state_dict(state, strict=True)


def test_buffer_follows_the_module():
    layer = nn.Sequential(nipponjo.ContextualAttention(rate=2)).double()
    assert layer[0].fuse_weight.dtype == torch.float64
    f, mask = inputs()
    y, _ = layer[0](f.double(), f.double(), mask)
    assert y.dtype == torch.float64


def test_attributes_stay():
    layer = daa233.ContextualAttention(3, 1, 2, 3, 10, True, True, [0, 1])
    names = ("ksize", "stride", "rate", "fuse_k", "softmax_scale", "fuse", "use_cuda", "device_ids")
    assert [getattr(layer, name) for name in names] == [3, 1, 2, 3, 10, True, True, [0, 1]]
    assert nipponjo.ContextualAttention().rate == 1


def test_mask_of_wrong_size_raises():
    f, _ = inputs()
    with pytest.raises(ValueError, match=r"mask must have shape \(N, 1, 48, 64\)"):
        daa233.ContextualAttention(rate=2)(f, f, torch.zeros(1, 1, 12, 16))
    with pytest.raises(TypeError, match="mask must be a Tensor"):
        nipponjo.ContextualAttention(rate=2)(f, f, "mask")
