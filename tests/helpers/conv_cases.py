"""Inputs and checks shared by the tests of the convolution operators."""

import itertools

import torch
from support import check_close

import inpaint_ops
from inpaint_ops import reference
from inpaint_ops.ops import shortcut
from inpaint_ops.ops.convolution import plan, spec

FORMATS = [torch.contiguous_format, torch.channels_last]
FORMAT_IDS = ["contiguous", "channels_last"]

# name: (shape of x, filters, kernel, options)
GEOMETRIES = {
    "3x3": ((2, 21, 19, 23), 26, (3, 3), {"padding": 1}),
    "3x3-no-padding": ((1, 5, 17, 14), 34, (3, 3), {}),
    "3x3-wide-padding": ((1, 4, 9, 10), 6, (3, 3), {"padding": 5}),
    "3x3-deep": ((1, 150, 12, 13), 70, (3, 3), {"padding": 1}),
    "3x3-reflect": ((1, 8, 11, 13), 10, (3, 3), {"padding": 1, "padding_mode": "reflect"}),
    "3x3-dilated": ((2, 6, 21, 18), 12, (3, 3), {"padding": 4, "dilation": 4}),
    "3x3-dilated-replicate": (
        (1, 6, 15, 16),
        12,
        (3, 3),
        {"padding": (2, 3), "dilation": (2, 3), "padding_mode": "replicate"},
    ),
    "3x3-upsampled": ((1, 18, 9, 11), 20, (3, 3), {"padding": 1, "upsample": 2}),
    "3x3-upsampled-reflect": (
        (1, 3, 9, 8),
        4,
        (3, 3),
        {"padding": 1, "upsample": 2, "padding_mode": "reflect"},
    ),
    "3x3-same-even": ((1, 7, 16, 18), 8, (3, 3), {"padding": "same", "stride": 2}),
    "3x3-same-odd": ((1, 7, 15, 17), 8, (3, 3), {"padding": "same", "stride": 2}),
    "3x3-one-pixel": ((1, 3, 1, 1), 4, (3, 3), {"padding": 1}),
    "5x5": ((2, 5, 20, 28), 48, (5, 5), {"padding": 2}),
    "5x5-dilated": ((1, 20, 19, 20), 6, (5, 5), {"padding": 8, "dilation": 4}),
    "5x5-large-tiles": ((1, 61, 10, 11), 24, (5, 5), {"padding": 2}),
    "7x7-large-tiles": (
        (1, 31, 13, 15),
        20,
        (7, 7),
        {"padding": 6, "dilation": 2, "padding_mode": "reflect"},
    ),
    "7x7-stride-2": ((1, 3, 31, 33), 64, (7, 7), {"padding": 3, "stride": 2}),
    "7x7-reflect": ((1, 20, 15, 17), 4, (7, 7), {"padding": 3, "padding_mode": "reflect"}),
    "4x4-stride-2": ((1, 16, 18, 16), 34, (4, 4), {"padding": 1, "stride": 2}),
    "1x1": ((3, 33, 7, 5), 2, (1, 1), {}),
    "uneven": (
        (1, 4, 15, 19),
        6,
        (3, 5),
        {"padding": (1, 2), "stride": (2, 1), "dilation": (1, 2)},
    ),
    "whole-image": ((2, 9, 4, 4), 40, (4, 4), {}),
}


def may_be_tiled(filters, kernel):
    """Whether a layer of enough pixels, or one of its gradients, takes a Winograd algorithm."""
    return 1 not in kernel and (filters > 4 or kernel == (3, 3))


def tensors(shape, filters, kernel, *, dtype=torch.float32, groups=1, seed=0):
    """x, weight and bias; sums of order one."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    terms = shape[1] // groups * kernel[0] * kernel[1]
    weight = draw(filters, shape[1] // groups, *kernel) / terms**0.5
    return tuple(t.to(dtype) for t in (draw(*shape), weight, draw(filters)))


def options_of(x, weight, options):
    """A geometry, and its fields as the operators' schemas have them."""
    g = spec.check_geometry(
        "test", x, weight, **{"stride": 1, "padding": 0, "dilation": 1} | options
    )
    fields = (g.stride, g.padding, g.dilation, g.groups, g.padding_mode, g.upsample)
    return g, fields


def upstream(y):
    """A gradient for y."""
    generator = torch.Generator().manual_seed(99)
    return torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype)


def with_gradients(function, *inputs, **options):
    """The result and the gradients of all inputs."""
    leaves = [t.detach().requires_grad_() for t in inputs]
    y = function(*leaves, **options)
    return (y.detach(), *torch.autograd.grad(y, leaves, upstream(y)))


def check_against_reference(name, x, weight, bias, *, winograd=False, **options):
    """Result and gradients against the reference in float64, by the project's tolerances.

    Winograd sums may err 4 times as much as direct ones.
    """
    actual = with_gradients(getattr(inpaint_ops, name), x, weight, bias, **options)
    wide = (t.double() for t in (x, weight, bias))
    expected = with_gradients(getattr(reference, name), *wide, **options)
    depth = weight[0].numel()
    factor = 16 if winograd else 1
    pixels = max(1, actual[0].numel() // max(1, actual[0].shape[1]))
    terms = (depth, weight.shape[0] * weight[0, 0].numel(), pixels, pixels)
    for got, want, count in zip(actual, expected, terms):
        check_close(got, want, terms=factor * max(64, count))
    return actual


def activations_and_geometries():
    """Every geometry, and every activation with one of them."""
    acts = spec.ACTIVATIONS
    names = itertools.cycle(acts)
    return [*zip(GEOMETRIES, names), *(("3x3", a) for a in acts), *(("5x5", a) for a in acts)]


BACKENDS = ["auto", "precise", "direct", "reference"]


def hole_mask(n, c, h, w, kind=torch.float32, seed=0):
    """Random specks, one block that hides whole windows, and a valid rest."""
    generator = torch.Generator().manual_seed(seed)
    valid = (torch.rand(n, c, h, w, generator=generator) > 0.3).to(kind)
    valid[..., : h // 2, : w // 2] = 0
    return valid


def force_algorithm(monkeypatch, name):
    """Lets one algorithm sum every convolution; plans are made anew for each."""
    monkeypatch.setattr(plan, "choose", lambda *_: name)
    monkeypatch.setattr(plan, "_plan", plan._plan.__wrapped__)
    # Calls that are known hold plans.
    monkeypatch.setattr(shortcut, "AVAILABLE", False)
