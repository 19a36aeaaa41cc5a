"""What the page offers to fill holes with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from inpaint_ops.cli.fillers import Filler


@dataclass(frozen=True)
class Method:
    """A method with one set of weights.

    Attributes:
        name: of the method.
        summary: a sentence about it.
        build: function that reads the weights and returns the filler; None where there are none to
            read, so that the page can only say what is missing.
        label: tells the sets of weights of one method apart.
        files: names of the files of weights, to be shown.
    """

    name: str
    summary: str
    build: Callable[[], Filler] | None
    label: str = ""
    files: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name and label, by which a request asks for it."""
        return f"{self.name}:{self.label}" if self.label else self.name

    def facts(self) -> dict[str, Any]:
        """Return what the page shows of it, ready for JSON."""
        return {
            "key": self.key,
            "name": self.name,
            "summary": self.summary,
            "label": self.label,
            "files": list(self.files),
            "ready": self.build is not None,
        }
