"""Memory of packed weights: what is kept, what is shared, and what it may take together."""

import pytest
import torch
from torch import nn

import inpaint_ops
from inpaint_ops import FusedConv2d
from inpaint_ops.ops import native
from inpaint_ops.ops.convolution import packed_weights as module
from inpaint_ops.ops.convolution.packed_weights import packed_weights, place
from inpaint_ops.ops.convolution.plan import Form

pytestmark = pytest.mark.skipif(not native.status().available, reason="packs by the extension")
FORMS = [
    Form("direct"),
    Form("winograd_4x3"),
    Form("winograd_4x3", flipped=True),
    Form("winograd_4x2", (2, 2)),
    Form("winograd_4x3", gated=True),
]


@pytest.fixture(autouse=True)
def nothing_else():
    packed_weights.clear()
    yield
    packed_weights.clear()


def entry_of(weight):
    return packed_weights._entries[place(weight)]


def kept_forms(weight):
    return {form for form, _ in entry_of(weight).kept}


def packed(weight, form):
    """The packed weight itself, without what else the memory holds."""
    memory = packed_weights.of(weight, form)
    options = form.options
    return memory[: native.extension().packed_floats(weight, *options)].copy()


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_kept_when_it_is_asked_for_again(form):
    weight = torch.randn(34, 5, 3, 3)
    first = packed(weight, form)
    assert not kept_forms(weight)
    second = packed_weights.of(weight, form)
    assert kept_forms(weight) == {form}
    assert packed_weights.of(weight, form) is second
    assert (second == first).all()
    held = inpaint_ops.memory_held()
    assert held.weights == 4 * weight.numel()
    assert held.kept == second.nbytes


@pytest.mark.parametrize("form", FORMS)
def test_a_training_keeps_nothing_and_packs_into_the_same_memory(form):
    weight = nn.Parameter(torch.randn(34, 5, 3, 3))
    addresses = set()
    for step in range(4):
        addresses.add(packed_weights.of(weight, form).ctypes.data)
        again = weight.detach().clone()
        assert (packed(weight, form) == packed(again, form)).all()
        with torch.no_grad():
            weight.add_(1)
        if step == 0:  # the clones' forms went through the shared memory, too
            addresses.clear()
    assert len(addresses) == 1
    assert inpaint_ops.memory_held().spare > 0
    packed_weights.of(weight, form)
    assert inpaint_ops.memory_held().kept == 0


def test_a_weight_that_has_changed_is_kept_later():
    """A step of a training asks for a form a few times; after the training it is kept as ever."""
    weight = torch.randn(34, 5, 3, 3)
    ask([weight], FORMS[1], 2)
    for _ in range(2):
        weight.add_(1)
        ask([weight], FORMS[1], 4)
        assert not kept_forms(weight)
    ask([weight], FORMS[1], 1)
    assert kept_forms(weight) == {FORMS[1]}


def test_memory_that_is_read_stays():
    weight = torch.randn(34, 5, 3, 3)
    for form in FORMS:
        for times in (1, 2, 3):
            for _ in range(times):
                held = packed_weights.of(weight, form)
            copy = held.copy()
            weight.add_(1)
            assert packed_weights.of(weight, form).ctypes.data != held.ctypes.data
            assert (held == copy).all()


def test_one_form_is_kept_for_one_use():
    """Results and gradients have one each; another algorithm's takes the place of the first."""
    weight = torch.randn(34, 5, 3, 3)
    flipped = Form("winograd_4x3", flipped=True)
    for form in (Form("direct"), flipped, Form("winograd_3x4")):
        for _ in range(2):
            packed_weights.of(weight, form)
    assert kept_forms(weight) == {flipped, Form("winograd_3x4")}


def test_forms_of_changed_values_are_dropped():
    weight = torch.randn(34, 5, 3, 3)
    for form in FORMS:
        for _ in range(2):
            packed_weights.of(weight, form)
    weight.add_(1)
    packed_weights.of(weight, FORMS[0])
    assert inpaint_ops.memory_held().kept == 0


def ask(weights, form, times):
    for _ in range(times):
        for weight in weights:
            packed_weights.of(weight, form)


@pytest.mark.parametrize("form", FORMS)
def test_kept_forms_take_twice_the_weights_at_most(form, monkeypatch):
    monkeypatch.setattr(module, "_LEAST_KEPT", 0)
    weights = [torch.randn(32, 16, 3, 3) for _ in range(9)]
    ask(weights, form, 4)
    held = inpaint_ops.memory_held()
    assert held.weights == sum(4 * weight.numel() for weight in weights)
    assert 0.5 * held.weights <= held.kept <= 2 * held.weights
    # What is kept stays: nothing takes turns.
    before = [kept_forms(weight) for weight in weights]
    ask(weights, form, 2)
    assert before == [kept_forms(weight) for weight in weights]
    # Their room goes with the weights.
    del weights[3:]
    assert inpaint_ops.memory_held().weights == 3 * 4 * 32 * 16 * 9


def test_small_forms_and_those_of_one_weight_have_room():
    small = [torch.randn(16, 16, 3, 3) for _ in range(4)]
    ask(small, FORMS[1], 2)
    assert all(kept_forms(weight) for weight in small)
    packed_weights.clear()
    alone = torch.randn(640, 256, 3, 3)
    for form in (FORMS[1], FORMS[2]):
        ask([alone], form, 2)
    assert kept_forms(alone) == {FORMS[1], FORMS[2]}
    assert inpaint_ops.memory_held().kept > module._LEAST_KEPT
    other = torch.randn(8, 8, 3, 3)
    ask([other], FORMS[0], 1)
    alone.add_(1)
    ask([alone], FORMS[1], 6)
    assert not kept_forms(alone)


