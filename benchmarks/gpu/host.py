"""Host time of calls on the GPU path: ``python -m inpaint_ops.benchmarks.gpu.host``.

Microseconds of Python and of PyTorch's own operators that a call takes before the device has
anything to do, with `stand_in` in the place of the driver: no GPU is needed. Not in it: the
driver's own time for a launch (2 to 4 us each on common machines) and the library's convolutions.
A CPU tensor costs what a GPU's does, but for the allocator's time. The least of many calls is the
figure to compare: a busy machine only adds to it.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
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
            rest = case.tensors[case.leaves :]
            grad = torch.ones_like(y)
            recorded = _least(lambda: case.call(*leaves, *rest), repeats)
            both = _least(
                lambda: torch.autograd.grad(case.call(*leaves, *rest), leaves, grad), repeats
            )
            row.update(recorded=recorded, with_gradients=both)
    return row


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
    print(
        f"{'us a call':24} {'path':8} {'launches':>8} {'forward':>8} {'recorded':>8} {'+ back':>8}"
    )
    for case in cases(getattr(torch, options.dtype)):
        if options.only not in case.name:
            continue
        row = measure(case, options.repeats)
        rows.append(row)
        times = " ".join(
            f"{row[key]:8.1f}" if key in row else f"{'-':>8}"
            for key in ("forward", "recorded", "with_gradients")
        )
        print(f"{row['op']:24} {row['choice']:8} {row['launches']:8} {times}")
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "gpu_host.json"
    with write_atomically(path) as stream:
        stream.write(json.dumps({"dtype": options.dtype, "rows": rows}, indent=1).encode())
    print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
