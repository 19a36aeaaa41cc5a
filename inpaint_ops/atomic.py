"""Files that appear complete or not at all."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

fcntl: Any
try:
    fcntl = importlib.import_module("fcntl")
except ImportError:  # Windows
    fcntl = None

# Age in seconds at which a left-over is removed if its lock tells nothing (another machine, a file
# system without locks).
_STALE_AFTER = 24 * 3600.0
_LEFT_OVER = re.compile(r"\..+\.(?P<host>[0-9a-f]{8})-[0-9a-f]{12}\.part")
_swept: set[Path] = set()


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary stream whose content becomes the file if the block raises no exception.

    Until then the content has a hidden temporary name in the same folder. On any failure,
    interrupts included, it is removed, and an older file stays as it was. Symbolic links are
    followed. The first write to a folder removes what killed processes left there, see
    `remove_left_overs`.

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(os.path.realpath(path))
    if target.parent not in _swept:
        remove_left_overs(target.parent)
    while True:
        temporary = _temporary_name(target)
        # "x": never opens an existing file of that name.
        try:
            stream = temporary.open("x+b")
        except OSError as exc:
            exc.filename = str(target)  # the file that was asked for
            raise
        try:
            with stream:
                # Between opening and locking another process may have taken it for a left-over.
                if not _lock(stream) or not _still_there(stream, temporary):
                    continue
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                with suppress(FileNotFoundError):
                    temporary.chmod(stat.S_IMODE(target.stat().st_mode))
                if fcntl is not None:
                    # Before the lock goes with the stream.
                    temporary.replace(target)
            if fcntl is None:  # Windows does not rename open files
                temporary.replace(target)
        except BaseException:
            with suppress(FileNotFoundError):
                temporary.unlink()
            raise
        return


@contextmanager
def lock_beside(path: Path) -> Iterator[None]:
    """Keep other processes that ask the same out of the block; for reading, then writing a file.

    The lock is a hidden empty file in the same folder, which stays. Without locks (Windows, some
    network file systems) nobody is kept out.

    Raises:
        OSError: the folder is missing or not writable.
    """
    with path.with_name(f".{path.name}.lock").open("ab") as stream:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, if they are missing.

    Raises:
        OSError: a file is in its place, it may not be made, or files may not be made in it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise NotADirectoryError(f"{folder}: is no folder, a file has its place") from exc
    # Before the work whose results go there.
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder}: files cannot be made in this folder")


def remove_left_overs(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder.

    A writer holds a lock on its temporary file. So a file of this machine that can be locked has
    lost its writer. Locks tell nothing about files of other machines, which share the folder over a
    network, or on file systems without locks; those are removed a day after their last change.
    Files of other names are never touched.
    """
    _swept.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            found = _LEFT_OVER.fullmatch(entry.name)
            if found is None:
                continue
            with suppress(OSError):
                if entry.is_file(follow_symlinks=False):
                    _remove_if_stale(Path(entry.path), found["host"])


def _remove_if_stale(path: Path, host: str) -> None:
    old = time.time() - path.lstat().st_mtime > _STALE_AFTER
    if fcntl is None or host != _host():
        if old:
            path.unlink()
        return
    # Network file systems lock for writing only what is open for writing.
    with path.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:  # no locks here
            if not old:
                return
        if _still_there(stream, path):
            path.unlink()


def _temporary_name(target: Path) -> Path:
    # A name holds 255 bytes, a character up to four.
    return target.with_name(f".{target.name[:40]}.{_host()}-{secrets.token_hex(6)}.part")


def _host() -> str:
    return hashlib.sha256(platform.node().encode("utf-8", "replace")).hexdigest()[:8]


def _lock(stream: BinaryIO) -> bool:
    """Lock a new file; False if somebody else did, True where locks are not supported."""
    if fcntl is not None:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


def _still_there(stream: BinaryIO, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(stream.fileno()), path.lstat())
    return False
