"""zhaoyiyan's shift and guidance layers."""

import copy

import pytest
import torch
from compat import twins
from support import check_close, golden
from torch import nn

from inpaint_ops.compat.zhaoyiyan import InnerCos, InnerShiftTriple


def features(seed=0, n=2):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 8, 16, 16, generator=generator).relu() + 0.01


def image_hole():
    mask = torch.zeros(2, 1, 128, 128, dtype=torch.bool)
    mask[0, :, 32:64, 32:80] = True
    mask[1, :, 64:96, 16:64] = True
    return mask


@pytest.mark.parametrize("weight", [1, 0.5])
@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_shift(weight, device):
    layer = InnerShiftTriple(1, 1, 1, weight, 3, device)
    layer.set_mask(image_hole())
    x, wide = features().requires_grad_(), features().double().requires_grad_()
    y = layer(x)
    hole = image_hole()[:, :, ::8, ::8]
    wanted = twins.shifted(wide, hole, weight)
    assert torch.equal(y.double(), wanted)
    grad = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    y.backward(grad)
    wanted.backward(grad.double())
    check_close(x.grad, wide.grad, terms=256)
    assert (layer.bz, layer.c, layer.h, layer.w) == (2, 8, 16, 16)
    assert torch.equal(layer.flag, hole.flatten(1).long())
    assert layer.mask_all.dtype == torch.uint8
    assert not layer.state_dict()
    assert layer.get_flow() is None


def test_shift_weight_may_change():
    layer = InnerShiftTriple(triple_weight=1)
    layer.set_mask(image_hole())
    layer.triple_weight = 0
    x = features().requires_grad_()
    layer(x)[:, 8:].sum().backward()
    assert not x.grad.any()


def test_shift_window():
    """A window of 3 x 3 cells of which two must be hole; features are compared one by one."""
    layer = InnerShiftTriple(shift_sz=3, mask_thred=2)
    layer.set_mask(image_hole())
    y = layer(features())
    hole = image_hole()[:, :, ::8, ::8].double()
    near = nn.functional.conv2d(hole, hole.new_ones(1, 1, 3, 3), padding=1) >= 2
    assert torch.equal(y.double(), twins.shifted(features().double(), near))


@pytest.mark.parametrize("name", ["shift_s1", "shift_s2"])
def test_shift_golden(name):
    data = golden(name)
    layer = InnerShiftTriple(triple_weight=data["triple_weight"])
    layer.set_mask(data["mask"])
    x = data["x"].requires_grad_()
    y = layer(x)
    assert torch.equal(y, data["y"])
    y.backward(data["gy"])
    check_close(x.grad, data["gx"], terms=data["index"].shape[1])


def test_shift_goes_on_where_the_port_stops():
    layer = InnerShiftTriple()
    layer.set_mask(torch.zeros(1, 1, 128, 128))
    assert not layer(features())[:, 8:].any()
    uneven = torch.zeros(2, 1, 128, 128)
    uneven[0, :, :16, :16] = 1
    layer.set_mask(uneven)
    assert layer(features())[0, 8:].any()


def test_shift_flow_is_refused():
    layer = InnerShiftTriple()
    layer.set_mask(image_hole())
    layer.set_flow_true()
    with pytest.raises(RuntimeError, match="set_flow_true was called"):
        layer(features())
    layer.set_flow_false()
    layer(features())


@pytest.mark.parametrize("kind", [InnerShiftTriple, InnerCos])
def test_masks_are_checked(kind):
    layer = kind()
    with pytest.raises(RuntimeError, match="call set_mask"):
        layer(features())
    with pytest.raises(TypeError, match="mask_global must be a Tensor"):
        layer.set_mask("hole")
    with pytest.raises(ValueError, match=r"mask_global must be \(N, 1, H, W\)"):
        layer.set_mask(torch.zeros(128, 128))
    layer.set_mask(torch.zeros(1, 1, 64, 64))
    with pytest.raises(ValueError, match=r"the mask must be \(2 or 1, 1, 16, 16\)"):
        layer(features())
    # More samples than features: those of the first GPU, as on one that holds the whole batch.
    layer.set_mask(torch.zeros(5, 1, 128, 128))
    layer(features())
    assert layer.cur_mask.shape[0] == 2


def pull(x, target, mask, strength, squared):
    """The gradient that the guidance adds to the decoder's."""
    difference = x[:, :4].double() * mask - target.double()
    grad = 2 * difference if squared else difference.sign()
    return strength * grad / difference.numel()


@pytest.mark.parametrize(("crit", "strength"), [("MSE", 1), ("MSE", 3.5), ("L1", 0.3)])
def test_guidance(crit, strength):
    layer = InnerCos(crit, strength)
    layer.set_mask(image_hole())
    mask = image_hole()[:, :, ::8, ::8].double()
    # The first target is the number one; afterwards the encoder feature of the call before.
    target = torch.ones(2, 4, 16, 16)
    for seed in range(3):
        x = features(seed).requires_grad_()
        y = layer(x)
        assert torch.equal(y, x)
        grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)) * 1e-3
        arrived = grad.clone()
        y.backward(arrived)
        wanted = grad.double()
        wanted[:, :4] += pull(x.detach(), target, mask, strength, crit == "MSE")
        check_close(x.grad, wanted, terms=64)
        assert torch.equal(arrived, grad)
        difference = x[:, :4].detach().double() * mask - target.double()
        value = (difference.square() if crit == "MSE" else difference.abs()).mean() * strength
        check_close(layer.loss, value, terms=2048)
        assert not layer.loss.requires_grad
        target = x[:, 4:].detach()
        assert torch.equal(layer.target, target)
    assert (layer.bz, layer.c) == (2, 8)
    copy.deepcopy(layer)
    assert not layer.state_dict()


def test_guidance_of_another_batch_size():
    layer = InnerCos()
    layer.set_mask(image_hole())
    layer(features())
    layer.set_mask(image_hole()[:1])
    x = features(1, n=1).requires_grad_()
    layer(x).sum().backward()
    mask = image_hole()[:1, :, ::8, ::8].double()
    wanted = torch.ones(1, 8, 16, 16, dtype=torch.float64)
    wanted[:, :4] += pull(x.detach(), features()[:1, 4:], mask, 1, True)
    check_close(x.grad, wanted, terms=64)


def test_guidance_skipped():
    layer = InnerCos(skip=1)
    layer.set_mask(image_hole())
    x = features()
    assert layer(x) is x
    assert layer.target.dim() == 0


def test_guidance_golden():
    data = golden("guidance_s1")
    layer = InnerCos(strength=data["strength"])
    layer.set_mask(data["mask"])
    layer(data["x_gt"])
    x = data["x"].requires_grad_()
    layer(x).backward(data["gy"])
    check_close(x.grad, data["gx"])


def test_guidance_derivatives():
    layer = InnerCos(strength=2.0).double()
    layer.set_mask(torch.ones(1, 1, 16, 16))
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(grad.sum(), x)
    wanted = torch.zeros_like(x)
    wanted[:, :2] = 2 * 2.0 / 8
    torch.testing.assert_close(second, wanted)


def test_training_step():
    """The two layers in the order of the network, with two passes an iteration."""
    cos, shift = InnerCos(strength=1), InnerShiftTriple()
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), cos, shift, nn.Conv2d(12, 3, 1))
    for layer in (cos, shift):
        layer.set_mask(image_hole())
    images = torch.randn(2, 3, 16, 16)
    network(images)
    network(images * 0.5).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
