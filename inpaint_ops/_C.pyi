from typing import Any

from numpy.typing import NDArray

openmp: bool

def instruction_sets() -> list[str]: ...
def instruction_set() -> str: ...
def set_instruction_set(name: str) -> None: ...
def fma_peak(seconds: float, threads: int) -> float: ...
def nearest_patch(
    query: NDArray[Any],
    key: NDArray[Any],
    valid: NDArray[Any] | None,
    where: NDArray[Any] | None,
    patch: int,
    stride: int,
    key_stride: int,
    cosine: bool,
    index: NDArray[Any],
    score: NDArray[Any] | None,
    threads: int,
) -> None: ...
def refine_patch(
    query: NDArray[Any],
    key: NDArray[Any],
    guess: NDArray[Any],
    valid: NDArray[Any] | None,
    where: NDArray[Any] | None,
    patch: int,
    radius: int,
    reach: int,
    index: NDArray[Any],
    distance: NDArray[Any],
    threads: int,
) -> None: ...
def gather_positions(
    input: NDArray[Any],
    index: NDArray[Any],
    out: NDArray[Any],
    channels_last: bool,
    threads: int,
) -> None: ...
def scatter_positions(
    input: NDArray[Any],
    index: NDArray[Any],
    out: NDArray[Any],
    channels_last: bool,
    scale: float,
    threads: int,
) -> None: ...
