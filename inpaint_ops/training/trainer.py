"""The phases of a method, one after the other, with checkpoints."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inpaint_ops.data import Batch, Rows, batches
from inpaint_ops.models import TrainingRecipe, save_weights
from inpaint_ops.training.average import Average
from inpaint_ops.training.board import Board, contact_sheet
from inpaint_ops.training.config import Config
from inpaint_ops.training.plan import Stage, make_plan
from inpaint_ops.training.processes import Processes
from inpaint_ops.training.run_folder import RunFolder

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Name among the losses under which processes agree to stop.
_STOP = "stop"


class NonFiniteLossError(RuntimeError):
    """A loss is NaN or infinite, so the weights are lost; the last checkpoint is not."""


class Stopped(Exception):
    """SIGTERM or Ctrl-C ended the run after a step, whose checkpoint is written.

    Attributes:
        number: of the signal.
    """

    # A copy in another process is made of the text; its attributes follow.
    def __init__(self, text: str, number: int = signal.SIGTERM) -> None:
        super().__init__(text)
        self.number = number


@dataclass(frozen=True)
class Progress:
    """A step that was done.

    Attributes:
        phase: its name.
        step: its number in the run, from 1 on.
        steps: of the whole run.
        losses: by name; means over the parts of the batch and over all processes.
        rate: pictures a second, in all processes together.
        skipped: files that could not be read so far, in this process.
    """

    phase: str
    step: int
    steps: int
    losses: Mapping[str, float]
    rate: float
    skipped: int


def train(
    config: Config,
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    features: nn.Module | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Train a method through all of its phases.

    Args:
        config: what is trained, with what.
        out: folder of the run; see `RunFolder`.
        resume: go on where the folder's last checkpoint is, or begin where there is none.
        features: feature network in place of the file that the configuration names.
        on_step: called after each step, in the first process.
        say: called with messages for people, in the first process.

    Returns:
        The file of the weights that complete pictures: their mean if there is one (`ema`).

    Raises:
        ImportError: the extra "train" is not installed.
        OSError: a file cannot be read or written; a checkpoint that cannot be written, for example
            on a full disk, leaves those before it whole.
        ValueError: wrong names or numbers, a picture that cannot be read, or a folder that holds
            another run; what differs is said.
        NonFiniteLossError: with the name of the first such loss.
        Stopped: after SIGTERM, or Ctrl-C; a second Ctrl-C ends it at once.
    """
    processes = Processes(config)
    run = _Run(config, Path(out), processes, features, on_step, say)
    try:
        with _terminations() as stopping:
            return run.train(resume, stopping)
    finally:
        run.close()
        processes.close()


class _Stopping:
    """Whether a signal asks the run to end, and which; another process may have got it."""

    def __init__(self) -> None:
        self.number: int = signal.SIGTERM
        self.is_set = False
        self.before: dict[int, Any] = {}

    def __call__(self, number: int, _: object) -> None:
        self.number, self.is_set = number, True
        if number == signal.SIGINT:  # a second one does what it did before
            signal.signal(number, self.before[number])

    @property
    def name(self) -> str:
        return "Ctrl-C" if self.number == signal.SIGINT else "SIGTERM"


@contextmanager
def _terminations() -> Iterator[_Stopping]:
    """Yield what SIGTERM and a first Ctrl-C set in this block, instead of ending the process."""
    stopping = _Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    numbers = [signal.SIGTERM]
    if callable(signal.getsignal(signal.SIGINT)):  # a shell's background jobs ignore it
        numbers.append(signal.SIGINT)
    stopping.before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number in numbers:
            signal.signal(number, stopping)
        yield stopping
    finally:
        for taken, handler in stopping.before.items():
            signal.signal(taken, handler)


