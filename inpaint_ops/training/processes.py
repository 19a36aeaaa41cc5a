"""The processes that train together, and the part of each step that falls to this one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from inpaint_ops.training.config import Config

# What `accelerate launch` may ask for that would not be done.
_ELSEWHERE = ("ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM")


class Processes:
    """This process among those that ``accelerate launch`` or ``torchrun`` started, or alone.

    Attributes:
        device: of this process.
        index: its number; the first one, `is_first`, writes files.
        count: of the processes.

    Raises:
        ImportError: accelerate is not installed.
        ValueError: the launcher asks for what the configuration does not, or for what is not done.
    """

    def __init__(self, config: Config) -> None:
        try:
            from accelerate import PartialState
        except ImportError as exc:
            raise ImportError(
                f"train: {exc.name} is not installed: pip install 'inpaint-ops[train]'"
            ) from exc
        for name in _ELSEWHERE:
            if os.environ.get(name, "").lower() == "true":
                raise ValueError(f"train: shares batches between processes alone, got {name}")
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if asked not in ("no", config.precision):
            raise ValueError(
                f"train: precision must be that of the launcher, {asked}, got {config.precision}"
            )
        launched = int(os.environ.get("WORLD_SIZE", "1")) > 1
        # Without a GPU the launcher's processes meet only if the CPU is asked for.
        cpu = config.device == "cpu" or (launched and not torch.cuda.is_available())
        self._state = PartialState(cpu=cpu)
        self.device: torch.device = self._state.device
        self.index: int = self._state.process_index
        self.count: int = self._state.num_processes
        self._networks: list[DistributedDataParallel] = []
        if self.count == 1 and launched:
            raise ValueError(
                f"train: {os.environ['WORLD_SIZE']} processes were started apart; start them by "
                "accelerate launch"
            )
        if config.sync_batch_norm and self.device.type != "cuda":
            raise ValueError(f"train: sync_batch_norm needs GPUs, got {self.device}")

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and messages."""
        return self.index == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """Put around a network what adds up the gradients of all processes."""
        if self.count == 1:
            return network
        ids = None if self.device.type == "cpu" else [self.device.index]
        wrapped = DistributedDataParallel(network, device_ids=ids)
        self._networks.append(wrapped)
        return wrapped

    def forget(self) -> None:
        """Let go of the networks of a phase."""
        self._networks.clear()

    @contextmanager
    def part(self, last: bool) -> Iterator[None]:
        """Leave gradients unshared in the parts of a batch before the last one."""
        with ExitStack() as stack:
            if not last:
                for network in self._networks:
                    stack.enter_context(network.no_sync())
            yield

    def seed(self, seed: int, step: int) -> int:
        """Seed torch's generators for a step of this process; return another seed."""
        one, other = np.random.SeedSequence((seed, step, self.index)).generate_state(2, np.uint64)
        torch.manual_seed(int(one) >> 1)
        return int(other) >> 1

    def mean(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the means over all processes."""
        if self.count == 1:
            return dict(values)
        # Not all devices have float64; its sums do not matter, each is read by people.
        kind: Any = torch.float32 if self.device.type == "mps" else torch.float64
        sums = torch.tensor(list(values.values()), dtype=kind, device=self.device)
        torch.distributed.all_reduce(sums)
        return dict(zip(values, (sums / self.count).tolist()))

    def wait(self) -> None:
        """Wait for the others."""
        self._state.wait_for_everyone()

    def close(self) -> None:
        """Part from the others."""
        self._state.destroy_process_group()
