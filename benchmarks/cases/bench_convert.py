"""`inpaint_ops.convert` on networks of plain torch.nn: eager, converted, and ours by hand.

    python -m inpaint_ops.benchmarks.cases.bench_convert [--networks NAME ...] [--size 256]
        [--threads 1 2] [--modes forward step] [--seconds 8] [--width CHANNELS] [--sample]

Calls take turns; the table has the ratios of medians and of minima, eager to each. "step" is a
forward and a backward pass and a step of plain gradient descent, so that weights change. The share
is what converting reaches of the speed-up of the networks written by hand. Without --sample every
recognised layer is kept, with it those that measure faster.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import inpaint_ops
from inpaint_ops.benchmarks.cases.port_networks import NAMES, build, hole
from inpaint_ops.benchmarks.harness.timing import interleave
from inpaint_ops.models import create_model

# The network of each method, and what its forward takes of the arguments of the plain one.
_BY_HAND: dict[str, tuple[str, Callable[..., Any]]] = {
    "deepfill_v2": ("generator", lambda x, mask: (x, mask)),
    "partial_conv_unet": ("generator", lambda x, valid: (x, valid[:, :1].contiguous())),
    "glcic": ("generator", lambda x: (x,)),
    "edge_connect": ("inpaint_generator", lambda x: (x,)),
    "gmcnn": ("generator", lambda x: (x,)),
    "shift_net": ("generator", lambda x: (x, hole(1, x.shape[2]))),
}


def _tensors(result: Any) -> list[Tensor]:
    found = result if isinstance(result, (tuple, list)) else [result]
    return [t for t in found if isinstance(t, Tensor) and t.requires_grad]


def _call(net: nn.Module, args: tuple[Tensor, ...], mode: str) -> Callable[[], Any]:
    if mode == "forward":
        net.eval()

        def forward() -> Any:
            with torch.no_grad():
                return net(*args)

        return forward
    net.train()
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-6)

    def step() -> None:
        optimiser.zero_grad()
        torch.stack([t.square().mean() for t in _tensors(net(*args))]).sum().backward()
        optimiser.step()

    return step


def _networks(options: argparse.Namespace, name: str, mode: str) -> dict[str, Callable[[], Any]]:
    plain, args = build(name, width=options.width, size=options.size)
    plain.train(mode == "step")
    converted = copy.deepcopy(plain)
    sample = args if options.sample else None
    report = inpaint_ops.convert(converted, sample)
    print(f"{name} {mode}: {str(report).splitlines()[-1]}", flush=True)
    calls = {"eager": _call(plain, args, mode), "converted": _call(converted, args, mode)}
    if options.width is None:
        attribute, taken = _BY_HAND[name]
        by_hand = getattr(create_model(name), attribute)
        # As `complete` and training hand them over.
        pictures, *rest = taken(*args)
        pictures = pictures.contiguous(memory_format=torch.channels_last)
        calls["by hand"] = _call(by_hand, (pictures, *rest), mode)
    return calls


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--modes", nargs="+", default=["forward", "step"])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--width", type=int)
    parser.add_argument("--sample", action="store_true")
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {options.size} x {options.size}", flush=True)
    for name in options.networks:
        for mode in options.modes:
            for threads in options.threads:
                torch.set_num_threads(threads)
                calls = _networks(options, name, mode)
                times = interleave(calls, seconds=options.seconds)
                eager = times["eager"]
                line = f"{name:18} {mode:8} {threads} threads  eager {eager.median * 1e3:8.1f} ms"
                ratios = {}
                for other in list(calls)[1:]:
                    ratios[other] = eager.median / times[other].median
                    least = eager.minimum / times[other].minimum
                    line += f"  {other} {ratios[other]:5.2f} ({least:5.2f})"
                if "by hand" in ratios:
                    line += f"  share {ratios['converted'] / ratios['by hand']:.2f}"
                print(line, flush=True)


if __name__ == "__main__":
    main()
