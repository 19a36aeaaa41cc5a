"""shift_connection, its layer and the guidance loss: goldens, reference, gradients, contract."""

import copy
import math
import pickle

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from support import check_close, golden

import inpaint_ops
from inpaint_ops import GuidanceLoss, ShiftConnection, reference, shift_connection
from inpaint_ops.layers import reduce_hole
from inpaint_ops.ops import native

BACKENDS = ["auto", "reference"]
FORMATS = [torch.contiguous_format, torch.channels_last]
FORMAT_IDS = ["contiguous", "channels_last"]


def inputs(n=2, c=8, h=9, w=7, dtype=torch.float32, seed=0):
    """ReLU features and holes of different size in each sample."""
    generator = torch.Generator().manual_seed(seed)
    decoder, encoder = (
        torch.randn(n, c, h, w, generator=generator, dtype=torch.float64).relu().to(dtype)
        for _ in range(2)
    )
    hole = torch.zeros(n, 1, h, w)
    for i in range(n):
        hole[i, :, h // 3 : h // 3 + 2 + i, w // 4 : w // 4 + 3] = 1
    return decoder, encoder, hole


@pytest.mark.parametrize("name", ["shift_s1", "shift_s2"])
@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_golden_layer(name, memory_format, backend):
    data = golden(name)
    x = data["x"].contiguous(memory_format=memory_format).requires_grad_()
    with inpaint_ops.backend(backend):
        y, index = ShiftConnection(gradient_scale=data["triple_weight"])(x, data["mask"])
    assert y.is_contiguous(memory_format=memory_format)
    assert torch.equal(index.flatten(1), data["index"].long())
    assert torch.equal(y, data["y"])
    y.backward(data["gy"])
    check_close(x.grad, data["gx"], terms=data["index"].shape[1])


def test_every_instruction_set(instruction_set):
    assert native.status().instruction_set == instruction_set
    for memory_format in FORMATS:
        test_golden_layer("shift_s1", memory_format, "auto")
        test_golden_layer("shift_s2", memory_format, "auto")
    for dtype in (torch.float32, torch.float64):
        test_matches_reference((2, 8, 9, 7), dtype)
        test_matches_reference((3, 130, 6, 11), dtype)


@pytest.mark.parametrize("mask_target", [True, False], ids=["masked", "public_code"])
def test_golden_guidance(mask_target):
    data = golden("guidance_s1")
    x = data["x"].requires_grad_()
    loss = GuidanceLoss(strength=data["strength"], mask_target=mask_target)
    loss.set_target(data["x_gt"])
    value = loss(x, data["mask"])
    (value + (x * data["gy"]).sum()).backward()
    check_close(x.grad, data["gx_masked_target" if mask_target else "gx"])
    missing = reduce_hole(data["mask"], (16, 16)).double()
    target = data["x_gt"][:, 8:].double()
    decoder = data["x"][:, :8].detach().double()
    expected = missing * decoder - (missing * target if mask_target else target)
    check_close(value.detach(), data["strength"] * expected.square().mean(), terms=2048)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fp32", "fp64"])
@pytest.mark.parametrize(
    "size", [(1, 1, 1, 1), (2, 8, 9, 7), (1, 33, 17, 5), (3, 130, 6, 11), (0, 4, 5, 5)], ids=str
)
def test_matches_reference(size, dtype):
    decoder, encoder, hole = inputs(*size, dtype=dtype)
    encoder.requires_grad_()
    shifted, index = shift_connection(decoder, encoder, hole, gradient_scale=0.5)
    exact, exact_index = reference.shift_connection(decoder.double(), encoder.double(), hole)
    assert torch.equal(index, exact_index)
    assert torch.equal(shifted.double(), exact)
    grad = torch.randn(shifted.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    (actual,) = torch.autograd.grad(shifted, encoder, grad)
    wide = encoder.detach().double().requires_grad_()
    result = reference.shift_connection(decoder.double(), wide, hole, gradient_scale=0.5)[0]
    (expected,) = torch.autograd.grad(result, wide, grad.double())
    check_close(actual, expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_half_moves_values_unchanged(dtype, backend):
    decoder, encoder, hole = inputs(dtype=dtype)
    encoder.requires_grad_()
    with inpaint_ops.backend(backend):
        shifted, index = shift_connection(decoder, encoder, hole)
        shifted.backward(torch.ones_like(shifted))
    assert shifted.dtype == dtype
    exact, _ = reference.shift_connection(decoder.float(), encoder.detach().float(), hole)
    assert torch.equal(shifted.detach().float(), exact)
    uses = torch.zeros(2, 63).scatter_add_(
        1, index.flatten(1).clamp_min(0), (index.flatten(1) >= 0).float()
    )
    assert torch.equal(encoder.grad.float(), uses.view(2, 1, 9, 7).expand(2, 8, 9, 7))


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.float32], ids=str)
def test_hole_dtypes_and_shared_hole(kind):
    decoder, encoder, hole = inputs()
    shared = hole[1:]
    expected = shift_connection(decoder, encoder, shared.expand(2, 1, 9, 7).contiguous())
    shifted, index = shift_connection(decoder, encoder, shared.to(kind))
    assert torch.equal(shifted, expected[0])
    assert torch.equal(index, expected[1])


def test_degenerate_holes():
    decoder, encoder, hole = inputs()
    for empty in (torch.zeros_like(hole), torch.ones_like(hole)):
        shifted, index = shift_connection(decoder, encoder, empty)
        assert not shifted.any()
        assert (index == -1).all()
    # An all-zero query takes the first known cell; an all-zero key loses to a positive cosine.
    decoder[0, :, 3, 1] = 0
    encoder[0, :, 0, 0] = 0
    index = shift_connection(decoder, encoder, hole)[1]
    assert index[0, 3, 1] == 0
    assert (index[0][hole[0, 0].bool()] == 0).sum() == 1


def test_hole_contents_never_leak():
    decoder, encoder, hole = inputs()
    encoder.requires_grad_()
    clean, index = shift_connection(decoder, encoder, hole)
    (clean_grad,) = torch.autograd.grad(clean.sum(), encoder)
    for poison in (math.nan, math.inf):
        dirty = torch.where(hole.bool(), poison, encoder.detach()).requires_grad_()
        query = torch.where(hole.bool(), decoder, poison)
        shifted, dirty_index = shift_connection(query, dirty, hole)
        assert torch.equal(shifted, clean)
        assert torch.equal(dirty_index, index)
        (grad,) = torch.autograd.grad(shifted.sum(), dirty)
        assert torch.equal(grad, clean_grad)
    # A query that is no number has no match.
    decoder[0, 2, 3, 1] = math.nan
    shifted, index = shift_connection(decoder, encoder, hole)
    assert index[0, 3, 1] == -1
    assert not shifted[0, :, 3, 1].any()


@pytest.mark.parametrize("memory_format", FORMATS, ids=FORMAT_IDS)
def test_gradcheck(memory_format):
    decoder, encoder, hole = inputs(2, 3, 5, 4, torch.float64)
    encoder = (encoder + 0.1).contiguous(memory_format=memory_format).requires_grad_()

    def shifted(e):
        return shift_connection(decoder, e, hole)[0]

    # Steps of 1e-6 do not move the argmax of these inputs.
    assert torch.autograd.gradcheck(shifted, (encoder,))


@given(seed=st.integers(0, 1000), n=st.integers(1, 3))
def test_samples_are_independent(seed, n):
    decoder, encoder, hole = inputs(n, 5, 8, 6, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    shifted, index = shift_connection(decoder, encoder, hole)
    permuted, permuted_index = shift_connection(decoder[order], encoder[order], hole[order])
    assert torch.equal(permuted, shifted[order])
    assert torch.equal(permuted_index, index[order])


@given(seed=st.integers(0, 1000))
def test_values_are_copies_from_known_cells(seed):
    decoder, encoder, hole = inputs(1, 5, 8, 6, seed=seed)
    shifted, index = shift_connection(decoder, encoder, hole)
    missing = hole[0, 0].bool()
    assert (index[0][~missing] == -1).all()
    assert not missing.flatten()[index[0][missing]].any()
    source = encoder[0].flatten(1)[:, index[0][missing]]
    assert torch.equal(shifted[0][:, missing], source)
    assert not shifted[0][:, ~missing].any()


def test_the_concatenating_form_passes_opcheck():
    decoder, encoder, hole = inputs()
    op = torch.ops.inpaint_ops.shift_connection.default
    wide = torch.randn(2, 16, 9, 14)
    for e in (
        encoder,
        encoder.contiguous(memory_format=torch.channels_last),
        wide[:, 4:12, :, ::2],
    ):
        leaf = e.detach().clone().requires_grad_()
        torch.library.opcheck(op, (decoder, leaf, hole, 0.5, True))
        torch.library.opcheck(op, (decoder, e.detach(), hole, 1.0, True))


def test_compiles_and_exports():
    layer = ShiftConnection()
    x, hole = torch.randn(1, 16, 8, 8, requires_grad=True), torch.zeros(1, 1, 64, 64)
    hole[:, :, 16:40, 24:48] = 1
    expected, index = layer(x, hole)
    (grad,) = torch.autograd.grad(expected.square().sum(), x)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    y, compiled_index = compiled(x, hole)
    (compiled_grad,) = torch.autograd.grad(y.square().sum(), x)
    assert torch.equal(y, expected)
    assert torch.equal(compiled_index, index)
    torch.testing.assert_close(compiled_grad, grad)
    program = torch.export.export(layer, (x.detach(), hole))
    assert torch.equal(program.module()(x.detach(), hole)[0], expected)


def test_autocast_accepts_mixed_dtypes():
    decoder, encoder, hole = inputs()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        shifted, index = shift_connection(decoder.bfloat16(), encoder, hole)
    assert shifted.dtype == torch.float32
    expected = shift_connection(decoder.bfloat16().float(), encoder, hole)
    assert torch.equal(shifted, expected[0])
    assert torch.equal(index, expected[1])


def test_reduction_rules_of_the_centre_hole():
    hole = torch.zeros(1, 1, 256, 256)
    hole[:, :, 68:188, 68:188] = 1
    nearest = reduce_hole(hole, (32, 32))
    assert nearest.sum() == 225
    assert nearest[0, 0, 9:24, 9:24].all()
    convolution = reduce_hole(hole, (32, 32), "convolution")
    assert convolution.sum() == 252
    assert convolution[0, 0, 8:24, 8:24].sum() == 252
    assert not convolution[0, 0, 8, 8]
    with pytest.raises(ValueError, match="hole must be 40 x 40, got 32 x 40"):
        reduce_hole(hole[:, :, :32, :40], (5, 5), "convolution")
    with pytest.raises(ValueError, match="rule must be one of nearest, convolution"):
        reduce_hole(hole, (32, 32), "area")


def test_layers_copy_and_pickle():
    x, hole = torch.randn(1, 8, 8, 8), torch.zeros(1, 1, 8, 8)
    hole[:, :, 2:5, 3:6] = 1
    layer = ShiftConnection(gradient_scale=2.0, hole_rule="convolution")
    assert repr(layer) == "ShiftConnection(gradient_scale=2.0, hole_rule='convolution')"
    assert not layer.state_dict()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(x, hole)[0], layer(x, hole)[0])
    guidance = GuidanceLoss(0.5)
    guidance.set_target(x)
    twin = copy.deepcopy(guidance)
    assert torch.equal(twin(x + 1, hole), guidance(x + 1, hole))
    with pytest.raises(RuntimeError, match="call set_target"):
        GuidanceLoss()(x, hole)
    with pytest.raises(ValueError, match="must match the target"):
        guidance(torch.randn(1, 8, 4, 4), hole[:, :, :4, :4])


D = torch.zeros(2, 4, 8, 8)
H = torch.zeros(2, 1, 8, 8)
BAD_INPUT = [
    ({"encoder": D[0]}, ValueError, "encoder must have shape"),
    ({"encoder": D[:, :2]}, ValueError, "decoder and encoder must have one shape"),
    ({"hole": None}, TypeError, "hole must be a Tensor, got NoneType"),
    ({"hole": H[..., :4]}, ValueError, r"hole must have shape \(2, 1, 8, 8\) or \(1, 1, 8, 8\)"),
    ({"hole": H + 0.25}, ValueError, "hole must hold only 0 and 1, got 0.25"),
]


@pytest.mark.parametrize(("change", "error", "text"), BAD_INPUT, ids=[b[2][:40] for b in BAD_INPUT])
def test_bad_input(change, error, text):
    arguments = {"decoder": D, "encoder": D, "hole": H, **change}
    with pytest.raises(error, match=f"shift_connection: {text}"):
        shift_connection(**arguments)


def test_bad_layer_input():
    with pytest.raises(ValueError, match="x must have an even number of channels"):
        ShiftConnection()(torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8))
    with pytest.raises(ValueError, match="gradient_scale must be finite"):
        ShiftConnection(gradient_scale=math.inf)
    with pytest.raises(ValueError, match="hole_rule must be one of"):
        ShiftConnection(hole_rule="max")
    with pytest.raises(ValueError, match="strength must be finite"):
        GuidanceLoss(strength=math.nan)
    with pytest.raises(TypeError, match="hole must be a Tensor"):
        ShiftConnection()(torch.zeros(1, 4, 8, 8), None)