def test_slices_of_a_weight_are_no_weights_besides():
    weight = torch.randn(32, 48, 3, 3)
    ask([weight, weight[:, :16], weight[:, 16:], weight[:, 8:24]], FORMS[1], 2)
    assert inpaint_ops.memory_held().weights == 4 * weight.numel()


def test_bits_do_not_depend_on_what_is_kept(monkeypatch):
    monkeypatch.setattr(module, "_LEAST_KEPT", 0)
    network = nn.Sequential(*[FusedConv2d(32, 32, 3, padding=1) for _ in range(5)])
    x = torch.randn(1, 32, 24, 24)
    with torch.no_grad():
        results = [network(x) for _ in range(4)]
    kept = [bool(entry_of(layer.weight).kept) for layer in network]
    assert any(kept)
    assert not all(kept)
    assert all(torch.equal(result, results[0]) for result in results)


def test_large_memory_is_not_shared(monkeypatch):
    monkeypatch.setattr(module, "_MOST_SPARE", 4000)
    weight = torch.randn(34, 5, 3, 3)
    packed_weights.of(weight, FORMS[1])
    assert inpaint_ops.memory_held() == (4 * weight.numel(), 0, 0)


def test_sums_of_neighbours_are_those_of_the_formula_bit_for_bit(instruction_set):
    generator = torch.Generator().manual_seed(3)
    # A slice: the gradient of one of several tensors reads its channels of the weight.
    weight = torch.randn(5, 9, 3, 2, generator=generator)[:, 2:6]
    padded = torch.nn.functional.pad(weight, (1, 1, 1, 1))
    rows = padded[:, :, :-1] + padded[:, :, 1:]
    expected = rows[..., :-1] + rows[..., 1:]
    for threads in (1, 3):
        sums = torch.empty(5, 4, 4, 3)
        native.extension().sum_neighbours(weight, sums, threads)
        assert torch.equal(sums, expected)


def test_large_memory_stays_for_weights_that_change():
    """A form too large to be shared otherwise; a training asks for it again at the next step."""
    weight = torch.randn(1024, 512, 3, 3)
    x = torch.randn(1, 512, 24, 24)
    inpaint_ops.release_memory()
    inpaint_ops.fused_conv2d(x, weight, padding=1)
    assert inpaint_ops.memory_held().spare == 0
    weight.mul_(2)
    inpaint_ops.fused_conv2d(x, weight, padding=1)
    assert inpaint_ops.memory_held().spare > 40 << 20
    inpaint_ops.release_memory()
    assert inpaint_ops.memory_held().spare == 0


def test_large_memory_stays_where_nothing_has_room(monkeypatch):
    """Forms of frozen weights may fill what is kept, and be packed between those of a training."""
    monkeypatch.setattr(module, "_MOST_SPARE", 1 << 14)
    monkeypatch.setattr(module, "_MOST_KEPT", 0)
    monkeypatch.setattr(module, "_LEAST_KEPT", 0)
    frozen, large = torch.randn(34, 5, 3, 3), torch.randn(34, 50, 3, 3)
    ask([frozen, large], FORMS[1], 2)
    assert inpaint_ops.memory_held().spare <= 1 << 14
    for _ in range(2):
        large.mul_(2)
        ask([large, frozen], FORMS[1], 1)
        assert inpaint_ops.memory_held().spare > 1 << 14
    assert inpaint_ops.memory_held().kept == 0


def test_a_form_of_before_a_change_is_not_kept(monkeypatch):
    """Another thread writes to a weight, and asks for its form, while this one packs it."""
    weight = torch.randn(34, 5, 3, 3)
    extension = native.extension()
    others = []

    class Packing:
        def __getattr__(self, name):
            return getattr(extension, name)

        def pack_weight(self, *arguments, **options):
            made = extension.pack_weight(*arguments, **options)
            if others:
                others.pop()
                weight.add_(1)
                ask([weight], FORMS[0], 2)
            return made

    monkeypatch.setattr(module.tensors, "native", Packing)
    ask([weight], FORMS[0], 1)
    others.append("another thread")
    ask([weight], FORMS[0], 1)
    assert not others
    assert (packed(weight, FORMS[0]) == packed(weight.clone(), FORMS[0])).all()


def test_bytes_of_a_weight_that_was_written_to_are_not_read(monkeypatch):
    """Its version says so; an edit past the version is found by the bytes, see weight_state."""
    read = []

    class Counted(module.Snapshot):
        def __init__(self, weight):
            read.append(weight)
            super().__init__(weight)

    monkeypatch.setattr(module, "Snapshot", Counted)
    weight = torch.randn(34, 5, 3, 3)
    ask([weight], FORMS[0], 1)
    assert len(read) == 1
    for _ in range(3):
        weight.add_(1)
        ask([weight], FORMS[0], 1)
    assert len(read) == 1
    ask([weight], FORMS[0], 4)
    assert len(read) == 5
    assert kept_forms(weight) == {FORMS[0]}
    weight.data.add_(1)
    before = packed_weights.of(weight, FORMS[0]).copy()
    assert (before == packed(weight.clone(), FORMS[0])).all()


def test_weights_of_inference_mode_have_no_version():
    with torch.inference_mode():
        weight = torch.randn(34, 5, 3, 3)
    ask([weight], FORMS[0], 2)
    assert kept_forms(weight) == {FORMS[0]}
