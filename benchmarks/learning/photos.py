"""Photographs to learn from: crops of freely licensed ones, and whole ones that are held out.

The photographs are in three Debian packages. Nothing of them is part of the library; this command
takes them from unpacked packages::

    apt-get download lomiri-wallpapers-16.04 lomiri-wallpapers-20.04 lxqt-themes
    for f in *.deb; do dpkg -x "$f" packages; done
    python -m inpaint_ops.benchmarks.learning.photos packages --out photos

`photos/train` has squares of `TILE` pixels, cut with overlap from each training photograph at
several sizes; `photos/held-out` has squares of `SIDE` pixels, cut without overlap from the others
at two sizes. Which is which is fixed here, by photograph. Photographs inside scikit-image's wheel
are always held out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

TILE = 288
_OVERLAP = 96
# Shorter sides of a training photograph in pixels: from what holds most of it to its details.
_SIDES = (288, 448, 704)
SIDE = 256
_HELD_OUT_SIDES = (256, 512)


class Photo(NamedTuple):
    """A photograph: the end of its path in its package, author, licence and use."""

    path: str
    author: str
    licence: str
    held_out: bool = False


_LOMIRI, _LXQT = "backgrounds", "lxqt/wallpapers"
PHOTOS = (
    Photo(f"{_LOMIRI}/Bridge_by_Sander_Klootwijk.jpg", "Sander Klootwijk", "CC-BY-SA-4.0"),
    Photo(f"{_LOMIRI}/Dragonfly_by_Bolly.jpg", "Bolly", "CC-BY-SA-4.0"),
    Photo(f"{_LOMIRI}/Picture_0B_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0"),
    Photo(f"{_LOMIRI}/Wine_by_Jakkub_Mede.jpg", "Jakub Mede", "CC-BY-4.0"),
    Photo(f"{_LOMIRI}/aitzgorri_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo(f"{_LOMIRI}/free_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
    Photo(f"{_LOMIRI}/greentock_by_Peter_Nerlich.jpg", "Peter Nerlich", "CC-BY-SA-4.0"),
    Photo(f"{_LOMIRI}/life_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo(f"{_LOMIRI}/sunset_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0"),
    Photo(f"{_LOMIRI}/Kleiber_by_Lukas_Baubkus.jpg", "Lukas Baubkus", "CC-BY-SA-3.0"),
    Photo(f"{_LXQT}/Butterfly-Kenneth-Wimer.jpg", "Kenneth Wimer, LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/Valendas.png", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/after-the-rain.jpg", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/appleflower.png", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/beam.png", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/butterfly.png", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/cloud.png", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/drop.png", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LXQT}/flowers.png", "LXQt team", "LGPL-2.1+"),
    Photo(f"{_LOMIRI}/Picture_1A_by_freespace.jpg", 'Trevor "Freespace"', "CC-BY-4.0", True),
    Photo(f"{_LOMIRI}/friends_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", True),
    Photo(
        f"{_LOMIRI}/picosdeeuropa_by_Aitzol_Berasategi.jpg", "Aitzol Berasategi", "CC-BY-4.0", True
    ),
    Photo(f"{_LOMIRI}/seeding_by_Clements_Engelhardt.jpg", "Clemens Engelhardt", "CC0-1.0", True),
    Photo(f"{_LXQT}/fog.jpg", "LXQt team", "LGPL-2.1+", True),
    Photo(f"{_LXQT}/this-is-not-windows.jpg", "LXQt team", "LGPL-2.1+", True),
)
# Inside scikit-image's wheel; its README names their origins.
SCIKIT_IMAGE = (
    Photo("astronaut.png", "NASA", "public domain", True),
    Photo("chelsea.png", "Stefan van der Walt", "CC0-1.0", True),
    Photo("coffee.png", "Rachel Michetti", "CC0-1.0", True),
    Photo("rocket.jpg", "SpaceX", "CC0-1.0", True),
)


def scaled(picture: Image.Image, side: int) -> Image.Image:
    """Return a picture whose shorter side has `side` pixels, or itself if it has fewer."""
    shorter = min(picture.size)
    if shorter <= side:
        return picture
    width, height = (round(length * side / shorter) for length in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


def squares(picture: Image.Image, side: int, step: int) -> Iterator[Image.Image]:
    """Yield squares of `side` pixels, at most `step` apart, the outermost ones at the edges."""
    for top in _places(picture.height, side, step):
        for left in _places(picture.width, side, step):
            yield picture.crop((left, top, left + side, top + side))


def _places(length: int, side: int, step: int) -> list[int]:
    gaps = -(-(length - side) // step)
    return [round(i * (length - side) / gaps) for i in range(gaps + 1)] if gaps else [0]


def _middle_squares(picture: Image.Image) -> Iterator[Image.Image]:
    """Yield as many squares of `SIDE` pixels as fit side by side, around the middle."""
    across, down = (length // SIDE for length in picture.size)
    left, top = (picture.width - across * SIDE) // 2, (picture.height - down * SIDE) // 2
    for row in range(down):
        for column in range(across):
            x, y = left + column * SIDE, top + row * SIDE
            yield picture.crop((x, y, x + SIDE, y + SIDE))


def pieces(photo: Photo, picture: Image.Image) -> Iterator[Image.Image]:
    """Yield what is made of a photograph."""
    for side in _HELD_OUT_SIDES if photo.held_out else _SIDES:
        smaller = scaled(picture, side)
        yield from (
            _middle_squares(smaller) if photo.held_out else squares(smaller, TILE, TILE - _OVERLAP)
        )


def find(packages: Path, photo: Photo) -> Path:
    """Return the file of a photograph below a folder.

    Raises:
        SystemExit: there is none, or there are several.
    """
    name = Path(photo.path).name
    found = [p for p in packages.rglob(name) if p.as_posix().endswith(photo.path)]
    if len(found) != 1:
        raise SystemExit(f"{packages}: must hold one {photo.path}, got {len(found)}")
    return found[0]


def prepare(packages: Path, out: Path) -> dict[str, int]:
    """Write the pieces of all photographs below `out`; return the number of each kind.

    Raises:
        SystemExit: a photograph is missing, or scikit-image.
    """
    try:
        import skimage
    except ImportError:
        raise SystemExit("photos needs scikit-image: pip install 'inpaint-ops[demo]'") from None
    inside = Path(skimage.__file__).parent / "data"
    sources = [(photo, find(packages, photo)) for photo in PHOTOS]
    sources += [(photo, inside / photo.path) for photo in SCIKIT_IMAGE]
    counts = {"train": 0, "held-out": 0}
    for photo, path in sources:
        kind = "held-out" if photo.held_out else "train"
        (out / kind).mkdir(parents=True, exist_ok=True)
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        for number, piece in enumerate(pieces(photo, picture)):
            # The number comes first: a list in this order begins with all photographs.
            piece.save(out / kind / f"{number:03}-{path.stem}.png")
            counts[kind] += 1
    return counts


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m inpaint_ops.benchmarks.learning.photos")
    parser.add_argument("packages", type=Path, help="folder with the unpacked packages")
    parser.add_argument("--out", type=Path, default=Path("photos"), help="folder to write")
    options = parser.parse_args(argv)
    for kind, count in prepare(options.packages, options.out).items():
        print(f"{options.out / kind}: {count} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
