"""Pairs of processes that train together on this machine."""

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import torch.distributed as dist

HELPERS = Path(__file__).parent
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


def run_pair(script, folder, timeout=600):
    """Run two processes of a script of this folder and return what each printed, read as JSON.

    The script is called with its rank and the file the two meet at. Nothing outlives the call.
    """
    environment = {
        "GLOO_SOCKET_IFNAME": LOOPBACK,
        **os.environ,
        "PYTHONPATH": str(HELPERS),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", str(HELPERS / script), str(rank), str(folder / "met")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    errors = [text for process, (_, text) in zip(processes, outputs) if process.returncode]
    assert not errors, "\n\n".join(errors)
    return [json.loads(text) for text, _ in outputs]


def meet(seconds=300):
    """Join the other process; return the own rank. Whoever waits longer for the other raises."""
    rank, store = int(sys.argv[1]), sys.argv[2]
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=seconds),
    )
    return rank
