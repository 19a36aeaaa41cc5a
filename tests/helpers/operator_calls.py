"""Small calls of every public operator, for tests of what all of them have in common."""

import torch

from inpaint_ops import ops


def draw(*size):
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


HOLE = (torch.arange(12) % 4 == 1).float().expand(1, 1, 12, 12)
# Of each differentiable operator a function of the tensors that it is differentiable in.
CALLS = {
    "fused_conv2d": (
        lambda x, w, b: ops.fused_conv2d(x, w, b, padding=1, activation="silu"),
        [draw(2, 4, 12, 12), draw(8, 4, 3, 3), draw(8)],
    ),
    "gated_conv2d": (
        lambda x, w: ops.gated_conv2d(x, w, padding=1),
        [draw(1, 4, 12, 12), draw(8, 4, 3, 3)],
    ),
    "fused_conv_transpose2d": (
        lambda x, w: ops.fused_conv_transpose2d(x, w, activation="tanh"),
        [draw(1, 4, 6, 6), draw(4, 5, 4, 4)],
    ),
    "partial_conv2d": (
        lambda x1, x2, w, b: ops.partial_conv2d(
            (x1, x2), (1 - HOLE[..., :6, :6], HOLE), w, b, padding=1, upsample=(2, 1)
        )[0],
        [draw(1, 3, 6, 6), draw(1, 2, 12, 12), draw(8, 5, 3, 3), draw(8)],
    ),
    "instance_norm": (
        lambda x, residual: ops.instance_norm(x, residual=residual),
        [draw(2, 4, 6, 5), draw(2, 4, 6, 6)[..., :5]],
    ),
    "shift_connection": (
        lambda d, e: ops.shift_connection(d, e, HOLE)[0],
        [draw(1, 4, 12, 12), draw(1, 4, 12, 12)],
    ),
    "contextual_attention": (
        lambda f, b: ops.contextual_attention(f, b, HOLE[..., :6, :6])[0],
        [draw(1, 4, 12, 12), draw(1, 4, 12, 12)],
    ),
    "id_mrf_loss": (
        lambda g, t: ops.id_mrf_loss(g, t).reshape(1),
        [draw(1, 4, 6, 6), draw(2, 4, 6, 6)[1:]],
    ),
}


def bits(*size):
    return (draw(*size) > 0.5).float()


# Of each operator the public function, all its tensors by name, and its options.
ARGUMENTS = {
    "fused_conv2d": (
        ops.fused_conv2d,
        lambda: {"x": draw(1, 4, 6, 6), "weight": draw(4, 4, 3, 3), "bias": draw(4)},
        {"padding": 1, "activation": "relu"},
    ),
    "gated_conv2d": (
        ops.gated_conv2d,
        lambda: {"x": draw(1, 4, 6, 6), "weight": draw(4, 4, 3, 3), "bias": draw(4)},
        {"padding": 1},
    ),
    "fused_conv_transpose2d": (
        ops.fused_conv_transpose2d,
        lambda: {"x": draw(1, 4, 6, 6), "weight": draw(4, 4, 4, 4), "bias": draw(4)},
        {},
    ),
    "partial_conv2d": (
        ops.partial_conv2d,
        lambda: {
            "x": draw(1, 4, 6, 6),
            "valid": bits(1, 1, 6, 6),
            "weight": draw(4, 4, 3, 3),
            "bias": draw(4),
        },
        {"padding": 1},
    ),
    "instance_norm": (
        ops.instance_norm,
        lambda: {
            "x": draw(1, 4, 6, 6),
            "weight": draw(4),
            "bias": draw(4),
            "residual": draw(1, 4, 6, 6),
        },
        {},
    ),
    "channelwise_linear": (
        ops.channelwise_linear,
        lambda: {"x": draw(2, 4, 3, 3), "weight": draw(4, 9, 9), "bias": draw(4, 9)},
        {},
    ),
    "shift_connection": (
        ops.shift_connection,
        lambda: {
            "decoder": draw(1, 4, 6, 6),
            "encoder": draw(1, 4, 6, 6),
            "hole": bits(1, 1, 6, 6),
        },
        {},
    ),
    "contextual_attention": (
        ops.contextual_attention,
        lambda: {"fg": draw(1, 4, 6, 6), "bg": draw(1, 4, 6, 6), "hole": bits(1, 1, 3, 3)},
        {},
    ),
    "id_mrf_loss": (
        ops.id_mrf_loss,
        lambda: {"generated": draw(1, 4, 6, 6), "target": draw(1, 4, 6, 6)},
        {},
    ),
    "nearest_patch": (
        ops.nearest_patch,
        lambda: {
            "query": draw(1, 4, 6, 6),
            "key": draw(1, 4, 6, 6),
            "valid": torch.ones(1, 1, 6, 6),
            "where": torch.ones(1, 1, 4, 4),
        },
        {},
    ),
    "refine_patch": (
        ops.refine_patch,
        lambda: {
            "query": draw(1, 4, 6, 6),
            "key": draw(1, 4, 6, 6),
            "guess": torch.zeros(1, 4, 4, dtype=torch.int64),
            "valid": torch.ones(1, 1, 6, 6),
            "where": torch.ones(1, 1, 4, 4),
        },
        {"patch_size": 3},
    ),
}
EVERY_TENSOR = [(op, name) for op, (_, tensors, _) in ARGUMENTS.items() for name in tensors()]


def run(op, tensors):
    """All results of the operator for these tensors, as a list."""
    call, _, options = ARGUMENTS[op]
    result = call(**tensors, **options)
    return [result] if isinstance(result, torch.Tensor) else list(result)
