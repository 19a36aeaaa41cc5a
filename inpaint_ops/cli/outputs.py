"""Files of a folder: the pictures, the hole of each, and the output that each may write."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

from inpaint_ops.images import READ_SUFFIXES, WRITE_SUFFIXES


class Outputs:
    """The outputs of a folder's pictures; no two pictures share one.

    Files are compared by identity, not by name: on many file systems a.png and A.png, or two
    spellings of an accent, are one file.
    """

    def __init__(self, pictures: list[Path], holes: list[Path], out: Path) -> None:
        self._out, self._names = out, {path.name for path in pictures}
        self._inputs = {_identity(path): path for path in [*pictures, *holes]}
        self._claimed: dict[tuple[int, int], Path] = {}

    def target(self, image: Path) -> Path:
        """Return the file to write; ValueError if it belongs to another picture or is a hole."""
        target = self._out / image.name
        if target.suffix.lower() not in WRITE_SUFFIXES:
            target = self._out / f"{image.name}.png"
            if target.name in self._names:
                raise ValueError(_shared(target, target.name))
        if target.exists():
            other = self._claimed.get(_identity(target))
            if other is not None:
                raise ValueError(_shared(target, other.name))
            source = self._inputs.get(_identity(target), image)
            if source != image:
                raise ValueError(
                    f"its output {target} would replace the input {source}; take another --out"
                )
        return target

    def claim(self, image: Path, target: Path) -> None:
        """Note that a file is the output of a picture."""
        self._claimed[_identity(target)] = image


def _shared(target: Path, other: str) -> str:
    return f"its output {target} is that of {other}, too; rename one of the two"


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def same_file(first: Path, second: Path) -> bool:
    """Return whether two names that exist lead to one file."""
    return first.exists() and second.exists() and os.path.samefile(first, second)


def pictures_in(folder: Path) -> list[Path]:
    """Return the picture files of a folder by name, hidden ones left out."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in READ_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )


def partner_of(image: Path, folder: Path, candidates: list[Path], kind: str = "hole") -> Path:
    """Return the file with the stem of a picture, of a hole or what else `kind` says.

    Raises:
        FileNotFoundError: there is none.
        ValueError: there are several.
    """
    # File systems and archives spell an accent as one character or as two.
    stem = unicodedata.normalize("NFC", image.stem)
    matches = [path for path in candidates if unicodedata.normalize("NFC", path.stem) == stem]
    if not matches:
        raise FileNotFoundError(
            f"no {kind} named {image.stem}.* in {folder}; its stem must be that of the picture"
        )
    if len(matches) > 1:
        names = ", ".join(path.name for path in matches)
        raise ValueError(f"several {kind}s named {image.stem}.* in {folder}: {names}; leave one")
    return matches[0]
