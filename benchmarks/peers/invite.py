"""Engines as contestants of a case, each at an accuracy like ours and at its own."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inpaint_ops import frozen
from inpaint_ops.benchmarks.harness.accuracy import LIMIT, Error
from inpaint_ops.benchmarks.harness.case import Problem
from inpaint_ops.benchmarks.harness.machine import version
from inpaint_ops.benchmarks.harness.plain import Plain
from inpaint_ops.benchmarks.harness.runner import Entry, Result
from inpaint_ops.benchmarks.peers.engines import MODEL
from inpaint_ops.benchmarks.peers.remote import Remote, RemoteError

# What the entry of a less exact setting is called after the engine's name.
OWN = ", less exact"
# Off by more of the values than this, on average, a result is no answer to the question at all.
_NONSENSE = 0.25
_REFUSED = "its result is refused: "


@dataclass(frozen=True)
class Setting:
    """One way to set an engine.

    Args:
        text: what the report calls it.
        options: of the engine.
    """

    text: str
    options: Mapping[str, Any] = field(default_factory=dict)


AS_IT_COMES = Setting("as it comes")


@dataclass(frozen=True)
class Peer:
    """One engine.

    Args:
        name: in the report.
        distribution: the package whose version the report tells.
        engine: the class, as "module:name".
        settings: as it comes, then ever more exact.
        reads_file: it takes the formula as ONNX.
    """

    name: str
    distribution: str
    engine: str
    settings: tuple[Setting, ...] = (AS_IT_COMES,)
    reads_file: bool = True


_ENGINES = "inpaint_ops.benchmarks.peers.engines"


def _torch(name: str, *, compiled: bool, channels_last: bool) -> Peer:
    setting = Setting("", {"compiled": compiled, "channels_last": channels_last})
    engine = "inpaint_ops.benchmarks.peers.torch_engines:Torch"
    return Peer(name, "torch", engine, (setting,), reads_file=False)


PEERS = {
    "eager_last": _torch("eager channels_last", compiled=False, channels_last=True),
    "compile": _torch("torch.compile", compiled=True, channels_last=False),
    "compile_last": _torch("torch.compile channels_last", compiled=True, channels_last=True),
    "onnxruntime": Peer("ONNX Runtime", "onnxruntime", f"{_ENGINES}:OnnxRuntime"),
    "openvino": Peer(
        "OpenVINO",
        "openvino",
        f"{_ENGINES}:OpenVino",
        (AS_IT_COMES, Setting("float32", {"INFERENCE_PRECISION_HINT": "f32"})),
    ),
    "ncnn": Peer(
        "ncnn",
        "ncnn",
        f"{_ENGINES}:Ncnn",
        (
            AS_IT_COMES,
            Setting("no F(6,3)", {"use_winograd63_convolution": False}),
            Setting("no Winograd", {"use_winograd_convolution": False}),
        ),
    ),
    # Hint 3 is the memory that Winograd's algorithm may take; with less its tiles are smaller.
    "mnn": Peer(
        "MNN",
        "MNN",
        f"{_ENGINES}:Mnn",
        (
            AS_IT_COMES,
            Setting("small Winograd tiles", {"3": 2}),
            Setting("no Winograd", {"3": 0}),
        ),
    ),
}


class Party:
    """The processes of the engines that were asked for; a context that ends them.

    Args:
        peers: the engines, by the names that the command line has for them.
        remote: makes the process of one.
    """

    def __init__(self, peers: Mapping[str, Peer], remote: Callable[[], Remote] = Remote) -> None:
        self._peers = dict(peers)
        self._make = remote
        self._remotes: dict[str, Remote] = {}

    def __enter__(self) -> Party:
        return self

    def __exit__(self, *_: object) -> None:
        for remote in self._remotes.values():
            remote.close()

    @contextmanager
    def given(self, problem: Problem) -> Iterator[Guests | None]:
        """Yield the engines with the formula of a problem; None if it has none.

        Their weights are constants, so ours are promised not to change either.
        """
        if problem.plain is None:
            yield None
            return
        constants = nn.Module()
        for number, value in enumerate(problem.inputs):
            if isinstance(value, Tensor):
                constants.register_buffer(str(number), value)
        with (
            frozen(constants),
            tempfile.TemporaryDirectory(prefix="inpaint-ops-peers-") as folder,
        ):
            yield Guests(self, problem, problem.plain(), Path(folder))

    def remote(self, name: str) -> Remote:
        """Return the process of a contestant."""
        return self._remotes.setdefault(name, self._make())

    @property
    def peers(self) -> Sequence[Peer]:
        """The engines."""
        return tuple(self._peers.values())


class Guests:
    """The engines with one formula, called by the runner for each number of threads."""

    def __init__(self, party: Party, problem: Problem, plain: Plain, folder: Path) -> None:
        self._party = party
        self._problem = problem
        self._folder = folder
        np.savez(folder / "inputs.npz", *(x.numpy() for x in plain.inputs))
        self._no_file = ""
        if any(peer.reads_file for peer in party.peers):
            try:
                plain.write(folder / MODEL)
            except Exception as error:  # whatever the exporter raises
                self._no_file = f"no ONNX file: {str(error).strip().partition(chr(10))[0][:200]}"

    def __call__(self, result: Result) -> dict[str, Remote]:
        """Put the entries of all engines into a result; return those that can be timed.

        An engine that errs too much as it comes is there twice: at the first setting that errs
        little enough, and as it comes.
        """
        calls: dict[str, Remote] = {}
        waiting = []
        for peer in self._party.peers:
            if peer.reads_file and self._no_file:
                result.entries[peer.name] = Entry("missing", self._no_file)
            else:
                # All load at the same time.
                self._tell(peer, peer.name, 0, result)
                waiting.append(peer)
        for peer in waiting:
            self._seat(peer, result, calls)
        return calls

    def _seat(self, peer: Peer, result: Result, calls: dict[str, Remote]) -> None:
        entries = [self._entry(peer, peer.name, 0, result)]
        while self._errs_too_much(entries[-1], result) and len(entries) < len(peer.settings):
            self._tell(peer, peer.name, len(entries), result)
            entries.append(self._entry(peer, peer.name, len(entries), result))
        seats = {peer.name: len(entries) - 1}
        if len(entries) > 1 and self._gained(entries, result):
            seats[peer.name + OWN] = 0
            self._tell(peer, peer.name + OWN, 0, result)
            entries[0] = self._entry(peer, peer.name + OWN, 0, result)
        for name, number in seats.items():
            result.entries[name] = entries[number]
            if entries[number].status == "ok":
                calls[name] = self._party.remote(name)

    def _gained(self, entries: list[Entry], result: Result) -> bool:
        first, last = (result.worst_error(entry) for entry in (entries[0], entries[-1]))
        return first is not None and last is not None and last < 0.9 * first

    def _errs_too_much(self, entry: Entry, result: Result) -> bool:
        return entry.detail.startswith(_REFUSED) or (result.worst_error(entry) or 0.0) > LIMIT

    def _tell(self, peer: Peer, name: str, number: int, result: Result) -> None:
        options = dict(peer.settings[number].options)
        if not peer.reads_file:
            options |= {"op": result.case.op, "case": result.case.id}
        self._party.remote(name).tell(
            do="load",
            engine=peer.engine,
            folder=str(self._folder),
            threads=result.threads,
            options=options,
        )

    def _entry(self, peer: Peer, name: str, number: int, result: Result) -> Entry:
        remote = self._party.remote(name)
        path = self._folder / "outcome.npy"
        try:
            remote.listen()
            remote.ask(do="outcome", path=str(path))
        except RemoteError as error:
            return Entry("missing", str(error))
        outcome = torch.from_numpy(np.load(path))
        try:
            errors = {} if self._problem.errors is None else self._problem.errors(outcome)
        except RuntimeError as error:
            return Entry("missing", f"its result has shape {tuple(outcome.shape)}: {error}")
        wrong = _wrong(outcome, errors, self._problem)
        if wrong is not None:
            return Entry("missing", f"{_REFUSED}{wrong}")
        return Entry("ok", peer.settings[number].text, errors=errors)


def _wrong(outcome: torch.Tensor, errors: Mapping[str, Error], problem: Problem) -> str | None:
    if not errors:
        return problem.check(outcome)
    for name, error in errors.items():
        # Not a number is not less either.
        if not error.rms <= _NONSENSE * error.rms_scale:
            return f"{name} is off by {error.rms:.2g} of {error.rms_scale:.2g} on average"
    return None


def versions(peers: Iterable[Peer]) -> dict[str, str]:
    """Return the versions of the engines that are installed."""
    found = ((peer.distribution, version(peer.distribution)) for peer in peers)
    return {name: text for name, text in found if text is not None}