class _Run:
    """One call of `train`."""

    def __init__(
        self,
        config: Config,
        out: Path,
        processes: Processes,
        features: nn.Module | None,
        on_step: Callable[[Progress], None],
        say: Callable[[str], None],
    ) -> None:
        self.config, self.processes = config, processes
        self.plan = make_plan(config, features)
        self.folder = RunFolder(out, config.keep)
        self.model = self.plan.model.to(processes.device)
        if config.sync_batch_norm:
            nn.SyncBatchNorm.convert_sync_batchnorm(self.model)
        if self.plan.features is not None:
            self.plan.features.to(processes.device)
        first = processes.is_first
        self.average = Average(self.model, config.ema) if config.ema and first else None
        self.board: Board | None = None
        self.say = say if first else lambda text: None
        self.on_step = on_step if first else lambda progress: None
        # Steps that were done, samples that they took, and the number of the phase.
        self.step, self.taken, self.phase = 0, 0, 0
        self.faults: set[str] = set()
        self.steps = sum(stage.steps for stage in self.plan.stages)

    def close(self) -> None:
        self.folder.close()
        if self.board is not None:
            self.board.close()

    def train(self, resume: bool, stopping: _Stopping) -> Path:
        if self.processes.is_first:
            self.folder.begin(self.config, self.plan, resume)
        self.processes.wait()
        recipe_state = self._restore() if resume else None
        if self.processes.is_first:
            self.folder.open_losses(self.step)
            self.board = Board(self.folder.board, self.step)
        count, origin = len(self.plan.pictures), self.plan.pictures.origin
        left = self.steps - self.step
        self.say(f"{origin}: {count} pictures, {left} of {self.steps} steps to do")
        while self.phase < len(self.plan.stages):
            self._train_phase(self.plan.stages[self.phase], recipe_state, stopping)
            recipe_state = None
        return self._finish()

    def _restore(self) -> dict[str, Any] | None:
        """Fill everything from the last checkpoint; return the recipe's state."""
        found = self.folder.checkpoints.all()
        if not found:
            return None
        state = self.folder.checkpoints.load(found[-1], self.model, self.average)
        self.step, self.taken, self.phase = state["step"], state["taken"], state["phase"]
        recipe: dict[str, Any] = state["recipe"]
        return recipe

    def _train_phase(self, stage: Stage, state: dict[str, Any] | None, stopping: _Stopping) -> None:
        config, processes = self.config, self.processes
        rows = Rows(stage.batch, processes.index, processes.count, config.accumulate)
        recipe = self._recipe(stage)
        if state is not None:
            recipe.load_state_dict(state)
        loader = batches(
            self.plan.samples,
            rows,
            start=self.taken,
            steps=stage.steps - recipe.iteration,
            workers=config.data.workers,
            pin=processes.device.type == "cuda",
        )
        # However the phase ends, the processes that read end before it.
        with closing(loader):
            self._iterate(stage, recipe, loader, stopping)
        processes.forget()
        self.phase += 1

    def _iterate(
        self,
        stage: Stage,
        recipe: TrainingRecipe,
        loader: Iterator[Batch],
        stopping: _Stopping,
    ) -> None:
        """Do the steps of a phase."""
        watch = _Watch()
        while recipe.iteration < stage.steps:
            losses, stop = self._step(recipe, loader, stopping)
            self.step += 1
            self.taken += stage.batch
            self._record(stage, losses, watch.rate(stage.batch))
            ended = recipe.iteration == stage.steps
            if ended or stop or self.step % self.config.checkpoint_every == 0:
                self._save(recipe)
            if stop and not (ended and self.phase + 1 == len(self.plan.stages)):
                text = (
                    f"stopped by {stopping.name} after step {self.step} of {self.steps}; its "
                    "checkpoint is written, --resume goes on from there"
                )
                # Before others end: a launcher that sees one end kills the rest.
                self.say(text)
                self.processes.wait()
                raise Stopped(text, stopping.number)

    def _recipe(self, stage: Stage) -> TrainingRecipe:
        config, device = self.config, self.processes.device.type
        scaler = torch.amp.GradScaler(device) if config.precision == "fp16" else None
        return self.model.recipe(
            stage.name,
            features=self.plan.features,
            scaler=scaler,
            wrap=self.processes.wrap if self.processes.count > 1 else None,
            **stage.numbers,
        )

    def _step(
        self, recipe: TrainingRecipe, loader: Iterator[Batch], stopping: _Stopping
    ) -> tuple[dict[str, float], bool]:
        """Do a step; return its losses, and whether some process was told to stop."""
        config, processes = self.config, self.processes
        recipe.random.manual_seed(processes.seed(config.seed, self.step))
        sums: dict[str, float] = {}
        for part in range(config.accumulate):
            batch = next(loader)
            self._note(batch.faults)
            image, hole = (x.to(processes.device, non_blocking=True) for x in batch[:2])
            last = part == config.accumulate - 1
            with processes.part(last), self._autocast():
                losses = recipe.step(image, hole, part=part, parts=config.accumulate)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value / config.accumulate
        means = processes.mean({**sums, _STOP: float(stopping.is_set)})
        stop = means.pop(_STOP) > 0
        for name, value in means.items():
            if not math.isfinite(value):
                raise NonFiniteLossError(self._about(recipe.phase.name, name, value))
        if self.average is not None:
            self.average.update()
        return means, stop

    def _autocast(self) -> torch.autocast:
        dtype = _DTYPES.get(self.config.precision)
        return torch.autocast(self.processes.device.type, dtype, enabled=dtype is not None)

    def _about(self, phase: str, name: str, value: float) -> str:
        whole = self.folder.checkpoints.all()
        last = f"{whole[-1]} is from before" if whole else "no checkpoint was written before"
        return f"step {self.step + 1}, phase {phase}: the loss {name!r} is {value}; {last}"

    def _note(self, faults: tuple[str, ...]) -> None:
        for text in faults:
            if text not in self.faults:
                self.faults.add(text)
                self.say(f"skipped: {text}")

    def _record(self, stage: Stage, losses: dict[str, float], rate: float) -> None:
        config = self.config
        if self.board is None:
            return
        self.folder.add_losses(self.step, stage.name, losses)
        skipped = len(self.faults)
        progress = Progress(stage.name, self.step, self.steps, losses, rate, skipped)
        self.on_step(progress)
        if self.step % config.log_every == 0:
            values = {**losses, "pictures_per_second": rate, "skipped_files": skipped}
            self.board.add(self.step, stage.name, values)
        if config.sample_every and config.samples and self.step % config.sample_every == 0:
            best = self.model if self.average is None else self.average.model
            sheet = contact_sheet(best, self.plan.looks, config.samples, self.processes.device)
            self.board.add_pictures(self.step, sheet)

    def _save(self, recipe: TrainingRecipe) -> None:
        if self.processes.is_first:
            state = {
                "step": self.step,
                "taken": self.taken,
                "phase": self.phase,
                "recipe": recipe.state_dict(),
            }
            self.folder.checkpoints.save(self.step, self.model, self.average, state)
        self.processes.wait()

    def _finish(self) -> Path:
        path = self.folder.path / f"{self.config.method}.safetensors"
        if self.processes.is_first:
            save_weights(self.model if self.average is None else self.average.model, path)
        self.processes.wait()
        return path


class _Watch:
    """Pictures a second, over the last steps."""

    def __init__(self) -> None:
        self._since, self._rate = time.monotonic(), 0.0

    def rate(self, pictures: int) -> float:
        now = time.monotonic()
        latest = pictures / max(now - self._since, 1e-9)
        self._since = now
        # The first step waits for the first pictures.
        self._rate = latest if self._rate == 0 else 0.9 * self._rate + 0.1 * latest
        return self._rate
