"""Fill a whole data set in parallel with Ray Data.

    pip install 'inpaint-ops[image]' 'ray[data]'
    python examples/ray_batch.py --photos photos --out filled

`InpaintBatch` is a callable of batches: columns `image` and `hole` go in, `filled` and `error` come
out. A picture that fails has a text in `error`; the others go on. Without `--photos` a few pictures
are made; `--plain` calls it in a loop of this process, without Ray.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inpaint_ops.distributed import InpaintBatch
from inpaint_ops.images import Photo, load_photo

Batch = dict[str, Any]


def rows(photos: Path | None) -> Iterator[Batch]:
    """Yield pictures, each with a hole in its middle."""
    if photos is None:
        pictures = {}
        for number in range(4):
            pixels = np.zeros((48, 64, 3), np.uint8)
            pixels[:, :: number + 2] = (220, 140, 40)
            pictures[f"stripes{number}"] = pixels
    else:
        files = sorted(photos.glob("*.png"))
        pictures = {file.stem: load_photo(file).pixels[..., :3] for file in files}
    for name, pixels in pictures.items():
        height, width = pixels.shape[:2]
        hole = np.zeros((height, width), bool)
        hole[height // 3 : height // 2, width // 3 : width // 2] = True
        yield {"name": name, "image": pixels, "hole": hole}


def main(arguments: Sequence[str] | None = None) -> list[Path]:
    """Fill, write the results, and return their files."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, help="a folder of PNG files")
    parser.add_argument("--out", type=Path, default=Path("filled"))
    parser.add_argument("--plain", action="store_true", help="a loop, without Ray")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)

    # model="deepfill_v2", weights="file.safetensors" for a learned method.
    settings: dict[str, Any] = {"model": "exemplar"}
    if options.plain:
        listed = list(rows(options.photos))
        columns = {name: [row[name] for row in listed] for name in ("name", "image", "hole")}
        batches = [InpaintBatch(**settings)(columns)]
    else:
        import ray

        # Two workers, each with its own InpaintBatch, which is called with many batches.
        filled = ray.data.from_items(list(rows(options.photos))).map_batches(
            InpaintBatch,
            fn_constructor_kwargs=settings,
            batch_size=2,
            compute=ray.data.ActorPoolStrategy(size=2),
        )
        batches = filled.iter_batches(batch_size=2)

    written = []
    for batch in batches:
        for name, pixels, error in zip(batch["name"], batch["filled"], batch["error"]):
            if error:
                print(f"{name}: {error}")
                continue
            written.append(options.out / f"{name}.png")
            Photo(np.ascontiguousarray(pixels)).save(written[-1])
            print(written[-1])
    return written


if __name__ == "__main__":
    main()
