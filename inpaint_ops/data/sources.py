"""The pictures of a data set in a fixed order: of a folder, a list of files, or shards."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from inpaint_ops import checks
from inpaint_ops.data.layouts import SPLITS, layout_of
from inpaint_ops.data.shards import members
from inpaint_ops.images import READ_SUFFIXES, Photo, load_photo, read_photo

LIST_SUFFIXES = (".flist", ".txt")
SHARD_SUFFIX = ".tar"
# Lists of Places2 have a label after each path.
_LABELS = re.compile(r"(\s+-?\d+)+$")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be read.

    Attributes:
        name: relative to the data set, the same wherever that lies.
        path: the file, or the shard that holds it.
        offset: in bytes, of the picture in a shard.
        size: in bytes, of the picture in a shard; None for a file of its own.
    """

    name: str
    path: Path
    offset: int = 0
    size: int | None = None

    def __str__(self) -> str:
        """Return where it is, for messages."""
        return str(self.path) if self.size is None else f"{self.path}: {self.name}"

    def load(self) -> Photo:
        """Read and decode it.

        Raises:
            ImportError, OSError, ValueError: as `inpaint_ops.images.load_photo`.
        """
        if self.size is None:
            return load_photo(self.path)
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            content = stream.read(self.size)
        if len(content) < self.size:
            raise ValueError(f"{self}: the shard ends inside the picture")
        return read_photo(io.BytesIO(content), str(self))


class Pictures(Sequence[Picture]):
    """The pictures of a data set, in the order that numbers them.

    Attributes:
        origin: where they were found, for people.
        digest: SHA-256 of their names in this order, in hexadecimal. It does not look into files.
    """

    def __init__(self, pictures: Sequence[Picture], origin: str) -> None:
        self._pictures = tuple(pictures)
        self.origin = origin
        digest = hashlib.sha256()
        for picture in self._pictures:
            digest.update(picture.name.encode("utf-8", "surrogateescape") + b"\0")
        self.digest = digest.hexdigest()

    @overload
    def __getitem__(self, index: int) -> Picture: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Picture]: ...
    def __getitem__(self, index: int | slice) -> Picture | Sequence[Picture]:
        """Return the picture of a number."""
        return self._pictures[index]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._pictures)


def find_pictures(
    data: str | os.PathLike[str],
    *,
    split: str = "train",
    root: str | os.PathLike[str] | None = None,
) -> Pictures:
    """Find the pictures of a data set.

    A folder is searched with all folders in it; files are sorted by their paths, hidden ones left
    out. Shards (.tar) in it count with the pictures that they hold. The folders of Places2,
    CelebAMask-HQ, FFHQ and Paris StreetView, and one with `train` beside `val` or `test`, are
    recognised: of them `split` is taken. Any other folder is taken whole.

    A list (.flist, .txt) has a path a line. Numbers after it, the labels of Places2, are ignored.

    Args:
        data: folder, list or shard.
        split: "train", "val" or "test".
        root: folder that all paths of a list are relative to, those with a leading slash too.
            None: the folder of the list, and a path with a leading slash is absolute.

    Raises:
        OSError: something does not exist or cannot be read.
        ValueError: no pictures, a split that is not there, a damaged shard, a line without a
            picture, or root where data is no list.
    """
    op, source = "find_pictures", Path(data)
    checks.check_choice(op, "split", split, SPLITS)
    if not source.exists():
        raise FileNotFoundError(f"{source}: does not exist")
    suffix = source.suffix.lower()
    is_list = suffix in LIST_SUFFIXES and source.is_file()
    if root is not None and not is_list:
        raise ValueError(f"{op}: root is for lists ({', '.join(LIST_SUFFIXES)}), got {source}")
    origin = str(source)
    if is_list:
        found = list(_listed(source, None if root is None else Path(root)))
    elif source.is_dir():
        folder, keeps = source, None
        layout = layout_of(source)
        if layout is not None:
            part = layout.part(source, split)
            folder, rule = source / part, layout.keeps
            origin = f"{source} ({layout.name}, {split}: {part})"
            keeps = None if rule is None else (lambda name: rule(split, name))
        found = list(_in_folder(folder, keeps))
    elif suffix == SHARD_SUFFIX:
        found = list(_in_shard(source, source.name))
    else:
        kinds = ", ".join((*LIST_SUFFIXES, SHARD_SUFFIX))
        raise ValueError(f"{source}: must be a folder or end in one of {kinds}")
    if not found:
        raise ValueError(f"{origin}: holds no pictures ({' '.join(sorted(READ_SUFFIXES))})")
    return Pictures(found, origin)


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files of a folder and of those in it, sorted by path, hidden ones left out.

    Links to folders are followed, but not in a circle.
    """

    def walk(here: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
        status = here.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(here) as entries:
            inside = sorted((e for e in entries if not e.name.startswith(".")), key=_name)
        for entry in inside:
            if entry.is_dir():
                yield from walk(Path(entry.path), above | {identity})
            else:
                yield Path(entry.path)

    return walk(folder, frozenset())


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _in_folder(folder: Path, keeps: Callable[[str], bool] | None) -> Iterator[Picture]:
    for path in files_below(folder):
        suffix, name = path.suffix.lower(), path.relative_to(folder).as_posix()
        if suffix == SHARD_SUFFIX:
            yield from _in_shard(path, name)
        elif suffix in READ_SUFFIXES and (keeps is None or keeps(path.name)):
            yield Picture(name, path)


def _in_shard(shard: Path, name: str) -> Iterator[Picture]:
    for member, offset, size in members(shard):
        yield Picture(f"{name}/{member}", shard, offset, size)


def _listed(source: Path, root: Path | None) -> Iterator[Picture]:
    with source.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            name = line.strip()
            if not name:
                continue
            if Path(name).suffix.lower() not in READ_SUFFIXES:
                name = _LABELS.sub("", name)
            if Path(name).suffix.lower() not in READ_SUFFIXES:
                raise ValueError(f"{source}, line {number}: is no path of a picture: {name!r}")
            path = source.parent / name if root is None else root / name.lstrip("/")
            yield Picture(name, path)
