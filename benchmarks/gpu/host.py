"""Host time of calls on the GPU path: ``python -m inpaint_ops.benchmarks.gpu.host``.

Microseconds of Python and of PyTorch's own operators that a call takes before the device has
anything to do, with `stand_in` in the place of the driver: no GPU is needed. Not in it: the
driver's own time for a launch (2 to 4 us each on common machines) and the library's convolutions,
in whose place memory for their results is made. A CPU tensor costs what a GPU's does, but for the
allocator's time. The least of many calls is the figure to compare: a busy machine only adds to it.

Columns, each a whole call: forward without gradients, forward recorded for autograd, forward and
backward, and of the last what stands for the library. "bare" is what autograd costs whoever uses
it: the forward call inside a Function that is otherwise empty, and its backward pass.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import torch
from torch import Tensor

import inpaint_ops
from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks.gpu.stand_in import stand_in_device


class Case(NamedTuple):
    """A call, what INPAINT_OPS_CONV is for it, and the tensors that have gradients, if any."""

    name: str
    choice: str
    call: Callable[..., Tensor]
    tensors: Sequence[Tensor]
    leaves: int


def cases(dtype: torch.dtype) -> Iterator[Case]:
    """Every operator with GPU kernels, images of 16 channels, 8 x 8, in channels_last."""

    def image(channels: int = 16) -> Tensor:
        x = torch.ones(1, channels, 8, 8, dtype=dtype)
        return x.contiguous(memory_format=torch.channels_last)

    def weight(*shape: int) -> Tensor:
        return torch.ones(shape, dtype=dtype)

    x, bias = image(), weight(32)
    taps = weight(32, 16, 3, 3)
    hole = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    hole[:, :, 2:4, 2:4] = True
    small = hole[:, :, ::2, ::2]
    ops = inpaint_ops
    for choice in ("fused", "library"):
        convolved = [
            ("gated_conv2d", lambda *t: ops.gated_conv2d(*t, padding=1), taps),
            ("gated_conv2d, doubled", lambda *t: ops.gated_conv2d(*t, padding=1, upsample=2), taps),
            ("fused_conv2d", lambda *t: ops.fused_conv2d(*t, padding=1, activation="elu"), taps),
            (
                "fused_conv_transpose2d",
                lambda *t: ops.fused_conv_transpose2d(*t, stride=2, padding=1),
                weight(16, 32, 4, 4),
            ),
            ("partial_conv2d", lambda x, *t: ops.partial_conv2d(x, ~hole, *t, padding=1)[0], taps),
        ]
        for name, call, kernel in convolved:
            yield Case(name, choice, call, (x, kernel, bias), 3)

    def attention(f: Tensor, b: Tensor) -> Tensor:
        y, _ = ops.contextual_attention(f, b, small, return_index=True)
        return y

    others: list[tuple[str, Callable[..., Tensor], int]] = [
        ("shift_connection", lambda e, d: ops.shift_connection(d, e, hole)[0], 1),
        ("contextual_attention", attention, 2),
        ("id_mrf_loss", lambda g, t: ops.id_mrf_loss(g, t), 2),
        ("nearest_patch", lambda q, k: ops.nearest_patch(q, k, patch_size=3)[0], 0),
    ]
    for name, call, leaves in others:
        yield Case(name, "auto", call, (x, image()), leaves)


def _least(call: Callable[[], Any], repeats: int) -> float:
    """Microseconds of the fastest of many calls."""
    for _ in range(3):
        call()
    best = float("inf")
    for _ in range(repeats):
        begun = time.perf_counter_ns()
        call()
        best = min(best, time.perf_counter_ns() - begun)
    return best / 1000


class _Bare(torch.autograd.Function):
    """A call recorded with as little as can be; its backward pass returns what is there."""

    @staticmethod
    def forward(ctx: Any, case: Case, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return case.call(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        return None, *ctx.saved_tensors


def _in_library(call: Callable[[], Any], repeats: int) -> float:
    """Least microseconds of a call inside what stands for the library's convolutions."""
    spent = [0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any) -> Any:
            begun = time.perf_counter_ns()
            result = function(*args)
            spent[-1] += time.perf_counter_ns() - begun
            return result

        return inner

    aten = torch.ops.aten
    with ExitStack() as stack:
        for operator in (aten.convolution, aten.convolution_backward):
            stack.enter_context(patch.object(operator, "default", timed(operator.default)))
        for _ in range(repeats):
            call()
            spent.append(0)
    return min(spent[:-1]) / 1000


def measure(case: Case, repeats: int) -> dict[str, Any]:
    """Times of a call in microseconds, and the kernels that it launches."""
    with stand_in_device() as launches, patch.dict(os.environ, INPAINT_OPS_CONV=case.choice):
        forward = _least(lambda: case.call(*case.tensors), repeats)
        del launches[:]
        y = case.call(*case.tensors)
        row = {"op": case.name, "choice": case.choice, "launches": len(launches)}
        row["forward"] = forward
        if case.leaves:
            leaves = [t.clone().requires_grad_() for t in case.tensors[: case.leaves]]
            tensors = [*leaves, *case.tensors[case.leaves :]]
            grad = torch.ones_like(y)

            def both(call: Callable[..., Tensor]) -> Any:
                return torch.autograd.grad(call(*tensors), leaves, grad)

            row["recorded"] = _least(lambda: case.call(*tensors), repeats)
            row["with_gradients"] = _least(lambda: both(case.call), repeats)
            row["library"] = _in_library(lambda: both(case.call), repeats)
            row["bare"] = _least(lambda: both(partial(_Bare.apply, case)), repeats)
    return row


_COLUMNS = {
    "launches": "launches",
    "forward": "forward",
    "recorded": "recorded",
    "with_gradients": "+ back",
    "library": "library",
    "bare": "bare",
}


def _shown(value: float | None) -> str:
    text = "-" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
    return f" {text:>8}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write gpu_host.json; needs triton, but no GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m inpaint_ops.benchmarks.gpu.host",
        description=(__doc__ or "").partition("\n")[0],
    )
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16")
    parser.add_argument("--repeats", type=int, default=300)
    parser.add_argument("--only", default="", help="part of an operator's name")
    parser.add_argument("--out", type=Path, default=Path("reports"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = []
    print(f"{'us a call':24} {'path':8}" + "".join(f" {name:>8}" for name in _COLUMNS.values()))
    for case in cases(getattr(torch, options.dtype)):
        if options.only not in case.name:
            continue
        row = measure(case, options.repeats)
        rows.append(row)
        print(f"{row['op']:24} {row['choice']:8}" + "".join(map(_shown, map(row.get, _COLUMNS))))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "gpu_host.json"
    with write_atomically(path) as stream:
        stream.write(json.dumps({"dtype": options.dtype, "rows": rows}, indent=1).encode())
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
