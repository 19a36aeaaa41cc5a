"""Layers of public ports, written from the formulas: recognised by their values alone."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import inpaint_ops
from inpaint_ops.benchmarks.cases.port_masked_networks import MaskedConv, PatchAttention
from inpaint_ops.benchmarks.cases.port_networks import ShiftTriple


class WindowConv(nn.Conv2d):
    """Partial convolution with N / S, mask of one channel or of all, cached."""

    fault = False

    def __init__(self, *args, wide=False, both=True, **kwargs):
        super().__init__(*args, **kwargs)
        self.wide, self.both = wide, both
        shape = (self.out_channels, self.in_channels) if wide else (1, 1)
        self.ones = torch.ones(*shape, *self.kernel_size)
        self.ratio = None

    def forward(self, x, mask=None):
        masked = x if mask is None else x * mask
        with torch.no_grad():
            if mask is None:
                mask = torch.ones(1, self.in_channels if self.wide else 1, *x.shape[2:])
            options = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation}
            total = F.conv2d(mask, self.ones, **options)
            update = total.clamp(0, 1)
            self.ratio = self.ones[0].numel() / (total + 1e-8) * update
        raw = super().forward(masked)
        if self.bias is None:
            y = raw * self.ratio
        else:
            b = self.bias.view(1, -1, 1, 1)
            y = ((raw - b) * self.ratio + b) * (1 if self.fault else update)
        return (y, update) if self.both else y


class FaultyConv(WindowConv):
    """With the bias in windows that see nothing."""

    fault = True


def _mask(channels, seed=0):
    mask = (
        torch.rand(2, channels, 14, 13, generator=torch.Generator().manual_seed(seed)) > 0.4
    ).float()
    mask[:, :, 3:9, 2:9] = 0
    return mask


def _compare(layer, plain, *inputs):
    x = inputs[0]
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    found = []
    for module, image in ((layer, ours), (plain, theirs)):
        y = module(image, *inputs[1:])
        values = list(y) if isinstance(y, tuple) else [y]
        values = [v for v in values if v is not None]
        wanted = [image, *(p for p in module.parameters() if p.requires_grad)]
        upstream = torch.cos(torch.arange(values[0].numel()) * 0.9).view(values[0].shape)
        found.append([*values, *torch.autograd.grad(values[0], wanted, upstream)])
        assert all(v.stride() == v.contiguous().stride() for v in values)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_window_partial_convolution(wide, both, bias):
    torch.manual_seed(0)
    layer = WindowConv(4, 6, 3, 2, 1, bias=bias, wide=wide, both=both)
    plain = copy.deepcopy(layer)
    report = inpaint_ops.convert(layer)
    assert [row.became for row in report.rows] == ["partial_conv2d"]
    x = torch.randn(2, 4, 14, 13)
    _compare(layer, plain, x, _mask(4 if wide else 1))
    # Without a mask the layer's own forward runs.
    for a, b in zip(layer(x), plain(x), strict=True):
        assert torch.equal(a, b)
    inpaint_ops.revert(layer)
    assert type(layer) is WindowConv


@pytest.mark.parametrize("bias", [False, True])
def test_mask_convolution(bias):
    torch.manual_seed(0)
    layer = MaskedConv(4, 6, 3, 1, bias=bias)
    plain = copy.deepcopy(layer)
    report = inpaint_ops.convert(layer)
    assert [row.became for row in report.rows] == ["partial_conv2d"]
    assert list(layer.state_dict()) == list(plain.state_dict())
    x = torch.randn(2, 4, 14, 13)
    _compare(layer, plain, x, _mask(4))
    seen = []
    layer.input_conv.register_forward_hook(lambda *a: seen.append(a))
    layer(x, _mask(4))
    assert len(seen) == 1


def test_a_formula_that_differs_is_left_alone():
    layer = FaultyConv(4, 6, 3, 2, 1)
    report = inpaint_ops.convert(layer)
    assert [row.became for row in report.rows] == ["left alone"]
    assert "not those of a partial convolution" in report.rows[0].reason
    assert type(layer) is FaultyConv


class OwnForward(nn.Conv2d):
    """A convolution that is no longer one."""

    def forward(self, x):
        return super().forward(x) * 2


def test_subclasses_with_their_own_forward_are_left_alone():
    net = nn.Sequential(OwnForward(4, 4, 3, padding=1), nn.ReLU())
    x = torch.randn(1, 4, 8, 8)
    before = net(x)
    inpaint_ops.convert(net)
    assert torch.equal(net(x), before)


class Faulty(PatchAttention):
    def forward(self, f, b, mask=None):
        y, flow = super().forward(f, b, mask)
        return y * 1.001, flow


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("rate", [2, 1])
def test_contextual_attention(fuse, rate):
    torch.manual_seed(0)
    layer = PatchAttention(rate, 10.0, fuse) if rate > 1 else PatchAttention(2, 5.0, fuse)
    plain = copy.deepcopy(layer)
    report = inpaint_ops.convert(layer)
    assert [row.became for row in report.rows] == ["contextual_attention"], str(report)
    f, b = torch.randn(2, 6, 20, 24), torch.randn(2, 6, 20, 24)
    masks = (torch.rand(2, 1, 80, 96) > 0.98).float()
    masks[0, :, 20:50, 30:60] = 1
    for mask in (masks, masks[:1]):
        ours, flow = layer(f, b, mask)
        theirs, _ = plain(f, b, mask)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
        assert flow is None
    # Odd sizes and no mask: as before.
    assert torch.equal(layer(f, b)[0], plain(f, b)[0])
    layer.fuse = plain.fuse = not fuse
    assert torch.equal(layer(f, b, masks)[0], plain(f, b, masks)[0])


def test_attention_that_differs_is_left_alone():
    report = inpaint_ops.convert(Faulty())
    assert [row.became for row in report.rows] == ["left alone"]


def test_shift():
    torch.manual_seed(0)
    layer = ShiftTriple()
    plain = copy.deepcopy(layer)
    report = inpaint_ops.convert(layer)
    assert [row.became for row in report.rows] == ["shift_connection"]
    assert layer.mask is None
    x = torch.randn(2, 12, 8, 8)
    for top in (16, 24):
        mask = torch.zeros(1, 1, 64, 64)
        mask[:, :, top : top + 24, 8:40] = 1
        for m in (layer, plain):
            m.set_mask(mask)
        _compare(layer, plain, x)
