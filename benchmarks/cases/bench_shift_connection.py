"""The shift-connection layer against the public Shift-Net layer."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn

import inpaint_ops
from inpaint_ops.benchmarks.harness.case import Case, Problem, Target, Work, difference
from inpaint_ops.benchmarks.harness.plain import Plain
from inpaint_ops.exporting import export


def _case(size: int, channels: int, *, batch: int = 1, backward: bool = False, **rest: Any) -> Case:
    sizes = {"batch": batch, "map": size, "channels": channels, "backward": backward}
    pass_ = "forward-backward" if backward else "forward"
    case_id = f"{pass_}-n{batch}-c{channels}-{size}x{size}"
    return Case("shift_connection", case_id, sizes, peers=not backward, **rest)


def _curve(size: int, **rest: Any) -> Case:
    return _case(size, 128, curve="forward, C = 128, quarter hole", x=size, **rest)


CASES = (
    _case(32, 256, target=Target(must=5, aim=8), quick=True),
    _curve(64, target=Target(must=8, aim=11), quick=True),
    _case(32, 256, backward=True, quick=True),
    _case(64, 128, backward=True),
    _case(32, 256, batch=4),
    _case(32, 256, batch=4, backward=True),
    _curve(16),
    _curve(32),
    _curve(48),
    _curve(96),
)


class _DenseShift(torch.autograd.Function):
    """Shift of the public layer, as a dense 0/1 matrix.

    Source of the steps: Zhaoyi-Yan/Shift-Net_pytorch, commit a353431,
    models/shift_net/InnerShiftTripleFunction.py and util/NonparametricShift.py.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, flag: Tensor, gradient_scale: float) -> Tensor:
        n, _, h, w = x.shape
        decoder, encoder = x.chunk(2, 1)
        decoder_rows, encoder_rows = _rows(decoder), _rows(encoder)
        missing = decoder_rows[flag].view(n, -1, decoder.shape[1])
        known = encoder_rows[~flag].view(n, -1, encoder.shape[1])

        products = torch.einsum("bik,bjk->bij", missing, known)
        known_squares = torch.einsum("bij,bij->bi", known, known)
        missing_squares = torch.einsum("bij,bij->bi", missing, missing)
        cosine = products / torch.einsum("bi,bj->bij", missing_squares, known_squares).sqrt()
        best = cosine.max(2).indices

        missing_at = flag.nonzero()[:, 1].view(n, -1)
        known_at = (~flag).nonzero()[:, 1].view(n, -1).gather(1, best)
        matrix = x.new_zeros(n, h * w, h * w)
        matrix[
            torch.arange(n, device=matrix.device)[:, None].expand_as(missing_at),
            missing_at,
            known_at,
        ] = 1
        shifted = torch.bmm(matrix, encoder_rows).view(n, h, w, -1).permute(0, 3, 1, 2)
        ctx.matrix = matrix
        ctx.gradient_scale = gradient_scale
        return torch.cat([decoder, encoder, shifted], 1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        grad_decoder, grad_encoder, grad_shifted = grads[0].chunk(3, 1)
        transposed = ctx.matrix.permute(0, 2, 1).contiguous()
        moved = torch.bmm(transposed, grad_shifted.flatten(2).permute(0, 2, 1))
        moved = moved.permute(0, 2, 1).reshape(grad_encoder.shape)
        grad_encoder = grad_encoder + moved * ctx.gradient_scale
        return torch.cat([grad_decoder, grad_encoder], 1), None, None


def _rows(x: Tensor) -> Tensor:
    """Turn (N, C, h, w) into (N, h * w, C), by 1 x 1 windows as in the public code."""
    windows = x.unfold(2, 1, 1).unfold(3, 1, 1).permute(0, 2, 3, 1, 4, 5)
    return windows.contiguous().view(x.shape[0], -1, x.shape[1])


class _ForExport(nn.Module):
    """The layer, which an exporter writes as its formula, with a mask that any engine takes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = inpaint_ops.ShiftConnection()

    def forward(self, x: Tensor, hole: Tensor) -> Tensor:
        result: Tensor = self.layer(x, hole != 0)[0]
        return result


def _plain(x: Tensor, hole: Tensor) -> Plain:
    given = (x, hole.to(x.dtype))

    def build(layout: torch.memory_format, compiled: bool) -> Callable[..., Any]:
        shift = torch.compile(dense_shift, dynamic=False) if compiled else dense_shift
        return lambda x, hole: shift(x, hole != 0)

    # Our exporter, which writes the layer as its formula.
    return Plain(given, partial(export, _ForExport(), dynamic=False, sample=given), build)


def dense_shift(x: Tensor, hole: Tensor) -> Tensor:
    """Return the result of the public formula."""
    result: Tensor = _DenseShift.apply(x, hole.flatten(1), 1.0)
    return result


def setup(case: Case) -> Problem:
    """Return the problem: features after a ReLU, a centred square hole of a quarter of the area."""
    n, size, channels = case.sizes["batch"], case.sizes["map"], case.sizes["channels"]
    generator = torch.Generator().manual_seed(size + channels)
    x = torch.randn(n, 2 * channels, size, size, generator=generator).relu_()
    hole = torch.zeros(n, 1, size, size, dtype=torch.bool)
    hole[:, :, size // 4 : size // 4 + size // 2, size // 4 : size // 4 + size // 2] = True
    gradient = None
    if case.sizes["backward"]:
        x.requires_grad_()
        gradient = torch.randn(n, 3 * channels, size, size, generator=generator)
    layer = inpaint_ops.ShiftConnection()

    def ours(x: Tensor, hole: Tensor) -> Tensor:
        result: Tensor = layer(x, hole)[0]
        return result

    missing = int(hole.sum()) / n
    known = size * size - missing
    # One place of a multiply-add each for the product with the key's norm and the comparison.
    flops = 2.0 * n * missing * known * (channels + 2)
    # Forward: read 2 C channels, write 3 C. Backward: read 3 C, write 2 C.
    moved = x.element_size() * n * size * size * channels * (10 if case.sizes["backward"] else 5)
    return Problem(
        inputs=(x, hole),
        implementations={"ours": ours, "eager": dense_shift},
        check=_judge(x.detach(), hole, gradient),
        work=Work(flops, float(moved)),
        gradient=gradient,
        plain=None if gradient is not None else partial(_plain, x, hole),
    )


def _judge(x: Tensor, hole: Tensor, gradient: Tensor | None) -> Any:
    n, _, h, w = x.shape
    decoder, encoder = x.double().chunk(2, 1)
    missing = hole.flatten(1)

    @cache
    def expected() -> Tensor:
        return inpaint_ops.reference.shift_connection(decoder, encoder, hole)[1].flatten(1)

    def check(outcome: Any) -> str | None:
        y, grads = (outcome, None) if gradient is None else outcome
        y = y.detach()
        c = encoder.shape[1]
        if tuple(y.shape) != (n, 3 * c, h, w):
            return f"result has shape {tuple(y.shape)}, expected {(n, 3 * c, h, w)}"
        if not torch.equal(y[:, : 2 * c], x):
            return "decoder or encoder part is changed"
        shifted = y[:, 2 * c :].flatten(2)
        index, wrong = _sources(shifted, expected())
        if wrong is None and gradient is not None and grads is not None:
            wanted = _expected_gradient(gradient, index)
            wrong = difference("gradient", grads[0], wanted, terms=64)
        return wrong

    def _sources(shifted: Tensor, best: Tensor) -> tuple[Tensor, str | None]:
        """Return the source of each shifted feature, the best or one as good but for rounding."""
        index = best.clone()
        values = encoder.flatten(2)
        if shifted.masked_select(~missing[:, None]).any():
            return index, "shifted part is not zero outside the hole"
        at = best.clamp_min(0)[:, None].expand_as(values)
        different = (values.gather(2, at) != shifted).any(1) & missing
        for b, p in different.nonzero().tolist():
            same = (values[b] == shifted[b, :, p, None]).all(0) & ~missing[b]
            if not same.any():
                return index, f"shifted feature of sample {b}, position {p} is no known feature"
            index[b, p] = same.nonzero()[0, 0]
            query, chosen = decoder.flatten(2)[b, :, p], values[b][:, [index[b, p], best[b, p]]]
            cosine = torch.cosine_similarity(query[:, None], chosen, dim=0)
            if cosine[0] < cosine[1] - 1e-5:
                return index, f"position {p} of sample {b} has a better match"
        return index, None

    return check


def _expected_gradient(gradient: Tensor, index: Tensor) -> Tensor:
    grad_decoder, grad_encoder, grad_shifted = gradient.double().flatten(2).chunk(3, 1)
    taken = (index >= 0)[:, None]
    target = index.clamp_min(0)[:, None].expand_as(grad_shifted)
    moved = torch.where(taken, grad_shifted, grad_shifted.new_zeros(()))
    grad_encoder = grad_encoder.scatter_add(2, target, moved)
    both = torch.cat([grad_decoder, grad_encoder], 1)
    return both.view(gradient.shape[0], -1, *gradient.shape[2:])
