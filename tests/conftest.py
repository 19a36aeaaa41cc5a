"""Fixtures of all tests."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from support import poisoned
from torch import Tensor

from inpaint_ops.ops import native

settings.register_profile("project", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("project")

# PyTorch lists the functions that heed a default device at the first use of one: before
# `_poison_empty` has others in their place.
with torch.device("meta"):
    torch.empty(0)

# Choices of algorithms are those of the table, whatever somebody tuned on this machine.
os.environ["INPAINT_OPS_CPU_COSTS"] = "0"

# Triton decides at import whether it compiles or interprets: its tests need their own process.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreter"]


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


# Where a variable names the instruction set of all tests, those of each set keep to it.
_TEST_BUILD = os.environ.get("INPAINT_OPS_TEST_BUILD")
_WANTED = os.environ.get("INPAINT_OPS_INSTRUCTION_SET")
_SETS = [_WANTED] if _WANTED else ["baseline", "avx2", "avx512_shaped", "avx512"]


@pytest.fixture(params=_SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once in each instruction set that the machine has; this is its name."""
    name = request.param
    module = native.extension() if native.status().available else None
    built = () if module is None else module.instruction_sets()
    if name not in built:
        # A test build has it wherever there is AVX2, and the baseline everywhere: skipping would
        # hide what is not tested.
        needed = ["baseline", "avx512_shaped"] if "avx2" in built else ["baseline"]
        assert not (name in needed and built and _TEST_BUILD), "rebuild"
        pytest.skip(f"no {name} here")
    before = module.instruction_set()
    module.set_instruction_set(name)
    yield name
    assert module.instruction_set() == name
    module.set_instruction_set(before)


@pytest.fixture
def sigint() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, as in a terminal, and does so again after the test."""
    # A shell's background jobs ignore the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def _poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that our package asks for uninitialised arrives full of NaN, or of a huge integer."""
    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(torch, "empty_strided", poisoned(torch.empty_strided))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))


@pytest.fixture(autouse=True, scope="session")
def _no_trace_of_recordings() -> None:
    """Torch logs every step of a compilation or export, which pytest would format and keep."""
    logging.getLogger("torch.__trace").disabled = True
