"""Converted networks in half and double precision, under autocast, and with another default."""

import copy

import pytest
import torch
from precision import HALVES, autocast, word

import inpaint_ops
from inpaint_ops.benchmarks.cases.port_networks import NAMES, build

_SIZES = {"gmcnn": 200, "shift_net": 64}


def built(name):
    large = name == "gmcnn"  # its reflection padding asks for 193 pixels
    net, args = build(name, width=4 if large else 8, size=_SIZES.get(name, 48), n=1)
    return net.eval(), args


def results(net, args, dtype=None, lower=None):
    args = args if dtype is None else [x.to(dtype) for x in args]
    with torch.no_grad(), autocast(lower):
        found = net(*args)
    return list(found) if isinstance(found, tuple) else [found]


def distance(got, expected):
    """The largest mean difference of a result, by the largest value."""
    return max(
        float((a.double() - b).abs().mean() / b.abs().max().clamp_min(1e-12))
        for a, b in zip(got, expected, strict=True)
    )


@pytest.mark.parametrize("name", NAMES)
def test_converted_networks_are_as_exact_as_plain_ones(name):
    plain, args = built(name)
    converted = copy.deepcopy(plain)
    inpaint_ops.convert(converted)
    exact = results(copy.deepcopy(plain).double(), args, torch.float64)
    for dtype in (*HALVES, torch.float64):
        modes = [({"dtype": dtype}, dtype)]
        modes += [({"lower": dtype}, None)] if dtype in HALVES else []
        for options, to in modes:
            ours, theirs = (
                results(
                    copy.deepcopy(net) if to is None else copy.deepcopy(net).to(to), args, **options
                )
                for net in (converted, plain)
            )
            assert [t.dtype for t in ours] == [t.dtype for t in theirs], word(dtype)
            # Both round at every layer; neither is further from the truth than chance makes it.
            assert distance(ours, exact) <= 1.5 * distance(theirs, exact) + 1e-6, word(dtype)


@pytest.mark.parametrize("dtype", HALVES, ids=word)
def test_networks_that_are_in_half_precision(dtype):
    plain, args = built("edge_connect")
    exact = results(copy.deepcopy(plain).double(), args, torch.float64)
    plain.to(dtype)
    converted = copy.deepcopy(plain)
    report = inpaint_ops.convert(converted)
    assert report.converted
    ours, theirs = (results(net, args, dtype) for net in (converted, plain))
    assert distance(ours, exact) <= 1.5 * distance(theirs, exact) + 1e-6


def test_the_default_dtype_changes_no_conversion():
    counts = []
    for default in (torch.float32, torch.float64):
        net, _ = built("partial_conv_unet")
        torch.set_default_dtype(default)
        try:
            counts.append([(row.layer, row.became) for row in inpaint_ops.convert(net).rows])
        finally:
            torch.set_default_dtype(torch.float32)
    assert counts[0] == counts[1]
