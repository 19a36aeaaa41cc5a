"""``make demo``: real photos with drawn holes, filled by the command line, then a benchmark."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from inpaint_ops.cli import main as command_line

Shape = tuple[str, tuple[int, ...], int]

# Photos inside the scikit-image wheel, public domain or CC0, and the shapes to take out of each:
# kind, coordinates, width of lines in pixels.
HOLES: dict[str, Sequence[Shape]] = {
    "rocket.jpg": [("box", (285, 70, 356, 346), 0)],
    "astronaut.png": [
        ("line", (0, 60, 150, 130), 10),
        ("line", (330, 20, 470, 330), 12),
        ("line", (60, 470, 330, 290), 8),
    ],
    "coffee.png": [("line", (420, 360, 590, 250), 26), ("line", (20, 330, 60, 260), 18)],
    "chelsea.png": [("line", (60, 200, 190, 275), 14), ("line", (300, 20, 330, 130), 12)],
    "brick.png": [("ellipse", (190, 190, 320, 320), 0)],
    "grass.png": [("ellipse", (150, 150, 350, 340), 0)],
    "gravel.png": [("box", (160, 180, 340, 350), 0)],
}


def draw_hole(size: tuple[int, int], shapes: Sequence[Shape]) -> Image.Image:
    """Draw white shapes on black; `size` is (width, height)."""
    picture = Image.new("L", size, 0)
    draw = ImageDraw.Draw(picture)
    for kind, points, width in shapes:
        if kind == "box":
            draw.rectangle(points, fill=255)
        elif kind == "ellipse":
            draw.ellipse(points, fill=255)
        else:
            draw.line(points, fill=255, width=width)
    return picture


def photo_folder() -> Path:
    """Return the folder of scikit-image's photos; nothing is downloaded."""
    try:
        import skimage
    except ImportError:
        raise SystemExit("the demo needs scikit-image: pip install 'inpaint-ops[demo]'") from None
    return Path(skimage.__file__).parent / "data"


def triptych(photo: Path, hole: Path, filled: Path) -> Image.Image:
    """Return before, hole in magenta and after side by side."""
    before = np.asarray(Image.open(photo).convert("RGB"))
    after = np.asarray(Image.open(filled).convert("RGB"))
    missing = np.asarray(Image.open(hole)) > 127
    marked: npt.NDArray[np.uint8] = before.copy()
    marked[missing] = (255, 0, 255)
    gap = np.full((before.shape[0], 8, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([before, gap, marked, gap, after], 1))


def run(out: Path, benchmark: bool) -> int:
    """Write everything below `out` and return the exit code."""
    folders = {name: out / name for name in ("photos", "holes", "filled")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    for name, shapes in HOLES.items():
        picture = Image.open(photo_folder() / name).convert("RGB")
        stem = Path(name).stem
        picture.save(folders["photos"] / f"{stem}.png")
        draw_hole(picture.size, shapes).save(folders["holes"] / f"{stem}.png")
    arguments = ["fill", "--overwrite", "--images", str(folders["photos"])]
    arguments += ["--holes", str(folders["holes"]), "--out", str(folders["filled"])]
    print("inpaint-ops", *arguments, flush=True)
    code = command_line(arguments)
    if code:
        return code
    print("Before, hole, after:")
    for name in HOLES:
        file = f"{Path(name).stem}.png"
        picture = triptych(*(folders[folder] / file for folder in ("photos", "holes", "filled")))
        picture.save(out / file)
        print(f"  {out / file}")
    if not benchmark:
        return 0
    from inpaint_ops.benchmarks import demo_speed

    return demo_speed.run(out)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m inpaint_ops.benchmarks.demo")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder to write")
    parser.add_argument("--no-benchmark", action="store_true", help="pictures only")
    options = parser.parse_args(argv)
    return run(options.out, not options.no_benchmark)


if __name__ == "__main__":
    sys.exit(main())
