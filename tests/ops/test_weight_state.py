"""Whether a weight has changed: every byte counts, whatever changed it."""

import copy
import pickle
import threading

import numpy as np
import pytest
import torch
from conv_cases import tensors
from torch import nn

import inpaint_ops
from inpaint_ops import (
    FusedConv2d,
    FusedConvTranspose2d,
    GatedConv2d,
    PartialConv2d,
    reference,
)
from inpaint_ops.models import create_model
from inpaint_ops.models.blocks.conv_block import ConvBlock
from inpaint_ops.ops import native, weight_state
from inpaint_ops.ops.convolution.packed_weights import packed_weights
from inpaint_ops.ops.weight_state import Kept, Snapshot, frozen

pytestmark = pytest.mark.skipif(not native.status().available, reason="reads by the extension")

# Layouts of a weight: dense ones of any order, slices, copies of one value, single values apart.
VIEWS = {
    "packed": lambda w: w,
    "channels_last": lambda w: w.contiguous(memory_format=torch.channels_last),
    "exchanged": lambda w: w.transpose(0, 1),
    "some-channels": lambda w: w[:, 1:4],
    "some-filters": lambda w: w[2:],
    "every-second": lambda w: w[..., ::2],
    "expanded": lambda w: w[:, :1].expand(-1, 5, -1, -1),
}


