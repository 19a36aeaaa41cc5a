"""How much memory packed weights take: of every listed layer, and of the ten methods."""

import gc

import pytest
import torch
from model_cases import CASES, batch, box, picture, recipe_of, small

import inpaint_ops
from inpaint_ops.benchmarks.cases.conv_layers import all_layers, other_layers
from inpaint_ops.ops import native, shortcut
from inpaint_ops.ops.convolution import packed_weights as module
from inpaint_ops.ops.convolution import plan
from inpaint_ops.ops.convolution.packed_weights import packed_weights
from inpaint_ops.ops.convolution.spec import Geometry

pytestmark = pytest.mark.skipif(not native.status().available, reason="packs by the extension")

# Packed weights in a layer's own that any algorithm may take, and the gain of one that takes more.
MOST, GAIN = 4, 1.3


def convolution_of(layer):
    """What, shapes."""
    weight = (layer.filters, layer.channels, layer.kernel, layer.kernel)
    kind, size = "forward", (layer.out_size,) * 2
    if layer.op == "transposed":
        weight = (layer.channels, layer.out, layer.kernel, layer.kernel)
        kind, size = "transposed", (layer.size,) * 2
    g = Geometry(
        (layer.stride,) * 2, (layer.pad,) * 4, (layer.dilation,) * 2, upsample=layer.upsample
    )
    shapes = plan.Shapes(1, size, weight, ((g.upsample, (layer.channels,)),), True)
    return plan.Convolution(g, kind=kind), shapes


def work_of(layer, algorithm):
    what, shapes = convolution_of(layer)
    g = what.geometry
    return native.extension().convolution_work(
        algorithm, what.kind, 1, shapes.weight, g.stride, g.dilation, shapes.size
    )


def ratio_of(layer, algorithm):
    """Packed weights in the layer's own."""
    own = layer.filters * layer.channels * layer.kernel**2
    packed = native.extension().cost_names.index("packed")
    return work_of(layer, algorithm)[packed] / own


@pytest.mark.parametrize("layer", all_layers() + other_layers(), ids=lambda layer: layer.id)
def test_a_layer_packs_four_times_its_weights_or_gains(layer, instruction_set):
    module = native.extension()
    algorithm = plan.choose(*convolution_of(layer))
    if algorithm == "unpacked" or ratio_of(layer, algorithm) <= MOST:
        return
    prices = module.measured_costs(instruction_set)

    def cost(name):
        return sum(a * b for a, b in zip(work_of(layer, name), prices))

    # Large tiles serve few layers, so that they are no measure.
    within = [
        name
        for name in ("direct", "winograd_4x3", "winograd_5x2", "winograd_4x2", "winograd_3x4")
        if ratio_of(layer, name) <= MOST
    ]
    assert min(map(cost, within)) >= GAIN * cost(algorithm)


@pytest.fixture
def strict(monkeypatch):
    """Small networks are held to twice their weights as large ones are."""
    monkeypatch.setattr(module, "_LEAST_KEPT", 0)
    gc.collect()
    inpaint_ops.release_memory()
    yield
    inpaint_ops.release_memory()


@pytest.mark.parametrize("name", CASES)
def test_a_method_keeps_twice_its_weights_at_most(name, strict):
    model = small(name)
    image, hole = picture(1, 3, 64, 64), box(1, 64, 64)
    first = model.complete(image, hole)
    sizes = []
    for _ in range(3):
        assert torch.equal(model.complete(image, hole), first)
        held = inpaint_ops.memory_held()
        assert held.kept <= 2 * held.weights
        sizes.append(held)
    assert 0 < sizes[-1].kept == sizes[-2].kept
    # Another size takes other algorithms: their forms come in the place of the first.
    image, hole = picture(1, 3, 128, 96), box(1, 128, 96)
    for _ in range(2):
        model.complete(image, hole)
        held = inpaint_ops.memory_held()
        assert held.kept <= 2 * held.weights
    del model
    gc.collect()
    assert len(packed_weights) == 0


@pytest.mark.parametrize("name", CASES)
def test_a_training_keeps_no_weights_that_it_changes(name, strict):
    model = small(name)
    recipe = recipe_of(model, model.recipe_class.phases[-1].name)
    image, hole = batch(name)
    for _ in range(2):
        recipe.step(image, hole)
        held = inpaint_ops.memory_held()
        assert held.kept <= 2 * held.weights


class _Freeing(dict):
    """Entries of which one goes while they are gone through, as by a collection."""

    def items(self):
        for number, item in enumerate(super().items()):
            if number == 0:
                self.popitem()
            yield item


def test_weights_that_a_collection_frees_meanwhile(monkeypatch):
    layers = [inpaint_ops.FusedConv2d(8, 8, 3) for _ in range(4)]
    with torch.no_grad():
        for layer in layers:
            layer(torch.rand(1, 8, 6, 6))
    monkeypatch.setattr(packed_weights, "_entries", _Freeing(packed_weights._entries))
    monkeypatch.setattr(packed_weights, "_sums", None)
    assert inpaint_ops.memory_held().weights > 0
    monkeypatch.undo()
    packed_weights.clear()


@pytest.mark.parametrize("whole_calls", [True, False], ids=["in one call", "step by step"])
def test_weights_that_are_read_in_place_count_as_long_as_they_live(whole_calls, monkeypatch):
    monkeypatch.setattr(shortcut, "AVAILABLE", whole_calls and shortcut.AVAILABLE)
    gc.collect()
    before = inpaint_ops.memory_held().weights
    x = torch.randn(1, 128, 4, 4)
    for _ in range(3):  # the second and the third may lie where the first lay
        layer = inpaint_ops.FusedConv2d(128, 128, 4, stride=2, padding=1)
        for _ in range(3):
            with torch.no_grad():
                layer(x)
            held = inpaint_ops.memory_held()
            assert held.weights - before == 4 * layer.weight.numel()
        inpaint_ops.release_memory()
        assert inpaint_ops.memory_held().weights >= 4 * layer.weight.numel()
        before = inpaint_ops.memory_held().weights - 4 * layer.weight.numel()
        del layer
        gc.collect()
        assert inpaint_ops.memory_held().weights == before
