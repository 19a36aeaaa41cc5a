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


def choose(batch, weight, g, size, kind="forward", allowed="auto", prices=None):
    shapes = plan.Shapes(batch, size, weight, ((g.upsample, (weight[1],)),))
    return plan.choose(plan.Convolution(g, kind=kind), shapes, allowed, prices)


def test_codes_of_names_are_those_of_the_kernels():
    native = ops_native.extension()
    assert native.activations == spec.ACTIVATIONS
    assert native.padding_modes == spec.PADDING_MODES
    assert native.leaky_slope == pytest.approx(spec.LEAKY_SLOPE)


def test_the_rule_is_that_of_the_instruction_set(instruction_set):
    """Products of deep layers are staged where there are more tiles than rows of registers."""
    native = ops_native.extension()
    rows = ROW_TILE[instruction_set]
    for batch in (1, 3, 4, 5):
        work = native.convolution_work(
            "winograd_4x3", "forward", batch, (1024, 1024, 3, 3), (1, 1), (1, 1), (5, 5)
        )
        staged = work[native.cost_names.index("tiled_staged")] > 0
        assert staged == (4 * batch > rows)


def test_work_is_what_the_kernels_do():
    """Products of a 3x3 layer with stride 2: a last tap that is missing is not multiplied."""
    native = ops_native.extension()
    names = native.cost_names

    def work(algorithm, kernel, stride, kind="forward"):
        shape = (64, 32, kernel, kernel)
        found = native.convolution_work(algorithm, kind, 1, shape, (stride,) * 2, (1, 1), (60, 60))
        return dict(zip(names, found))

    pairs = 64 * 32
    assert work("direct", 3, 1)["direct"] == pairs * 9 * 60 * 60
    assert work("direct", 3, 1)["packed"] == pairs * 9
    assert work("winograd_4x3", 3, 1)["tiled"] == pairs * 36 * 15 * 15
    assert work("winograd_5x2", 3, 2)["tiled"] == pairs * 11**2 * 12 * 12
    assert work("winograd_4x2", 3, 2)["tiled"] == pairs * 9**2 * 15 * 15
    assert work("winograd_4x2", 4, 2)["tiled"] == pairs * 10**2 * 15 * 15
    assert work("winograd_4x3", 5, 1)["tiled"] == pairs * 11**2 * 15 * 15
    assert work("winograd_3x4", 7, 1)["tiled"] == pairs * 11**2 * 20 * 20
    assert work("winograd_5x4", 7, 1)["tiled"] == pairs * 15**2 * 12 * 12
    # The phases of a transposed convolution have kernels of 2 x 2, 2 x 1, 1 x 2 and 1 x 1, or of
    # 3 x 3 and less. What a tile sums of a last tap that none has is zero.
    assert work("direct", 3, 2, "transposed")["direct"] == pairs * 9 * 60 * 60
    assert work("winograd_4x2", 3, 2, "transposed")["tiled"] == pairs * 9**2 * 15 * 15
    assert work("winograd_4x2", 4, 2, "transposed")["tiled"] == pairs * 10**2 * 15 * 15
    assert work("winograd_4x3", 5, 2, "transposed")["tiled"] == pairs * 11**2 * 15 * 15
    assert work("winograd_4x2", 4, 2, "transposed")["packed"] == pairs * 100


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


def test_listed_layers_have_one_algorithm_by_one_set_of_costs(instruction_set):
    """What depends on registers is a matter of few tiles or few filters: of no layer with more."""
    native = ops_native.extension()
    layers = [layer for layer in all_layers() if layer.filters > 4]
    names = native.instruction_sets()
    for priced in names:
        prices = native.measured_costs(priced)
        chosen = []
        for name in (instruction_set, names[0]):
            native.set_instruction_set(name)
            chosen.append({layer.id: algorithm_of(layer, prices) for layer in layers})
        native.set_instruction_set(instruction_set)
        assert chosen[0] == chosen[1]


def algorithm_of(layer, prices):
    if layer.op == "transposed":
        g = Geometry((layer.stride,) * 2, (layer.pad,) * 4, (1, 1))
        weight = (layer.channels, layer.out, layer.kernel, layer.kernel)
        return choose(1, weight, g, (layer.size,) * 2, "transposed", prices=prices)
    weight = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    stride, dilation = (layer.stride,) * 2, (layer.dilation,) * 2
    g = Geometry(stride, (layer.pad,) * 4, dilation, upsample=layer.upsample)
    return choose(1, weight, g, (layer.out_size,) * 2, prices=prices)


def test_a_weight_packed_anew_counts_its_packing(instruction_set):
    """Gradients of inputs: fewer packed floats, and none where few pixels share a weight."""
    strided = Geometry((2, 2), (0, 0, 0, 0), (1, 1))
    weight = (512, 512, 5, 5)

    def chosen(pixels, *, in_place=True, backward=True, allowed="auto"):
        what = plan.Convolution(strided, kind="transposed", backward=backward)
        shapes = plan.Shapes(1, (pixels, pixels), weight, ((1, (512,)),), in_place)
        return plan.choose(what, shapes, allowed)

    assert chosen(16, backward=False).startswith("winograd")
    assert chosen(9) == "direct"
    assert chosen(64).startswith("winograd")
    assert [chosen(pixels) for pixels in (2, 4, 8)] == ["unpacked"] * 3
    assert chosen(2, backward=False) == "unpacked"
    assert chosen(4, backward=False) != "unpacked"
    assert chosen(8, in_place=False) == chosen(8, allowed="direct") == "direct"


def test_a_large_form_made_anew_is_worth_its_packing(instruction_set):
    """Its memory stays from step to step, so it costs a few more reads than a small one."""
    what = plan.Convolution(Geometry((1, 1), (1, 1, 1, 1), (1, 1)), kind="flipped", backward=True)
    shapes = plan.Shapes(1, (16, 16), (1024, 512, 3, 3), ((1, (1024,)),))
    assert plan.choose(what, shapes) == "winograd_4x3"


def test_a_form_of_many_times_the_weights_must_gain_where_nothing_is_kept():
    """It takes memory that would save other layers their packing."""
    what = plan.Convolution(Geometry((2, 2), (1, 1, 1, 1), (1, 1)))
    shapes = plan.Shapes(1, (32, 32), (256, 128, 3, 3), ((1, (128,)),))
    module = ops_native.extension()
    prices = list(module.measured_costs(module.instruction_set()))
    packing = module.cost_names.index("packing")

    def chosen(price):
        prices[packing] = price
        return plan.choose(what, shapes, prices=prices)

    assert chosen(0).startswith("winograd")
    assert chosen(1e5) == "direct"
    # Four times the weights are room that every layer may take.
    what = plan.Convolution(Geometry((1, 1), (1, 1, 1, 1), (1, 1)))
    assert chosen(1e5) == "winograd_4x3"
