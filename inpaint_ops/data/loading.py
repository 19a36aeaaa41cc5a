"""Batches of samples, read ahead by worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from inpaint_ops.data.samples import Sample, Samples

if TYPE_CHECKING:
    from torch import Tensor

# Beside the uses that `samples` seeds generators for.
_ORDER = 2


class Batch(NamedTuple):
    """Samples together.

    Attributes:
        image: (N, 3, height, width) float32 in [0, 1].
        hole: (N, 1, height, width) bool, True = missing.
        names: of the pictures.
        faults: a text for each file that was skipped.
    """

    image: Tensor
    hole: Tensor
    names: tuple[str, ...]
    faults: tuple[str, ...]


class Order:
    """The endless order in which pictures come: epoch after epoch, each shuffled anew.

    Args:
        count: of the pictures.
        seed: of the shuffles; None keeps the order of the data set.
    """

    def __init__(self, count: int, seed: int | None) -> None:
        self.count, self.seed = count, seed
        self._shuffled: tuple[int, Any] = (-1, None)

    def __getitem__(self, position: int) -> tuple[int, int]:
        """Return the epoch and the number of the picture at a position."""
        epoch, place = divmod(position, self.count)
        if self.seed is None:
            return epoch, place
        if self._shuffled[0] != epoch:
            rng = np.random.default_rng((self.seed, epoch, 0, _ORDER))
            self._shuffled = epoch, rng.permutation(self.count)
        return epoch, int(self._shuffled[1][place])


@dataclass(frozen=True)
class Rows:
    """The rows of each step's batch that one process reads, in the parts that it reads them in.

    Attributes:
        batch: samples of a step, of all processes and parts together.
        process: number of this process.
        processes: how many share a batch.
        parts: equal parts that a process takes one after the other.

    Raises:
        ValueError: the batch cannot be divided so.
    """

    batch: int
    process: int = 0
    processes: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.batch % (self.processes * self.parts):
            raise ValueError(
                f"batch must be a multiple of processes x accumulate = {self.processes} x "
                f"{self.parts}, got {self.batch}"
            )

    def keys(self, order: Order, start: int, steps: int) -> Iterator[list[tuple[int, int]]]:
        """Yield the samples of each part of each step, from position `start` of the order on."""
        part = self.batch // (self.processes * self.parts)
        for step in range(steps):
            first = start + step * self.batch + self.process * part * self.parts
            for begin in range(first, first + part * self.parts, part):
                yield [order[position] for position in range(begin, begin + part)]


def batches(
    samples: Samples,
    rows: Rows,
    *,
    start: int = 0,
    steps: int,
    shuffle: bool = True,
    workers: int | None = None,
    pin: bool = False,
) -> Generator[Batch, None, None]:
    """Yield the parts of `steps` batches, the same for any number of workers.

    Args:
        samples: what is read.
        rows: of each batch, those that this process reads.
        start: samples that came before, in all processes together.
        steps: number of batches.
        shuffle: each epoch in an order of its own, that of the samples' seed.
        workers: processes that read ahead; 0 reads in this one. None: one for each core that this
            process may use, at most 4.
        pin: put batches into memory that a GPU reads from.

    Raises:
        ValueError: a file cannot be read, with its name and the reason.
    """
    from torch.utils.data import DataLoader

    order = Order(len(samples), samples.seed if shuffle else None)
    loader: DataLoader[Any] = DataLoader(
        _Reader(samples),  # type: ignore[arg-type]
        batch_sampler=rows.keys(order, start, steps),
        num_workers=_cores() if workers is None else workers,
        collate_fn=_collated,
        worker_init_fn=_outlast_termination,
        pin_memory=pin,
        # Batches of one part of a run may have another size than those of the next.
        persistent_workers=False,
    )
    for batch in loader:
        if isinstance(batch, str):
            raise ValueError(batch)
        yield batch


def _cores() -> int:
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return min(cores, 4)


def _outlast_termination(_worker: int) -> None:
    """Leave it to the main process when to end: schedulers and terminals signal all processes.

    A worker ends with its main process in any case, which it looks after.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


class _Reader:
    """Samples, or the text of an error: one that is raised in a worker arrives as a traceback."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __getitem__(self, key: tuple[int, int]) -> Sample | str:
        try:
            return self._samples[key]
        except ValueError as exc:
            return str(exc)


def _collated(samples: list[Sample | str]) -> Batch | str:
    good: list[Sample] = []
    for one in samples:
        if isinstance(one, str):
            return one
        good.append(one)
    return Batch(
        torch.stack([one.image for one in good]),
        torch.stack([one.hole for one in good]),
        tuple(one.name for one in good),
        tuple(text for one in good for text in one.faults),
    )
