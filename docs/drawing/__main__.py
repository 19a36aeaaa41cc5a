"""Draw the pictures of docs/pictures: ``python docs/drawing``; ``--check`` only compares them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import ideas
import operators
from canvas import Canvas
from networks import draw

from inpaint_ops.models import list_models

PICTURES = Path(__file__).resolve().parents[1] / "pictures"


def drawn() -> Iterator[tuple[str, Canvas]]:
    """Yield the name of each file and its picture."""
    for picture in operators.PICTURES:
        yield f"operator_{picture.__name__}.svg", picture()
    for picture in ideas.PICTURES:
        yield f"idea_{picture.__name__}.svg", picture()
    for name in list_models():
        yield f"network_{name}.svg", draw(name, f"{name}: the layers that complete a picture")


def main(arguments: list[str]) -> int:
    """Write what differs, or with ``--check`` name it."""
    stale = []
    for name, canvas in drawn():
        file = PICTURES / name
        if not file.exists() or file.read_text(encoding="utf-8") != canvas.svg():
            stale.append(name)
            if "--check" not in arguments:
                canvas.save(file)
    print(*(stale or ["all pictures are current"]), sep="\n")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
