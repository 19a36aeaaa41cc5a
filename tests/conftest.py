"""Fixtures of all tests."""

import math
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor

settings.register_profile("project", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("project")

# Triton decides at import whether it compiles or interprets: its tests need their own process.
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreter"]


@pytest.fixture(autouse=True)
def _restore_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def _poison_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that our package asks for uninitialised arrives full of NaN, or of a huge integer."""

    def poisoned(allocate: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = allocate(*args, **kwargs)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if caller.startswith("inpaint_ops") and type(result) is Tensor:
                if result.is_floating_point():
                    result.fill_(math.nan)
                elif result.dtype != torch.bool:
                    result.fill_(torch.iinfo(result.dtype).max)
            return result

        return wrapper

    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(Tensor, "new_empty", poisoned(Tensor.new_empty))
