"""PyTorch's own ways to be faster: its compiler, with weights as constants, and channels_last."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.benchmarks.harness.case import Missing, Problem, load
from inpaint_ops.benchmarks.peers.engines import Array, RefusedError


class Torch:
    """The formula of a case in eager or compiled PyTorch.

    Options: "op" and "case", which name it, "compiled", and "channels_last".
    """

    def __init__(
        self, folder: Path, inputs: Sequence[Array], threads: int, options: Mapping[str, Any]
    ) -> None:
        plain = _problem(options).plain
        if plain is None:
            raise RefusedError("the case has no plain formula")
        plainly = torch.contiguous_format
        layout = torch.channels_last if options["channels_last"] else plainly
        torch.set_num_threads(threads)
        if options["compiled"]:
            # What it compiled before holds the number of threads.
            torch.compiler.reset()
            torch._inductor.config.freezing = True
        given = plain()
        self._function = given.build(layout, options["compiled"])
        self._inputs = [
            torch.from_numpy(x).contiguous(memory_format=layout if x.ndim == 4 else plainly)
            for x in inputs
        ]

    def run(self) -> None:
        # The compiler's own remarks on code it cannot take in one piece.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._result = self._function(*self._inputs)

    def outcome(self) -> Array:
        result: Array = self._result.detach().contiguous().numpy()
        return result


class Ours:
    """Our implementation of a case, with its gradients if it has some. Options: "op", "case"."""

    def __init__(
        self, folder: Path, inputs: Sequence[Array], threads: int, options: Mapping[str, Any]
    ) -> None:
        self._problem = _problem(options)
        found = self._problem.implementations["ours"]
        if isinstance(found, Missing):
            raise RefusedError(found.reason)
        self._function = found
        torch.set_num_threads(threads)

    def run(self) -> None:
        self._result = self._problem.run(self._function)

    def wrong(self) -> str | None:
        wrong: str | None = self._problem.check(self._result)
        return wrong

    def outcome(self) -> Array:
        raise RefusedError("it is judged where it is")


def _problem(options: Mapping[str, Any]) -> Problem:
    case = next(c for c in load(options["op"]).CASES if c.id == options["case"])
    return load(case.op).setup(case)
