"""Process of one engine: ``python -m inpaint_ops.benchmarks.peers.worker``.

It reads lines of JSON, and answers each with one. "load" names an engine, a folder with the
network as ``model.onnx`` and its inputs as ``inputs.npz``, threads and options; "sample" runs it a
number of times and answers with the seconds of one; "outcome" writes its result to a file;
"judge" tells what is wrong with it, if the engine knows. An answer with "refused" says why
something cannot be done. It ends with its input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from inpaint_ops.benchmarks.harness.timing import clock
from inpaint_ops.benchmarks.peers.engines import Engine, Judged


class Worker:
    """Answers questions about one network at a time."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one question."""
        doing = question.pop("do")
        try:
            found: dict[str, Any] = getattr(self, f"do_{doing}")(**question)
            return found
        except ImportError as error:
            return {"refused": f"not installed: {error.name or error}"}
        except Exception as error:  # whatever an engine raises
            first = str(error).strip().partition("\n")[0][:200]
            return {"refused": f"{type(error).__name__}: {first}"}

    def do_load(
        self, engine: str, folder: str, threads: int, options: dict[str, Any]
    ) -> dict[str, Any]:
        self._engine = None
        module, _, name = engine.partition(":")
        made = getattr(importlib.import_module(module), name)
        inputs = []
        if folder:
            with np.load(Path(folder) / "inputs.npz") as stored:
                inputs = [stored[key] for key in stored.files]
        self._engine = made(Path(folder), inputs, threads, options)
        self._engine.run()
        return {}

    def do_sample(self, repeats: int) -> dict[str, Any]:
        engine = self._loaded()
        now = clock()
        begun = now()
        for _ in range(repeats):
            engine.run()
        return {"seconds": (now() - begun) / repeats}

    def do_outcome(self, path: str) -> dict[str, Any]:
        np.save(path, self._loaded().outcome())
        return {}

    def do_judge(self) -> dict[str, Any]:
        engine = self._loaded()
        assert isinstance(engine, Judged)
        return {"wrong": engine.wrong()}

    def _loaded(self) -> Engine:
        if self._engine is None:
            raise ValueError("nothing is loaded")
        return self._engine


def main() -> int:
    """Answer until the input ends."""
    # Engines print; that must not get among the answers.
    answers: TextIO = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    worker = Worker()
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
