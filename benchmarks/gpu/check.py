"""Ten minutes on a GPU: what is right, what is fast, and what the tables of rows should say.

``make gpu-check`` runs the steps of `steps`, each in a process of its own with its own time, so
that an exception, a crash or a hang in one costs the others nothing. Results are on disk after
every case. ``--resume`` keeps what is there and runs what failed or is missing. At the end there
are ``gpu.json`` and ``gpu.html``. On the CPU (``--device cpu``) all steps rehearse themselves with
a few tiny cases, the kernels in Triton's interpreter.

Exit status: 0, or the sum of the codes of the steps in which something failed (`steps.task.STEPS`),
and 1 if the page could not be made; 2 for wrong usage or no device.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import torch

from inpaint_ops.atomic import make_folder, write_atomically
from inpaint_ops.benchmarks.gpu import page
from inpaint_ops.benchmarks.gpu.steps.task import STEPS, Step
from inpaint_ops.benchmarks.gpu.steps.tuning import TABLE
from inpaint_ops.benchmarks.gpu.store import Store
from inpaint_ops.benchmarks.harness import machine

_WORKER = (sys.executable, "-m", "inpaint_ops.benchmarks.gpu.worker")
# Starts of one process anew, each after a case that took it down.
_STARTS = 6
# Loading PyTorch and making the device ready may take that much longer than a case.
_LOADING = 60.0
_POLL = 0.1


class Runner:
    """Processes of the steps, and their end.

    Args:
        folder: of the results.
        device: as in PyTorch.
        scale: of every step's time.
        most: cases of a step; None: all.
        worker: command of a process, before the name of its step.
    """

    def __init__(
        self,
        folder: Path,
        device: str,
        *,
        scale: float = 1.0,
        most: int | None = None,
        worker: Sequence[str] = _WORKER,
    ) -> None:
        self.folder = folder.resolve()
        self._device, self._scale, self._most = device, scale, most
        self._worker = list(worker)

    def run(self, step: Step, limit: float | None = None) -> None:
        """Run a step in as many processes as it has shares; results are in the files then."""
        ends = time.time() + self._scale * step.seconds
        shares = step.shares if self._device != "cpu" else 1
        with ThreadPoolExecutor(shares) as pool:
            started = [
                pool.submit(self._share, step, (i, shares), ends, limit or step.limit)
                for i in range(shares)
            ]
        for one in started:
            one.result()

    def _share(self, step: Step, share: tuple[int, int], ends: float, limit: float) -> None:
        for _ in range(_STARTS):
            code = self._process(step, share, ends, limit)
            store = Store(self.folder, step.file(share[0]))
            if store.running is not None:
                case, since = store.running
                how = "hung" if time.time() - since > limit else "crashed"
                if code is not None or how == "hung":
                    store.end(case, {"status": how, "detail": _end(code, self._log(step, share))})
                else:
                    # The step's time was over: a later run will begin this case again.
                    store.running = None
                    store.write()
                    return
            elif code not in (0, None) and not store.cases:
                reason = _end(code, self._log(step, share))
                store.end("start", {"status": "crashed", "detail": reason})
                return
            if code == 0 or time.time() > ends:
                return

    def _log(self, step: Step, share: tuple[int, int]) -> Path:
        return self.folder / f"{step.file(share[0])}.log"

    def _process(self, step: Step, share: tuple[int, int], ends: float, limit: float) -> int | None:
        """Exit status of one process; None where it was ended here."""
        command = [*self._worker, step.name, "--device", self._device, "--ends", str(ends)]
        command += ["--folder", str(self.folder), "--share", *map(str, share)]
        if self._most is not None:
            command += ["--most", str(self._most)]
        with self._log(step, share).open("ab") as log:
            process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=self._environment(),
                # Not the tree: it would be imported from there, without its inner packages.
                cwd=self.folder,
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    time.sleep(_POLL)
                    if self._is_over(step, share, ends, limit):
                        return None
                return process.returncode
            finally:
                _end_group(process)

    def _is_over(self, step: Step, share: tuple[int, int], ends: float, limit: float) -> bool:
        """Whether a case hangs, or the step's time is over by more than a case takes."""
        now = time.time()
        running = Store(self.folder, step.file(share[0])).running
        if running is not None and now - running[1] > limit:
            return True
        # The case that began last may end; what never began one is loading, or hangs in it.
        return now > ends + (min(limit, 15.0) if running is not None else _LOADING)

    def _environment(self) -> dict[str, str]:
        environment = dict(os.environ)
        if self._device == "cpu":
            # Tiny cases; threads would only wait for each other.
            environment |= {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        table = self.folder / TABLE
        if table.exists():
            environment["INPAINT_OPS_TUNED"] = str(table)
        return environment


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started: compilers have processes of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(code: int | None, log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    how = "ended after its time" if code is None else f"exit status {code}"
    return f"{how}; last line: {lines[-1][:200] if lines else '(nothing)'}"


def environment(device: str) -> dict[str, Any]:
    """Facts about the machine and about the device."""
    facts = machine.environment()
    if device != "cpu":
        properties = torch.cuda.get_device_properties(torch.device(device))
        facts["gpu"] = properties.name
        facts["gpu_memory_gb"] = round(properties.total_memory / 1e9, 1)
        facts["gpu_processors"] = properties.multi_processor_count
        facts["cuda"] = torch.version.cuda or torch.version.hip
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["clocks"] = _clocks()
    facts["triton"] = machine.version("triton")
    return facts


def _clocks() -> str | None:
    """Clock, its limit and the power limit, by the driver's own tool."""
    query = "clocks.sm,clocks.max.sm,power.limit,temperature.gpu"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv"],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().replace("\n", "; ")


def summary(folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is in the files of the steps."""
    steps: dict[str, Any] = {}
    for step in STEPS:
        stores = Store.all_of(folder, step.name)
        if stores:
            steps[step.name] = {
                "cases": {name: one for store in stores for name, one in store.cases.items()},
                "not_run": [name for store in stores for name in store.left],
                "failures": [line for store in stores for line in store.failures],
            }
    table = folder / TABLE
    tuned = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
    return {"schema": 2, "environment": dict(facts), "steps": steps, "tuned": tuned}


def write_report(folder: Path, content: Mapping[str, Any]) -> bool:
    """Write gpu.json and gpu.html; return False if the page could not be made."""
    text, made = json.dumps(content, indent=1) + "\n", True
    with write_atomically(folder / "gpu.json") as stream:
        stream.write(text.encode())
    try:
        text = page.render(content)
    except Exception:  # the results are there; a fault of the page must not stop the steps
        text, made = f"<pre>{escape(traceback.format_exc())}</pre>\n", False
    with write_atomically(folder / "gpu.html") as stream:
        stream.write(text.encode())
    return made


def main(arguments: Sequence[str] | None = None, worker: Sequence[str] = _WORKER) -> int:
    """Run the steps; the head of this file has the exit status."""
    names = [step.name for step in STEPS]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="default: cuda; cpu: rehearse")
    parser.add_argument("--out", type=Path, default=Path("reports/gpu"))
    parser.add_argument("--only", action="append", choices=names, metavar="STEP", help=str(names))
    parser.add_argument("--resume", action="store_true", help="run what failed or is missing")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all steps; default: 9")
    parser.add_argument("--limit", type=float, help="seconds after which a case hangs")
    parser.add_argument("--most", type=int, help="run the first so many cases of each step")
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    if options.device != "cpu" and not torch.cuda.is_available():
        print("gpu-check: this PyTorch sees no GPU (torch.cuda.is_available() is False)")
        return 2
    chosen = [step for step in STEPS if options.only is None or step.name in options.only]
    make_folder(options.out)
    _prepare(options.out, chosen, resume=options.resume)
    # With a part of the steps they share the time that all have.
    scale = 60 * options.minutes / sum(step.seconds for step in chosen)
    runner = Runner(options.out, options.device, scale=scale, most=options.most, worker=worker)
    facts = environment(options.device)
    for step in chosen:
        begun = time.monotonic()
        runner.run(step, options.limit)
        content = summary(options.out, facts)
        paged = write_report(options.out, content)
        print(f"{step.name}: {_line(content, step)}, {time.monotonic() - begun:.0f} s", flush=True)
    if not paged:
        print(f"FAILED page: {options.out / 'gpu.html'} says why")
    return _tell(content, chosen, options.out) | (0 if paged else 1)


def _prepare(folder: Path, chosen: Sequence[Step], *, resume: bool) -> None:
    if not resume and len(chosen) == len(STEPS):
        (folder / TABLE).unlink(missing_ok=True)
    for step in chosen:
        for store in Store.all_of(folder, step.name):
            if resume:
                store.forget_failures()
            else:
                store.path.unlink()
                store.path.with_suffix(".log").unlink(missing_ok=True)


def _line(content: Mapping[str, Any], step: Step) -> str:
    found = content["steps"].get(step.name, {"cases": {}, "not_run": [], "failures": []})
    counts = f"{len(found['cases'])} cases, {len(found['not_run'])} not run"
    return f"{counts}, {len(found['failures'])} failed"


def _tell(content: Mapping[str, Any], chosen: Sequence[Step], folder: Path) -> int:
    code = 0
    for step in chosen:
        found = content["steps"].get(step.name, {"cases": {}, "failures": ["no results"]})
        for line in found["failures"] or ([] if found["cases"] else ["no case had time"]):
            print(f"FAILED {line}")
            code |= step.code
    print(folder / "gpu.json", folder / "gpu.html", sep="\n")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
