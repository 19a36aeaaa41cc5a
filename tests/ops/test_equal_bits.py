"""The equal bits of docs/reference/numerics.md, for every operator and instruction set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from conv_cases import upstream
from layouts import LAYOUTS, bits
from torch import Tensor

from inpaint_ops import (
    contextual_attention,
    fused_conv2d,
    fused_conv_transpose2d,
    gated_conv2d,
    id_mrf_loss,
    nearest_patch,
    partial_conv2d,
    shift_connection,
)
from inpaint_ops.ops import instance_norm, refine_patch
from inpaint_ops.ops.convolution.spec import ACTIVATIONS

pytestmark = pytest.mark.usefixtures("instruction_set")
BATCH = 3


class Case(NamedTuple):
    """An operator's call.

    `call` takes `images`, one a sample, and then `shared` tensors. `samples`: whether an image's
    results and gradients do not depend on the other images.
    """

    call: Callable[..., Any]
    images: tuple[Tensor, ...]
    shared: tuple[Tensor, ...] = ()
    samples: bool = True


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def convolution(
    function: Any, shape: Any, weight: Any, *, samples: bool = False, **options: Any
) -> Case:
    def call(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        y: Tensor = function(x, weight, bias, **options)
        return y

    filters = weight[1] if function is fused_conv_transpose2d else weight[0]
    kernel = draw(*weight, seed=1) / weight[1] ** 0.5
    return Case(call, (draw(BATCH, *shape),), (kernel, draw(filters, seed=2)), samples)


def partial(**options: Any) -> Case:
    small, large = draw(BATCH, 20, 8, 9), draw(BATCH, 12, 16, 18, seed=1)
    valid = tuple((draw(1, 1, *s.shape[2:], seed=2) > -1).float() for s in (small, large))

    def call(small: Tensor, large: Tensor, weight: Tensor, bias: Tensor) -> Any:
        x, both = (small, large), {"padding": 1, "upsample": (2, 1)}
        return partial_conv2d(x, valid, weight, bias, **both, **options)

    shared = draw(36, 32, 3, 3, seed=4) / 17, draw(36, seed=5)
    return Case(call, (small, large), shared, samples="algorithm" in options)


def hole(rows: int, columns: int) -> Tensor:
    mask = torch.zeros(1, 1, rows, columns)
    mask[..., rows // 3 : rows // 2 + 1, columns // 3 : columns // 2 + 1] = 1
    return mask


def attention(**options: Any) -> Case:
    def call(f: Tensor, b: Tensor) -> Any:
        return contextual_attention(f, b, hole(7, 9), return_index=True, **options)

    return Case(call, (draw(BATCH, 21, 14, 18), draw(BATCH, 21, 14, 18, seed=1)))


def matching(channels: int, patch: int, **options: Any) -> Case:
    def call(query: Tensor, key: Tensor) -> Any:
        with torch.no_grad():
            return nearest_patch(query, key, patch_size=patch, **options)

    return Case(call, (draw(BATCH, channels, 19, 22), draw(BATCH, channels, 17, 25, seed=1)))


def refinement() -> Case:
    guess = torch.randint(0, 13 * 14, (1, 12, 13), generator=torch.Generator().manual_seed(0))

    def call(query: Tensor, key: Tensor) -> Any:
        with torch.no_grad():
            at = guess.expand(query.shape[0], -1, -1).contiguous()
            return refine_patch(query, key, at, patch_size=5)

    return Case(call, (draw(BATCH, 5, 16, 17), draw(BATCH, 5, 17, 18, seed=1)))


def norm(activation: str) -> Case:
    def call(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return instance_norm(x, weight, bias, residual=residual, activation=activation)

    images = draw(BATCH, 37, 21, 23) * 2 + 3, draw(BATCH, 37, 21, 23, seed=1)
    return Case(call, images, (draw(37, seed=2), draw(37, seed=3)))


CASES = {
    "3x3": convolution(fused_conv2d, (35, 18, 21), (40, 35, 3, 3), padding=1, activation="elu"),
    "5x5": convolution(fused_conv2d, (20, 18, 21), (24, 20, 5, 5), padding=2, activation="silu"),
    "4x4-stride-2": convolution(
        fused_conv2d, (35, 26, 22), (40, 35, 4, 4), padding=1, stride=2, activation="sigmoid"
    ),
    "7x7": convolution(fused_conv2d, (18, 16, 17), (20, 18, 7, 7), padding=3, activation="tanh"),
    "doubled": convolution(
        fused_conv2d, (33, 9, 11), (40, 33, 3, 3), padding=1, upsample=2, activation="leaky_relu"
    ),
    "dilated-reflect": convolution(
        fused_conv2d, (20, 17, 19), (18, 20, 3, 3), padding=2, dilation=2, padding_mode="reflect"
    ),
    "1x1": convolution(fused_conv2d, (97, 9, 11), (33, 97, 1, 1), samples=True, activation="elu"),
    "direct": convolution(
        fused_conv2d,
        (35, 18, 21),
        (40, 35, 3, 3),
        samples=True,
        padding=1,
        activation="elu",
        algorithm="direct",
    ),
    # The gradient of x, a convolution of many filters, is summed directly only if told so.
    "few-filters": convolution(
        fused_conv2d,
        (19, 15, 17),
        (3, 19, 7, 7),
        samples=True,
        padding=3,
        activation="tanh",
        algorithm="direct",
    ),
    **{
        f"gated-{activation}": convolution(
            gated_conv2d, (12, 15, 17), (42, 12, 3, 3), padding=1, activation=activation
        )
        for activation in ACTIVATIONS
    },
    "transposed": convolution(
        fused_conv_transpose2d, (35, 11, 13), (35, 40, 4, 4), activation="elu"
    ),
    "partial": partial(),
    "partial-direct": partial(algorithm="direct"),
    **{f"instance-norm-{activation}": norm(activation) for activation in ACTIVATIONS},
    "attention": attention(),
    "attention-unfused": attention(fuse=False, rate=2),
    "shift": Case(
        lambda d, e: shift_connection(d, e, hole(12, 14)),
        (draw(BATCH, 21, 12, 14).relu(), draw(BATCH, 21, 12, 14, seed=1).relu()),
    ),
    "nearest-diagonals": matching(3, 7),
    "nearest-products": matching(40, 3),
    "nearest-lists": matching(9, 1, metric="l2"),
    "refine": refinement(),
    "id-mrf": Case(
        lambda g, t: id_mrf_loss(g, t, reduction="none"),
        (draw(BATCH, 13, 11, 12), draw(BATCH, 13, 11, 12, seed=1)),
    ),
    # Centred on the mean over all samples.
    "id-mrf-spatial": Case(
        lambda g, t: id_mrf_loss(g, t, center="spatial"),
        (draw(BATCH, 13, 11, 12), draw(BATCH, 13, 11, 12, seed=1)),
        samples=False,
    ),
}


def results(case: Case, images: Any, shared: Any, gradient: Any = upstream) -> Any:
    """What the call returns and, where it can be differentiated, the gradients of all inputs.

    `gradient` makes that of the first result from it.
    """
    leaves = [t.detach().requires_grad_() for t in (*images, *shared)]
    made = case.call(*leaves)
    made = made if isinstance(made, tuple) else (made,)
    first = made[0]
    if not first.requires_grad:
        return tuple(t.detach() for t in made), ()
    grads = torch.autograd.grad(first, leaves, gradient(first), allow_unused=True)
    return tuple(t.detach() for t in made), grads


def check_equal(actual: Any, expected: Any) -> None:
    for got, want in zip((*actual[0], *actual[1]), (*expected[0], *expected[1])):
        assert (got is None) == (want is None)
        if got is not None:
            assert got.shape == want.shape
            # The sign of zero counts as well.
            same = bits(got) == bits(want)
            assert same.all(), (got.double() - want.double()).abs().max()


@pytest.mark.parametrize("name", CASES)
def test_a_call_and_its_threads_give_equal_bits(name):
    case = CASES[name]
    torch.set_num_threads(1)
    expected = results(case, case.images, case.shared)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        check_equal(results(case, case.images, case.shared), expected)


@pytest.mark.parametrize("name", CASES)
def test_layouts_give_equal_bits(name):
    torch.set_num_threads(1)
    case = CASES[name]
    expected = results(case, case.images, case.shared)
    for arrange in LAYOUTS.values():
        images = [arrange(t) for t in case.images]
        shared = [arrange(t) if t.dim() == 4 else t for t in case.shared]

        def moved(y: Tensor, arrange: Any = arrange) -> Tensor:
            grad = upstream(y)
            return arrange(grad) if y.dim() == 4 else grad

        check_equal(results(case, images, shared, moved), expected)
        # Only some of the tensors.
        check_equal(results(case, [images[0], *case.images[1:]], case.shared), expected)
        check_equal(results(case, case.images, shared), expected)


@pytest.mark.parametrize("name", CASES)
def test_expanded_images_give_equal_bits(name):
    torch.set_num_threads(1)
    case = CASES[name]
    expanded = [t[:1].expand(BATCH, -1, -1, -1) for t in case.images]
    expected = results(case, [t.contiguous() for t in expanded], case.shared)
    check_equal(results(case, expanded, case.shared), expected)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.samples])
def test_samples_do_not_see_their_batch(name):
    torch.set_num_threads(1)
    case = CASES[name]
    made, grads = results(case, case.images, case.shared)
    for i in range(BATCH):
        part = slice(i, i + 1)
        images = [t[part] for t in case.images]
        alone = results(case, images, case.shared, lambda _, at=part: upstream(made[0])[at])
        # The updated mask of a partial convolution is one for all samples.
        check_equal(
            (alone[0], alone[1][: len(images)]),
            (
                [t if t.shape[0] == 1 else t[part] for t in made],
                [g if g is None else g[part] for g in grads[: len(images)]],
            ),
        )


@pytest.mark.parametrize(("channels", "patch"), [(3, 7), (40, 3), (9, 1)])
def test_matching_does_not_see_its_blocks(channels, patch):
    """Wanted queries are cut into blocks of columns and rows; a cropped image is cut elsewhere."""
    torch.set_num_threads(1)
    query, key = draw(1, channels, 37, 71), draw(1, channels, 20, 23, seed=1)
    index, score = nearest_patch(query, key, patch_size=patch)
    for top, left, bottom, right in ((0, 0, 37, 64), (5, 13, 30, 71)):
        part = query[..., top:bottom, left:right]
        found, reached = nearest_patch(part, key, patch_size=patch)
        place = (slice(None), slice(top, bottom - patch + 1), slice(left, right - patch + 1))
        assert torch.equal(found, index[place])
        assert torch.equal(bits(reached), bits(score[place].contiguous()))


def test_attention_does_not_see_its_windows():
    """1150 query columns fall into two windows, 750 into one; only the seam tells."""
    f, b = draw(1, 4, 6, 2300) * 0.3, draw(1, 4, 128, 128, seed=1) * 0.3
    whole, index = contextual_attention(f, b, hole(64, 64), fuse=False, return_index=True)
    left = f[..., :1500]
    part, part_index = contextual_attention(left, b, hole(64, 64), fuse=False, return_index=True)
    same = (part == whole[..., :1500]).all(1).all(1).all(0)
    # Pixels at the seam are the sum of what both windows paste there; the last three see the edge.
    assert set((~same).nonzero().flatten().tolist()) <= {1149, 1150, 1497, 1498, 1499}
    torch.testing.assert_close(part[..., 1149:1151], whole[..., 1149:1151])
    assert torch.equal(part_index[..., :749], index[..., :749])
