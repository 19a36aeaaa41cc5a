"""Where tensors lie, and how many there are: strides, addresses beyond 32 bits, large batches."""

import pytest
import torch
from gpu_calls import ON_GPUS, WAYS
from layouts import LAYOUTS
from operators import OPERATORS, run

import inpaint_ops
from inpaint_ops.kernels import program

DOUBLED = ("gated_conv2d", {"padding": 1, "upsample": 2})


def results(op, tensors, options, gradient=torch.ones_like):
    """Results and gradients by the GPU kernels."""
    leaves = {
        name: x.detach().requires_grad_() if name in OPERATORS[op].leaves else x
        for name, x in tensors.items()
    }
    with inpaint_ops.backend("triton"):
        made = run(op, leaves, options)
    wanted = [leaves[name] for name in OPERATORS[op].leaves]
    if wanted:
        made += torch.autograd.grad(made[0], wanted, gradient(made[0]))
    return [x.detach() for x in made]


@pytest.mark.parametrize("layout", ["sliced", "transposed"])
@pytest.mark.parametrize(
    ("op", "options"), [*((op, OPERATORS[op].options) for op in ON_GPUS), DOUBLED], ids=str
)
def test_strides_of_any_kind(op, options, layout, monkeypatch):
    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    tensors = OPERATORS[op].tensors()
    placed = {name: LAYOUTS[layout](x) if x.dim() == 4 else x for name, x in tensors.items()}
    for got, expected in zip(results(op, placed, options), results(op, tensors, options)):
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)


def apart(y):
    """Ones with NaN between them, where the layouts are of images."""
    return LAYOUTS["sliced"](torch.ones_like(y)) if y.dim() == 4 else torch.ones_like(y)


@pytest.mark.parametrize(("op", "choice"), [way for way in WAYS if OPERATORS[way[0]].leaves])
def test_gradients_of_any_strides(op, choice, monkeypatch):
    """An expanded one is that of a sum."""
    monkeypatch.setenv("INPAINT_OPS_CONV", choice)
    tensors, options = OPERATORS[op].tensors(), OPERATORS[op].options
    expected = results(op, tensors, options)
    for gradient in (lambda y: torch.ones(()).expand(y.shape), apart):
        for got, want in zip(results(op, tensors, options, gradient), expected):
            assert torch.equal(got, want)


@pytest.mark.parametrize("op", [op for op in ON_GPUS if "conv" not in op])
def test_more_samples_than_a_grid_takes(op, monkeypatch):
    """The batch is an axis of the grid, of which a launch takes 65535 at most."""
    tensors = OPERATORS[op].tensors()
    for name, x in tensors.items():
        tensors[name] = x if x.shape[0] == 1 else torch.cat([x, x.flip(3), x.flip(2)])[:5]
    expected = results(op, tensors, OPERATORS[op].options)
    # The second part of some tensors would not begin at 16 bytes as with the true number.
    monkeypatch.setattr(program, "MOST_PROGRAMS", 4)
    for got, want in zip(results(op, tensors, OPERATORS[op].options), expected):
        assert torch.equal(got, want)


def far(width, rows=1):
    """An image of 8 channels whose last pixels lie beyond 2**31 values, most of it untouched."""
    storage = torch.UntypedStorage(2 * 8 * rows * width)
    flat = torch.empty(0, dtype=torch.float16).set_(storage)
    return flat.view(1, rows, width, 8).permute(0, 3, 1, 2)


def test_offsets_beyond_32_bits(monkeypatch):
    """A stride and a dilation as wide as the image: the first and the last pixels are read."""
    monkeypatch.setenv("INPAINT_OPS_CONV", "fused")
    width = 2**28 + 64
    x = far(width)
    ends = torch.randn(1, 8, 1, 2, generator=torch.Generator().manual_seed(0)).half()
    x[..., :1], x[..., -1:] = ends[..., :1], ends[..., 1:]
    weight = torch.randn(8, 8, 1, 2, generator=torch.Generator().manual_seed(1)).half()
    with inpaint_ops.backend("triton"):
        strided = inpaint_ops.fused_conv2d(x, weight[..., :1], stride=(1, width - 1))
        dilated = inpaint_ops.fused_conv2d(x, weight, dilation=(1, width - 1))
        close = inpaint_ops.fused_conv2d(ends, weight[..., :1])
        together = inpaint_ops.fused_conv2d(ends, weight)
    assert torch.equal(strided, close)
    assert torch.equal(dilated, together)


def test_more_pixels_than_32_bits_count_are_refused():
    x = torch.empty(1, dtype=torch.float16).expand(1, 8, 2**15, 2**16)
    with (
        inpaint_ops.backend("triton"),
        pytest.raises(ValueError, match="pixels of all images must be at most"),
    ):
        inpaint_ops.fused_conv2d(x, torch.zeros(4, 8, 1, 1).half())
