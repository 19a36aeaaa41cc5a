"""Reading of every file of a data set, to name the bad ones before a training meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from inpaint_ops.data.sources import Picture
from inpaint_ops.program import reason

# Pictures that are handed to the threads at once.
_AHEAD = 256


class Fault(NamedTuple):
    """A file that cannot be read, and why."""

    name: str
    why: str


def check_pictures(
    pictures: Sequence[Picture],
    *,
    check: Callable[[Picture], object] = Picture.load,
    threads: int = 1,
) -> Iterator[Fault | None]:
    """Read all pictures; yield for each, in order, None or its fault.

    Args:
        pictures: of `find_pictures`.
        check: reads one; OSError and ValueError are faults.
        threads: that read at the same time.

    Raises:
        ImportError: Pillow is not installed.
    """

    def fault(picture: Picture) -> Fault | None:
        try:
            check(picture)
        except (OSError, ValueError) as exc:
            name = str(picture)
            return Fault(name, reason(exc).removeprefix(f"{name}: "))
        return None

    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, len(pictures), _AHEAD):
            yield from pool.map(fault, pictures[first : first + _AHEAD])
