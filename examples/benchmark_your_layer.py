"""Time a layer of yours against the one of this package, in turns.

    python examples/benchmark_your_layer.py

Change `yours`, `ours` and `x`. The two take turns, so that a machine that slows down slows both,
and the ratio of medians is what counts.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from inpaint_ops import FusedConv2d


def seconds(call: Callable[[], Tensor]) -> float:
    """Return the time of one call."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def main(arguments: Sequence[str] | None = None) -> float:
    """Print both medians and return their ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    c = options.channels

    yours = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c, c, 3), nn.ELU())
    ours = FusedConv2d(c, c, 3, padding=1, padding_mode="reflect", activation="elu")
    ours.load_state_dict(yours[1].state_dict())
    x = torch.randn(1, c, options.size, options.size)

    with torch.no_grad():
        # First that both compute the same, and that nothing is packed for the first time below.
        difference = float((yours(x) - ours(x)).abs().max())
        times = [
            (seconds(lambda: yours(x)), seconds(lambda: ours(x))) for _ in range(options.rounds)
        ]
    theirs, mine = (statistics.median(column) for column in zip(*times))
    print(f"threads {torch.get_num_threads()}, largest difference {difference:.1e}")
    print(f"yours {1e3 * theirs:.2f} ms, ours {1e3 * mine:.2f} ms, ratio {theirs / mine:.2f}")
    return theirs / mine


if __name__ == "__main__":
    main()
