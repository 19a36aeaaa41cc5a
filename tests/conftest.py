"""Fixtures of all tests."""

import os
from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings
from support import poisoned
from torch import Tensor

from inpaint_ops import _extension

settings.register_profile("project", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("project")

# Triton decides at import whether it compiles or interprets: its tests need their own process.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreter"]


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs once in each instruction set that the machine has; this is its name."""
    name = request.param
    module = _extension.extension() if _extension.status().available else None
    if module is None or name not in module.instruction_sets():
        pytest.skip(f"no {name} here")
    before = module.instruction_set()
    module.set_instruction_set(name)
    yield name
    assert module.instruction_set() == name
    module.set_instruction_set(before)


@pytest.fixture(autouse=True)
def _poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that our package asks for uninitialised arrives full of NaN, or of a huge integer."""
    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
