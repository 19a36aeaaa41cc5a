"""What the modes of a product of float32 blocks are worth: simulated, the interpreter is exact."""

import pytest
import torch


def cut(x):
    """X with 10 bits after the first, as a tensor core takes it."""
    return (x.view(torch.int32) & ~0x1FFF).view(torch.float32)


def summed(pairs, step):
    """Sums of products, rounded to float32 every `step` of them."""
    total = 0.0
    for k in range(0, pairs[0][0].shape[1], step):
        for a, b in pairs:
            total = (total + a[:, k : k + step].double() @ b[:, k : k + step].double().T).float()
    return total


@pytest.mark.parametrize("count", [288, 2304])
@pytest.mark.parametrize("spread", [0.0, 2.0], ids=["even", "spread"])
def test_three_products_of_tf32_are_as_exact_as_one_of_float32(count, spread):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 64, count, generator=generator).abs()
    scales = torch.randn(2, 1, count, generator=generator).mul(spread).exp()
    a, b = a * scales[0], b * scales[1]
    exact = a.double() @ b.double().T

    def error(product):
        return float(((product - exact).abs() / exact).max())

    large_a, large_b = cut(a), cut(b)
    small_a, small_b = cut(a - large_a), cut(b - large_b)
    parts = [(small_a, large_b), (large_a, small_b), (large_a, large_b)]
    one, three = error(summed([(a, b)], 1)), error(summed(parts, 8))
    assert three <= 1.5 * one
    assert three < 3e-6
    assert error(summed([(large_a, large_b)], 8)) > 1e-4