@pytest.mark.parametrize("layout", VIEWS)
def test_every_value_counts(instruction_set, layout):
    base = torch.randn(7, 5, 3, 3)
    weight = VIEWS[layout](base)
    snapshot = Snapshot(weight)
    assert snapshot.holds(weight)
    values = weight if layout != "expanded" else weight[:, :1]
    for index in np.ndindex(*values.shape):
        before = values[index].item()
        for after in (-before, before + 1, float(np.nextafter(np.float32(before), np.float32(9)))):
            values.data[index] = after
            assert not snapshot.holds(weight), index
        values.data[index] = before
        assert snapshot.holds(weight)


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 129, 32767, 32768, 32769, 100003])
def test_any_length_and_any_threads(instruction_set, size):
    values = torch.randn(size)
    snapshots = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        snapshots.append(Snapshot(values))
    assert snapshots[0].equals(snapshots[1])
    assert snapshots[0].equals(snapshots[2])
    for place in {0, size // 2, size - 2, size - 1} & set(range(size)):
        values[place] += 1
        assert not snapshots[0].holds(values)
        values[place] -= 1
        values[place] = values[place].clone()
    again = Snapshot(values)
    for first, second in ((0, size - 1), (size // 3, size // 2)):
        if values[first] != values[second]:
            pair = values[[first, second]]
            values[first], values[second] = pair[1], pair[0]
            assert not again.holds(values)
            values[first], values[second] = pair[0], pair[1]


def test_changes_of_many_values_are_seen():
    """Patterns that cancel each other in sums, or meet one lane of a vector alone."""
    weight = torch.ones(64, 64, 1, 1)
    snapshot = Snapshot(weight)
    for step in (1, 2, 3, 4, 8, 16, 32, 64, 128):
        for count in (1, 2, 3, 4, 64):
            changed = weight.flatten()[::step][:count]
            changed.neg_()
            assert not snapshot.holds(weight), (step, count)
            changed.neg_()
    assert snapshot.holds(weight)
    weight = torch.randn(64, 64, 1, 1)
    snapshot = Snapshot(weight)
    for axis in (0, 1):
        turned = weight.roll(1, axis)
        weight.data.copy_(turned)
        assert not snapshot.holds(weight)
        weight.data.copy_(weight.roll(-1, axis))
    assert snapshot.holds(weight)


def test_top_bits_do_not_cancel(instruction_set):
    """A top bit passes a multiplication by an odd number: what follows must not undo it."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 64, 3, 3, generator=generator)
    bits = weight.view(-1).view(torch.int32)
    snapshot = Snapshot(weight)
    for first in (1, 101, 1001):
        for apart in (16, 32, 64, 128):
            for bit in range(32):
                pair = slice(first - 1 + apart, first + 1 + apart)
                bits[first] ^= -(2**31)
                bits[pair] ^= -(2**31) if bit == 31 else 1 << bit
                assert not snapshot.holds(weight), (first, apart, bit)
                bits[first] ^= -(2**31)
                bits[pair] ^= -(2**31) if bit == 31 else 1 << bit
    assert snapshot.holds(weight)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types(dtype):
    weight = torch.randn(9, 3, 3, 3).to(dtype)
    snapshot = Snapshot(weight)
    weight.data[8, 2, 2, 2] += 1
    assert not snapshot.holds(weight)


def by_data(weight):
    weight.data[3, 1] += 1


def by_numpy(weight):
    weight.detach().numpy()[3, 1] += 1


def by_data_of_one_value(weight):
    weight.data.view(-1)[17] += 1


def by_another_tensor(weight):
    weight.data = weight.data * 2


def by_set(weight):
    with torch.no_grad():
        weight.set_(weight.detach().flip(0))


def by_another_thread(weight):
    thread = threading.Thread(target=lambda: weight.data.neg_())
    thread.start()
    thread.join()


def by_a_view_made_before(weight):
    view = weight.detach()[:, :1]
    view.mul_(3)


def in_inference_mode(weight):
    with torch.inference_mode():
        weight.add_(1)


def by_an_optimiser(weight):
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], 0.1).step()
    weight.grad = None


EDITS = [
    by_data,
    by_numpy,
    by_data_of_one_value,
    by_another_tensor,
    by_set,
    by_another_thread,
    by_a_view_made_before,
    in_inference_mode,
    by_an_optimiser,
]
valid = torch.ones(1, 1, 20, 20)
valid[..., 5:9, 5:9] = 0
LAYERS = {
    "fused": (lambda: FusedConv2d(24, 40, 3, padding=1), (24, 20, 20)),
    "fused-direct": (lambda: FusedConv2d(24, 40, 1), (24, 20, 20)),
    "fused-unpacked": (lambda: FusedConv2d(128, 128, 4, stride=2, padding=1), (128, 4, 4)),
    "gated": (lambda: GatedConv2d(24, 16, 3, padding=1), (24, 20, 20)),
    "partial": (lambda: PartialConv2d(24, 40, 3, padding=1), (24, 20, 20)),
    "transposed": (lambda: FusedConvTranspose2d(24, 40, 4, 2, 1), (24, 10, 10)),
    "transposed-unpacked": (lambda: FusedConvTranspose2d(128, 64, 4, 2, 1), (128, 2, 2)),
}


def gradients(layer, x):
    leaf = x.clone().requires_grad_()
    y = layer(leaf, valid) if isinstance(layer, PartialConv2d) else layer(leaf)
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf)
    return y.detach(), gradient


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_sees_every_edit(name, edit):
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make(), torch.randn(1, *shape)
    first = gradients(layer, x)
    edit(layer.weight)
    fresh = make()
    fresh.load_state_dict(copy.deepcopy(layer.state_dict()))
    for old, got, expected in zip(first, gradients(layer, x), gradients(fresh, x)):
        assert not torch.equal(old, got)
        assert torch.equal(got, expected)


def test_weights_made_in_inference_mode():
    x = torch.randn(1, 24, 12, 12)
    with torch.inference_mode():
        weight = torch.randn(40, 24, 3, 3)
        for place in range(0, weight.numel(), 997):
            inpaint_ops.fused_conv2d(x, weight, padding=1)
            weight.view(-1)[place] += 10
            got = inpaint_ops.fused_conv2d(x, weight, padding=1)
            expected = reference.fused_conv2d(x, weight, padding=1)
            torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-3)


def test_weights_can_be_swapped():
    layer = FusedConv2d(4, 4, 3)
    x = torch.randn(1, 4, 9, 9)
    layer(x).sum().backward()
    torch.utils.swap_tensors(layer.weight, nn.Parameter(torch.zeros_like(layer.weight)))
    with torch.no_grad():
        y = layer(x)
    assert torch.equal(y, layer.bias.view(1, 4, 1, 1).expand_as(y))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.to(torch.float64)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert layer.weight.dtype == torch.float64


@pytest.mark.parametrize("name", ["context_encoder", "glcic"])
def test_a_method_sees_edits_of_its_parameters(name):
    options = {
        "context_encoder": {"base_channels": 8, "bottleneck": 32},
        "glcic": {"base_channels": 8, "global_size": 64, "local_size": 32},
    }[name]
    torch.manual_seed(0)
    model = create_model(name, **options).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, 0, 0.1)
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    hole[..., 20:40, 24:44] = 1
    before = model.complete(image, hole)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.mul_(0.9).add_(0.01)
    fresh = create_model(name, **options).eval()
    fresh.load_state_dict(model.state_dict())
    after = model.complete(image, hole)
    assert not torch.equal(before, after)
    assert torch.equal(after, fresh.complete(image, hole))


class Counter:
    """Makes its source's double and counts."""

    def __init__(self, source):
        self.source, self.made = source, 0

    def __call__(self):
        self.made += 1
        return (self.source * 2,)


def test_kept_tensors_follow_their_sources():
    source = torch.randn(8)
    kept, double = Kept(exposed=True), Counter(source)
    for made, edit in enumerate((None, None, by_data_like, None, torch.Tensor.zero_), start=1):
        if edit:
            edit(source)
        (result,) = kept.of((source, None), double)
        assert torch.equal(result, source * 2)
        assert double.made <= made
    assert double.made == 3
    # An edit of the result itself does not stay.
    result.data.add_(1)
    assert torch.equal(kept.of((source, None), double)[0], source * 2)
    # A source that appears is a change.
    assert kept.of((source, source), double) is not None
    assert double.made == 5
    again = pickle.loads(pickle.dumps(kept))
    again.of((source, source), double)
    assert double.made == 6


def by_data_like(source):
    source.data[5] = 7


def test_kept_tensors_are_not_those_of_a_transform():
    source = torch.randn(3, 4)
    kept = Kept()
    batched = torch.func.vmap(lambda s: kept.of((s,), lambda: (s * 2,))[0])(source)
    assert torch.equal(batched, source * 2)
    assert kept._kept is None


def test_frozen_weights_are_read_once(monkeypatch):
    model = nn.Sequential(FusedConv2d(3, 16, 3), FusedConv2d(16, 16, 3))
    x = torch.randn(1, 3, 20, 20)
    expected = [model(x) for _ in range(3)][-1]
    reads = []
    memory = weight_state.Snapshot.__dict__["_read"]
    monkeypatch.setattr(
        weight_state.Snapshot, "_read", lambda self: reads.append(1) or memory(self)
    )
    model(x)
    assert len(reads) == 2
    with frozen(model):
        with frozen(model):
            assert torch.equal(model(x), expected)
        model(x)
        assert len(reads) == 4
        # Other weights are read as ever.
        inpaint_ops.fused_conv2d(x, torch.ones(8, 3, 3, 3))
        assert len(reads) == 5
    model[0].weight.data[3, 1] += 1
    assert not torch.equal(model(x), expected)
    assert not weight_state._promises
    assert not weight_state._adopted


def test_what_is_made_of_frozen_weights_is_frozen(monkeypatch):
    model = create_model("context_encoder", base_channels=8, bottleneck=32).eval()
    image, hole = torch.rand(1, 3, 64, 64), torch.zeros(1, 1, 64, 64)
    hole[..., 20:40, 24:44] = 1
    expected = model.complete(image, hole)
    reads = []
    memory = weight_state.Snapshot.__dict__["_read"]
    with frozen(model):
        model.complete(image, hole)
        monkeypatch.setattr(
            weight_state.Snapshot, "_read", lambda self: reads.append(1) or memory(self)
        )
        assert torch.equal(model.complete(image, hole), expected)
        assert not reads
    assert torch.equal(model.complete(image, hole), expected)
    assert reads
    assert not weight_state._promises


def test_frozen_speaks_for_its_own_storages_only():
    """A storage freed inside the block must not leave its promise to one that takes its place."""
    layer = FusedConv2d(4, 8, 3)
    x = torch.randn(1, 4, 9, 9)
    with torch.no_grad(), frozen(layer):
        layer(x)
        layer.weight.data = torch.randn(8, 4, 3, 3)
        for _ in range(200):
            weight = torch.randn(8, 4, 3, 3)
            assert weight_state._promise(weight) is None


@pytest.mark.parametrize("transposed", [False, True])
def test_folding_knows_what_it_depends_on(transposed):
    torch.manual_seed(0)
    block = ConvBlock(4, 4, 4, transposed=transposed, stride=2, padding=1).eval()
    x = torch.rand(1, 4, 32, 32)

    def check():
        with torch.no_grad():
            got = block(x)
            expected = block.norm(block.conv(x)).relu()
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)

    check()
    block.norm.eps = 1.0
    check()
    block.norm.train()  # statistics of the batch
    block.norm.momentum = 0.0
    check()
    block.norm.eval()
    calls = []
    for module in (block.conv, block.norm):
        handle = module.register_forward_hook(lambda *_: calls.append(1))
        with torch.no_grad():
            block(x)
        handle.remove()
    assert len(calls) == 2
    block.norm = nn.BatchNorm2d(4, affine=False).eval()
    check()
    block.norm = nn.BatchNorm2d(4, track_running_stats=False).eval()
    check()


def test_frozen_refuses_other_things():
    match = r"frozen: model must be an nn\.Module, got Tensor"
    with pytest.raises(TypeError, match=match), frozen(torch.zeros(3)):
        pass


def test_packed_forms_go_with_the_storage():
    x, weight, _ = tensors((1, 4, 12, 12), 6, (3, 3))
    before = len(packed_weights)
    view = weight[:]
    inpaint_ops.fused_conv2d(x, weight, padding=1)
    inpaint_ops.fused_conv2d(x, view, padding=1)
    assert len(packed_weights) == before + 1
    del weight
    assert len(packed_weights) == before + 1
    del view
    assert len(packed_weights) == before
