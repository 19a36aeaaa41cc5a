"""Pictures inside tar files, as webdataset writes them, read at random by their offsets."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from inpaint_ops.images import READ_SUFFIXES

_BLOCK = 512


def members(shard: Path) -> Iterator[tuple[str, int, int]]:
    """Yield name, offset and size in bytes of each picture of a tar file, in its order.

    Other members, such as labels and captions, are left out.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no tar file, is compressed, damaged or cut short.
    """
    try:
        # ":" refuses compressed files, which have no places to jump to.
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                name = PurePosixPath(member.name)
                picture = name.suffix.lower() in READ_SUFFIXES and not name.name.startswith(".")
                if not picture or not member.isreg():
                    continue
                if member.issparse():
                    raise ValueError(f"{shard}: {member.name} is stored in parts (sparse)")
                yield member.name, member.offset_data, member.size
            end = archive.offset
    except tarfile.TarError as exc:
        raise ValueError(f"{shard}: not a readable tar file, uncompressed ({exc})") from exc
    # tarfile takes whatever it does not understand for the end.
    with shard.open("rb") as stream:
        stream.seek(end)
        mark = stream.read(_BLOCK)
    if mark != bytes(_BLOCK):
        raise ValueError(f"{shard}: damaged, or cut short: there is no end mark at byte {end}")
