"""The process of an engine, seen from the benchmark."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

from inpaint_ops.benchmarks.harness.timing import GoneError

# Seconds for one answer. A compiler needs minutes for a network.
PATIENCE = 900.0

_WORKER = (sys.executable, "-m", "inpaint_ops.benchmarks.peers.worker")


class RemoteError(GoneError):
    """The process cannot do what was asked; the text says why."""


class Remote:
    """Asks a worker, which starts with the first question and again after one that killed it.

    Args:
        command: starts the worker.
        environment: variables that it has beside those of this process.
    """

    def __init__(
        self,
        command: tuple[str, ...] = _WORKER,
        environment: dict[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        self._command = command
        # -m would put the working directory first, and with it a source tree.
        self._environment = {**os.environ, "PYTHONSAFEPATH": "1", **(environment or {})}
        self._patience = patience
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, **question: Any) -> dict[str, Any]:
        """Return the answer.

        Raises:
            RemoteError: it refused, ended or took too long.
        """
        self.tell(**question)
        return self.listen()

    def tell(self, **question: Any) -> None:
        """Ask without waiting for the answer, which `listen` returns."""
        process = self._process
        if process is None or process.poll() is not None:
            process = self._start()
        assert process.stdin is not None
        # A broken pipe shows in the answer that does not come.
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()

    def listen(self) -> dict[str, Any]:
        """Return the answer to the question that was told before."""
        process = self._process
        assert process is not None
        assert process.stdout is not None
        line = self._line(process)
        if not line.endswith(b"\n"):
            raise RemoteError(self._how_it_ended(process))
        answer: dict[str, Any] = json.loads(line)
        if "refused" in answer:
            raise RemoteError(answer["refused"])
        return answer

    def sample(self, repeats: int) -> float:
        """Return the seconds of one run, of so many."""
        seconds: float = self.ask(do="sample", repeats=repeats)["seconds"]
        return seconds

    def __call__(self) -> None:
        """Run once."""
        self.sample(1)

    def close(self) -> None:
        """End the worker."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                if stream is not None:
                    stream.close()
        self._complaints.close()

    def _start(self) -> subprocess.Popen[bytes]:
        self.close()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as the process
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=self._environment,
            bufsize=0,
            # Ctrl-C is for the benchmark, which ends its workers.
            start_new_session=True,
        )
        return self._process

    def _line(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        until, line = time.monotonic() + self._patience, b""
        while not line.endswith(b"\n"):
            left = until - time.monotonic()
            if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                self.close()
                raise RemoteError(f"more than {self._patience:.0f} s")
            piece = process.stdout.read(65536)
            if not piece:
                break
            line += piece
        return line

    def _how_it_ended(self, process: subprocess.Popen[bytes]) -> str:
        status = process.wait()
        self._complaints.seek(0)
        text = self._complaints.read().decode(errors="replace").strip()
        last = text.splitlines()[-1][:200] if text else "without a word"
        self.close()
        return f"its process ended with {status}: {last}"
