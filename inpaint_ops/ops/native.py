"""The compiled extension: loaded once, its absence explained once."""

import os
import warnings
from dataclasses import dataclass
from importlib import import_module
from typing import cast

import torch  # noqa: F401 - first: its OpenMP runtime must be the one in the process

from inpaint_ops.ops.extension import Extension


@dataclass(frozen=True)
class ExtensionStatus:
    """The state of the extension when it was loaded.

    Attributes:
        available: whether the CPU kernels can be used.
        error: why not, or None.
        instruction_set: the one in use, or None.
        instruction_sets: those this build holds and this machine runs, weakest first.
        openmp: whether the kernels use several threads.
    """

    available: bool
    error: str | None
    instruction_set: str | None
    instruction_sets: tuple[str, ...]
    openmp: bool


_module: Extension | None = None
_error: str | None = None

if os.environ.get("INPAINT_OPS_DISABLE_EXTENSION"):
    _error = "switched off by the environment variable INPAINT_OPS_DISABLE_EXTENSION"
else:
    try:
        _module = cast(Extension, import_module("inpaint_ops._C"))
    except ImportError as error:
        _error = str(error)

if _module is not None and (_wanted := os.environ.get("INPAINT_OPS_INSTRUCTION_SET")):
    try:
        _module.set_instruction_set(_wanted)
    except ValueError as error:
        raise ValueError(f"INPAINT_OPS_INSTRUCTION_SET: {error}") from None


def extension() -> Extension | None:
    """The extension module, or None where it is missing; the first miss warns."""
    if _module is None:
        _warn_once()
    return _module


_warned = False


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(
            f"inpaint_ops: the compiled extension is missing ({_error}); operators run on the slow "
            "PyTorch reference path. Install a C++17 compiler and reinstall; `inpaint-ops doctor` "
            "tells more.",
            RuntimeWarning,
            stacklevel=4,
        )


def status() -> ExtensionStatus:
    """Return what is built and in use."""
    if _module is None:
        return ExtensionStatus(False, _error, None, (), False)
    return ExtensionStatus(
        True, None, _module.instruction_set(), tuple(_module.instruction_sets()), _module.openmp
    )
