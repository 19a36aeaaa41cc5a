"""Access to the Triton kernels: what is missing is said once, in words, when one is needed."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from functools import cache
from importlib import metadata
from types import ModuleType

# The release that comes with the oldest torch we accept; kernels are compiled with 3.7.
MINIMUM = (3, 6)
INSTALL = "pip install 'inpaint-ops[triton]'"


def missing() -> str | None:
    """Why Triton kernels cannot run here, or None; looks nothing up on a device."""
    if importlib.util.find_spec("triton") is None:
        return f"triton is not installed ({INSTALL})"
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        return None  # a build of its own, such as pytorch-triton: it says for itself what fails
    numbers = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    if numbers < MINIMUM:
        wanted = ".".join(map(str, MINIMUM))
        return f"triton {version} is too old, {wanted} or newer is needed ({INSTALL})"
    return None


def interpreted() -> bool:
    """Return whether kernels run in Triton's interpreter, on CPU tensors; fixed at the start."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on")


@cache
def kernels(op: str) -> ModuleType:
    """The module ``inpaint_ops.kernels.<op>``, imported when it is first needed.

    Whether Triton will do is asked only then: to ask takes 300 us.

    Raises:
        RuntimeError: Triton is missing, too old, or does not load; the text names it and the way
            out.
    """
    reason = missing()
    if reason is None:
        try:
            return importlib.import_module(f"inpaint_ops.kernels.{op}")
        except ImportError as error:
            reason = f"triton does not load: {error}"
    raise RuntimeError(
        f'{op}: the GPU kernel cannot run: {reason}; `with inpaint_ops.backend("reference")` runs '
        "the formula in plain PyTorch"
    )


def status() -> str:
    """One line for ``inpaint-ops doctor``."""
    reason = missing()
    if reason is not None:
        return f"unavailable: {reason}"
    try:
        version = metadata.version("triton")
    except metadata.PackageNotFoundError:
        version = "of unknown version"
    return f"triton {version}" + (", interpreted on the CPU" if interpreted() else "")
