"""Fill every photo of a folder whose hole has the same name.

    pip install 'inpaint-ops[image]'
    python examples/fill_a_folder.py photos holes filled

Without folders it makes two pictures of its own. The command line does the same, with a bar:
`inpaint-ops fill --images photos --holes holes --out filled`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import inpaint_ops
from inpaint_ops.images import Photo, load_hole, load_photo, save_hole


def make_pictures(photos: Path, holes: Path) -> None:
    """Write two striped pictures and a hole for each."""
    for folder in (photos, holes):
        folder.mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        stripes = np.zeros((48, 64, 3), np.uint8)
        stripes[:, :: 3 * number] = (220, 140, 40)
        Photo(stripes).save(photos / f"stripes{number}.png")
        hole = torch.zeros(1, 1, 48, 64)
        hole[..., 16:28, 20:36] = 1
        save_hole(hole, holes / f"stripes{number}.png")


def main(arguments: Sequence[str]) -> list[Path]:
    """Fill, and return the files that were written."""
    photos, holes, filled = map(Path, arguments or ("photos", "holes", "filled"))
    if not photos.exists():
        make_pictures(photos, holes)
    filled.mkdir(parents=True, exist_ok=True)
    written = []
    for path in sorted(photos.glob("*.png")):
        photo = load_photo(path)
        hole = load_hole(holes / path.name, photo.size, "white")
        # `filled` changes missing pixels alone: the others keep their integers.
        result = photo.filled(inpaint_ops.fill_exemplar(photo.image(), hole), hole)
        result.save(filled / path.name)
        written.append(filled / path.name)
        print(written[-1])
    return written


if __name__ == "__main__":
    main(sys.argv[1:])
