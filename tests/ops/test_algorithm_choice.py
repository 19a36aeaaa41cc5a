"""The choice of an algorithm: one rule, in the extension, for each instruction set."""

import platform

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inpaint_ops.benchmarks.cases.conv_layers import all_layers
from inpaint_ops.ops import native as ops_native
from inpaint_ops.ops.convolution import plan, spec
from inpaint_ops.ops.convolution.spec import Geometry

pytestmark = pytest.mark.skipif(
    not ops_native.status().available, reason="the choice is the extension's"
)

# Rows of a register tile: the products of deep layers are staged if there are more tiles.
ROW_TILE = {"baseline": 6, "avx2": 6, "avx512_shaped": 14, "avx512": 14}
if platform.machine() in ("aarch64", "arm64"):
    ROW_TILE["baseline"] = 14


def choose(batch, weight, g, size, kind="forward", allowed="auto"):
    shapes = plan.Shapes(batch, size, weight, ((g.upsample, (weight[1],)),))
    return plan.choose(plan.Convolution(g, kind=kind), shapes, allowed)


def test_codes_of_names_are_those_of_the_kernels():
    native = ops_native.extension()
    assert native.activations == spec.ACTIVATIONS
    assert native.padding_modes == spec.PADDING_MODES
    assert native.leaky_slope == pytest.approx(spec.LEAKY_SLOPE)


def test_the_rule_is_that_of_the_instruction_set(instruction_set):
    """5 x 5 outputs in four tiles are worth Winograd's weights only where products are staged."""
    g = Geometry((1, 1), (1, 1, 1, 1), (1, 1))
    chosen = {4 * batch: choose(batch, (1024, 1024, 3, 3), g, (5, 5)) for batch in (1, 3, 4, 5)}
    rows = ROW_TILE[instruction_set]
    assert chosen == {tiles: "winograd_4x3" if tiles > rows else "direct" for tiles in chosen}


sizes = st.tuples(*[st.integers(1, 40)] * 2)
steps = st.tuples(*[st.sampled_from([1, 1, 2, 3])] * 2)


@given(
    batch=st.integers(0, 3),
    filters=st.sampled_from([1, 4, 5, 16, 64, 200]),
    channels=st.sampled_from([1, 3, 16, 300]),
    kernel=st.tuples(*[st.sampled_from([1, 2, 3, 3, 4, 5, 7])] * 2),
    stride=steps,
    dilation=steps,
    padding=st.integers(0, 2),
    upsample=st.sampled_from([1, 2]),
    size=sizes,
)
def test_kernels_take_what_is_chosen(
    batch, filters, channels, kernel, stride, dilation, padding, upsample, size
):
    native = ops_native.extension()
    g = Geometry(stride, (padding,) * 4, dilation, upsample=upsample)
    weight = (filters, channels, *kernel)
    before = native.instruction_set()
    try:
        for name in native.instruction_sets():
            native.set_instruction_set(name)
            algorithm = choose(batch, weight, g, size)
            if algorithm == "aten":
                assert filters <= 4
                assert stride[1] > 1
                assert dilation[1] > 1
                continue
            # Raises if the algorithm does not take the convolution.
            native.ConvPlan(
                algorithm,
                kernel,
                stride,
                dilation,
                (padding, padding),
                "zeros",
                [(upsample, (channels,))],
                filters,
                False,
                "identity",
                0,
            )
            of_weight = choose(batch, weight, g, size, "weight_gradient")
            assert of_weight in native.algorithms
            if of_weight != "direct":
                assert all(s == 1 or d == 1 for s, d in zip(stride, dilation))
            assert choose(batch, weight, g, size, allowed="direct") in ("direct", "aten")
    finally:
        native.set_instruction_set(before)


def test_groups_are_the_librarys():
    g = Geometry((1, 1), (1, 1, 1, 1), (1, 1), groups=2)
    assert choose(1, (64, 8, 3, 3), g, (64, 64)) == "aten"


def test_listed_layers_have_one_algorithm_on_every_instruction_set(instruction_set):
    """What depends on registers is a matter of few tiles: of no layer of the ten methods."""
    native = ops_native.extension()
    chosen = []
    for name in (instruction_set, native.instruction_sets()[0]):
        native.set_instruction_set(name)
        chosen.append({layer.id: algorithm_of(layer) for layer in all_layers()})
    native.set_instruction_set(instruction_set)
    assert chosen[0] == chosen[1]


def algorithm_of(layer):
    if layer.op == "transposed":
        g = Geometry((layer.stride,) * 2, (layer.pad,) * 4, (1, 1))
        weight = (layer.channels, layer.out, layer.kernel, layer.kernel)
        return choose(1, weight, g, (layer.size,) * 2, "transposed")
    weight = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    stride, dilation = (layer.stride,) * 2, (layer.dilation,) * 2
    g = Geometry(stride, (layer.pad,) * 4, dilation, upsample=layer.upsample)
    return choose(1, weight, g, (layer.out_size,) * 2)
