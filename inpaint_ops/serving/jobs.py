"""Fillings: one at a time, in a thread of its own, watched and cancelled from the page."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from inpaint_ops.images import Photo
from inpaint_ops.program import reason
from inpaint_ops.serving.methods import Method
from inpaint_ops.serving.pictures import Picture, Shelf
from inpaint_ops.serving.refusals import Refusal

if TYPE_CHECKING:
    import numpy.typing as npt

    from inpaint_ops.cli.fillers import Filler

# States of a filling, in order; it ends in one of the last three.
READING, FILLING, DONE, FAILED, CANCELLED = "reading", "filling", "done", "failed", "cancelled"


class _Cancelled(Exception):
    """Raised inside a filling that the user has cancelled."""


class Job:
    """The filling of one picture.

    Args:
        picture: that is filled.
        hole: (height, width) bool, True = missing; it has a missing pixel.
        method: fills it.
        seed: of the method's random numbers.
    """

    def __init__(
        self, picture: Picture, hole: npt.NDArray[np.bool_], method: Method, seed: int
    ) -> None:
        self.picture, self.hole, self.method, self.seed = picture, hole, method, seed
        self._state, self._fraction, self._error = READING, 0.0, ""
        self._begun, self._ended = time.monotonic(), 0.0
        self._result: Photo | None = None
        self._stop = threading.Event()

    def cancel(self) -> None:
        """Stop as soon as the method tells its progress; without that, forget its result."""
        self._stop.set()

    @property
    def ended(self) -> bool:
        """True once the state is one of the last three."""
        return self._state in (DONE, FAILED, CANCELLED)

    def facts(self) -> dict[str, Any]:
        """Return state and progress, ready for JSON."""
        return {
            "state": self._state,
            "fraction": self._fraction,
            "seconds": (self._ended or time.monotonic()) - self._begun,
            "cancelling": self._stop.is_set(),
            "error": self._error,
        }

    def result(self) -> Photo:
        """Return the filled picture; a Refusal with status 409 if there is none."""
        if self._result is None:
            raise Refusal(HTTPStatus.CONFLICT, "This picture is not filled yet.")
        return self._result

    def run(self, builder: FillerCache) -> None:
        """Fill the picture; errors become the state `FAILED`."""
        try:
            filler = builder.get(self.method)
            self._check()
            self._state = FILLING
            image = self.picture.photo.image()
            hole = torch.from_numpy(self.hole)[None, None]
            filled = filler(image, hole, seed=self.seed, progress=self._step)
            self._check()
            self._result = self.picture.photo.filled(filled, hole)
            self._end(DONE)
        except _Cancelled:
            self._end(CANCELLED)
        except (OSError, ValueError, ImportError, MemoryError, RuntimeError) as exc:
            self._end(FAILED, reason(exc))
        except Exception as exc:
            traceback.print_exc(file=sys.stderr)
            self._end(FAILED, f"{type(exc).__name__}: {exc}")

    def _step(self, fraction: float) -> None:
        self._check()
        self._fraction = fraction

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Cancelled

    def _end(self, state: str, error: str = "") -> None:
        self._error, self._ended = error, time.monotonic()
        # Last: who sees this state may ask for the result.
        self._state = state


class FillerCache:
    """The filler that was used last, so that its weights are read once."""

    def __init__(self) -> None:
        self._key = ""
        self._filler: Filler | None = None

    def get(self, method: Method) -> Filler:
        """Return the filler of a method; errors are those of reading its weights."""
        if self._filler is None or self._key != method.key:
            # Before the next weights are read, so that two sets are never in memory.
            self._filler = None
            if method.build is None:
                raise ValueError(f"{method.name} has no weights")
            self._filler, self._key = method.build(), method.key
        return self._filler


class Jobs:
    """Starts fillings, one at a time."""

    def __init__(self, kept: int) -> None:
        self._shelf: Shelf[Job] = Shelf("filled picture", kept)
        self._fillers = FillerCache()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._current: Job | None = None

    def start(self, job: Job) -> str:
        """Start a filling and return its name.

        Raises:
            Refusal: with status 409, another one is under way.
        """
        with self._lock:
            if self._current is not None and not self._current.ended:
                raise Refusal(
                    HTTPStatus.CONFLICT,
                    "Another picture is being filled; wait for it, or cancel it.",
                )
            name = self._shelf.put(job)
            self._current = job
            # A daemon: the program ends without waiting for a method that tells no progress.
            self._thread = threading.Thread(target=job.run, args=(self._fillers,), daemon=True)
            self._thread.start()
        return name

    def get(self, name: str) -> Job:
        """Return a filling; a Refusal with status 410 if it is not there."""
        return self._shelf.get(name)

    def close(self, seconds: float) -> bool:
        """Cancel what is under way; False if it is still running after so many seconds."""
        with self._lock:
            thread = self._thread
            if thread is None:
                return True
            if self._current is not None:
                self._current.cancel()
        thread.join(seconds)
        return not thread.is_alive()


def read_hole(bits: bytes, size: tuple[int, int], stated: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Return the hole that the page sends.

    Args:
        bits: one bit a pixel, rows after each other without gaps, the first pixel in the highest
            bit of a byte, 1 = missing.
        size: height and width of the picture.
        stated: height and width of the hole.

    Returns:
        (height, width) bool, True = missing.

    Raises:
        Refusal: another size than the picture's, another number of bytes, or nothing or all of it
            is missing.
    """
    height, width = size
    if stated != size:
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The mask has {stated[1]}x{stated[0]} pixels, the picture {width}x{height}.",
        )
    count = height * width
    if len(bits) != -(-count // 8):
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"The mask of {width}x{height} pixels has {-(-count // 8)} bytes, got {len(bits)}.",
        )
    hole = np.unpackbits(np.frombuffer(bits, np.uint8), count=count).reshape(size).astype(np.bool_)
    if not hole.any():
        raise Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing is painted yet.")
    if hole.all():
        raise Refusal(
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "The whole picture is painted; leave some of it to fill from.",
        )
    return hole
