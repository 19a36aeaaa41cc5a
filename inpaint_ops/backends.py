"""Choice between the fused kernels and the reference."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from sys import intern

# What our kernels may sum a convolution by on the CPU: the later, the less.
ALGORITHMS = ("auto", "precise", "direct")
_BACKENDS = (*ALGORITHMS, "triton", "reference")
# The choice in force. The extension reads it, too, and knows words by their addresses.
CURRENT: ContextVar[str] = ContextVar("inpaint_ops_backend", default="auto")


@contextmanager
def backend(name: str) -> Iterator[None]:
    """Select what serves the operators inside a ``with`` block, in this thread.

    Backward passes use the choice that was in force in their forward pass.

    Args:
        name: "auto" (the fused kernel of the device, else the reference; float64 on GPUs always
            takes the reference), "precise" (the same, but convolutions never take Winograd's large
            tiles, whose rounding errors are 5 to 10 times those of a direct sum), "direct" (nor
            his small ones, which err 1 to 4 times as much; every tile spreads a NaN of x over up to
            5 pixels more than the kernel reaches), "triton" (the GPU kernels; on CPU tensors they
            run only in Triton's interpreter, in a process started with TRITON_INTERPRET=1, and
            raise otherwise) or "reference" (plain PyTorch, for tests, benchmarks and debugging).

    Raises:
        ValueError: for another name.
    """
    if name not in _BACKENDS:
        raise ValueError(f"backend: name must be one of {', '.join(_BACKENDS)}, got {name!r}")
    token = CURRENT.set(intern(name))
    try:
        yield
    finally:
        CURRENT.reset(token)


def current_backend() -> str:
    """Return the choice in force."""
    return CURRENT.get()
