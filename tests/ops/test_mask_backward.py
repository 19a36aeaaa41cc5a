"""What masks do to gradients of partial convolutions: the kernels alone."""

import pytest
import torch

from inpaint_ops.ops import native

pytestmark = pytest.mark.skipif(not native.status().available, reason="needs the extension")

SHAPES = [(1, 1, 1, 1), (2, 3, 5, 7), (1, 17, 3, 33), (3, 64, 24, 23), (2, 130, 40, 30)]
LAYOUTS = {
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "planes": lambda x: x.contiguous(),
    "channels of a larger image": lambda x: torch.cat((x, x), 1)[:, x.shape[1] :],
    "every other pixel": lambda x: x.repeat_interleave(2, 3)[..., ::2],
}


def known_bytes(generator, *shape):
    return torch.randint(0, 2, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["masks", "one mask"])
def test_hide_missing_zeroes_what_is_missing_alone(shape, shared, layout, instruction_set):
    generator = torch.Generator().manual_seed(0)
    n, channels, h, w = shape
    widths = [channels] if channels < 3 else [1, channels - 2, 1]
    known = known_bytes(generator, 1 if shared else n, len(widths), h, w)
    image = torch.randn(shape, generator=generator)
    spread = torch.cat([p.expand(n, k, h, w) for p, k in zip(known.split(1, 1), widths)], 1)
    image[spread == 0] = float("nan")
    expected = image.nan_to_num(0)
    given = LAYOUTS[layout](image)
    around = given._base.clone() if given._base is not None else None
    native.extension().hide_missing(given, known, widths, 2)
    assert torch.equal(given, expected)
    if layout == "channels of a larger image":
        torch.testing.assert_close(
            given._base[:, :channels], around[:, :channels], rtol=0, atol=0, equal_nan=True
        )


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("shared", [False, True], ids=["masks", "one mask"])
@pytest.mark.parametrize("biased", [False, True])
def test_ratio_backward(shape, shared, biased, instruction_set):
    generator = torch.Generator().manual_seed(1)
    n, filters, h, w = shape
    planes = (1 if shared else n, 1, h, w)
    update_mask = known_bytes(generator, *planes) * torch.rand(planes, generator=generator)
    mask_ratio = torch.rand(planes, generator=generator) * (update_mask != 0)
    grad = torch.randn(shape, generator=generator)
    seen = (update_mask != 0).expand(shape)
    expected = torch.where(seen, grad * mask_ratio, 0)
    bias = torch.where(seen, grad.double() * update_mask.double(), 0).sum((0, 2, 3))
    grad[~seen] = float("nan")
    grad = grad.contiguous(memory_format=torch.channels_last)
    results = []
    for threads in (1, 2):
        sums = torch.full_like(grad, 7)
        grad_bias = torch.full((filters,), 7, dtype=torch.float64) if biased else None
        native.extension().mask_ratio_backward(
            grad, mask_ratio, update_mask, sums, grad_bias, threads
        )
        assert torch.equal(sums, expected)
        results.append(grad_bias)
    if biased:
        torch.testing.assert_close(results[0], bias, rtol=1e-5, atol=1e-4)
        assert torch.equal(*results)


@pytest.mark.parametrize(
    ("image", "known", "widths", "text"),
    [
        ((2, 3, 4, 4), (3, 1, 4, 4), [3], "known batch"),
        ((2, 3, 4, 4), (2, 1, 4, 5), [3], "known size"),
        ((2, 3, 4, 4), (2, 1, 4, 4), [4], "widths"),
        ((2, 3, 4, 4), (2, 1, 4, 4), [2], "widths of all channels"),
        ((2, 3, 4, 4), (2, 2, 4, 4), [3], "one width a plane"),
    ],
)
def test_bindings_guard_memory(image, known, widths, text):
    with pytest.raises(ValueError, match=text):
        native.extension().hide_missing(
            torch.zeros(image), torch.ones(known, dtype=torch.uint8), widths, 1
        )
    grad = torch.zeros((2, 3, 4, 4)).contiguous(memory_format=torch.channels_last)
    for planes in ((3, 1, 4, 4), (2, 1, 4, 5)):
        with pytest.raises(ValueError, match=r"mask_ratio|update_mask"):
            native.extension().mask_ratio_backward(
                grad, torch.ones(planes), torch.ones(planes), grad.clone(), None, 1
            )
