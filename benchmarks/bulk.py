"""Many pictures: the folder command, `InpaintBatch` in one process, and Ray Data with actors.

``python -m inpaint_ops.benchmarks.bulk --count 200 --ray 2`` writes small pictures with holes,
fills them in each way and prints pictures per second. Ray is started and ended here (extra `ray`).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from inpaint_ops.cli import main as command_line
from inpaint_ops.distributed import InpaintBatch

Row = dict[str, Any]

# (height, width): batches have several.
_SIZES = ((96, 96), (64, 128), (80, 80))


def write_pictures(folder: Path, count: int) -> None:
    """Write smooth pictures below `images` and white boxes below `holes`."""
    for kind in ("images", "holes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng(number)
        height, width = _SIZES[number % len(_SIZES)]
        rows, columns = np.mgrid[:height, :width] / 16
        waves = [np.sin(rng.random() * 6 + rows * a + columns * b) for a, b in rng.random((3, 2))]
        pixels = np.rint(127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:05}.png")
        hole = np.zeros((height, width), np.uint8)
        top, left = rng.integers(8, 30, 2)
        hole[top : top + 16, left : left + 16] = 255
        Image.fromarray(hole).save(folder / "holes" / f"{number:05}.png")


def with_hole(row: Row) -> Row:
    """Add the mask that lies beside a picture's folder, under the picture's name."""
    path = Path(row["path"])
    with Image.open(path.parent.parent / "holes" / path.name) as mask:
        return {**row, "hole": np.asarray(mask)}


def read(path: Path) -> Row:
    """Return the row of a picture, as `ray.data.read_images` has it."""
    with Image.open(path) as opened:
        return {"image": np.asarray(opened.convert("RGB")), "path": str(path)}


def saved(row: Row, out: str) -> Row:
    """Write a result; return what is told of it."""
    if not row["error"]:
        Image.fromarray(row["filled"]).save(Path(out) / Path(row["path"]).name)
    return {"path": row["path"], "error": row["error"]}


def in_one_process(folder: Path, out: Path, options: Row, batch: int) -> list[Row]:
    """Fill the pictures of a folder with one `InpaintBatch`."""
    fill, told = InpaintBatch(polarity="white", **options), []
    rows = [with_hole(read(path)) for path in sorted((folder / "images").iterdir())]
    for some in (rows[start : start + batch] for start in range(0, len(rows), batch)):
        done = fill({name: [row[name] for row in some] for name in some[0]})
        told += [saved({k: done[k][i] for k in done}, str(out)) for i in range(len(some))]
    return told


def with_ray(folder: Path, out: Path, options: Row, batch: int, actors: int) -> list[Row]:
    """Fill the pictures of a folder with actors of Ray Data, one core each.

    Raises:
        ImportError: Ray is not installed.
    """
    import ray

    # Within an actor of one core.
    arguments = {"polarity": "white", "threads": 1, **options}
    rows = ray.data.read_images(str(folder / "images"), mode="RGB", include_paths=True)
    filled = rows.map(with_hole).map_batches(
        InpaintBatch,
        fn_constructor_kwargs=arguments,
        batch_size=batch,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=1,
    )
    # Ray's types know no function with more arguments.
    store: Any = saved
    told: list[Row] = filled.map(store, fn_args=(str(out),)).take_all()
    return told


def _timed(name: str, count: int, work: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    print(f"{name}: {count / seconds:.1f} pictures/s ({count} in {seconds:.1f} s)", flush=True)
    return result


def run(folder: Path, count: int, options: Row, batch: int, actors: int) -> int:
    """Fill pictures in each way and compare the files; return the exit code."""
    write_pictures(folder, count)
    out = {name: folder / name for name in ("command", "batch", "ray")}
    for path in out.values():
        path.mkdir()
    given = ["--images", str(folder / "images"), "--holes", str(folder / "holes")]
    command = ["fill", *given, "--out", str(out["command"]), "--hole", "white"]
    if "model" in options:
        command += ["--model", options["model"], "--weights", str(options["weights"])]
    code = _timed("folder command", count, lambda: command_line(command))
    if code:
        return int(code)
    told = _timed(
        "InpaintBatch", count, lambda: in_one_process(folder, out["batch"], options, batch)
    )
    ways = {"batch": told}
    if actors:
        import ray

        ray.init(num_cpus=actors + 1, include_dashboard=False, log_to_driver=False)
        try:
            ways["ray"] = _timed(
                f"Ray Data, {actors} actors",
                count,
                lambda: with_ray(folder, out["ray"], options, batch, actors),
            )
        finally:
            ray.shutdown()
    return max(_compared(out["command"], out[name], rows) for name, rows in ways.items())


def _compared(wanted: Path, made: Path, told: Sequence[Row]) -> int:
    """Return 1 and say why if a picture failed or differs from the command's by over one level."""
    for row in told:
        if row["error"]:
            print(f"{row['path']}: {row['error']}", file=sys.stderr)
            return 1
    for path in sorted(wanted.iterdir()):
        pictures = [np.asarray(Image.open(p)).astype(int) for p in (path, made / path.name)]
        if np.abs(pictures[0] - pictures[1]).max() > 1:
            print(f"{made / path.name}: differs from {path}", file=sys.stderr)
            return 1
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m inpaint_ops.benchmarks.bulk")
    parser.add_argument("--count", type=int, default=200, help="pictures")
    parser.add_argument("--model", help="a method; without it the filler that needs no weights")
    parser.add_argument("--weights", type=Path, help="its weights")
    parser.add_argument("--batch", type=int, default=16, help="pictures of a batch")
    parser.add_argument("--ray", type=int, default=0, metavar="ACTORS", help="use Ray Data too")
    given = parser.parse_args(argv)
    if (given.model is None) != (given.weights is None):
        parser.error("--model and --weights must be given together")
    options = {} if given.model is None else {"model": given.model, "weights": given.weights}
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), given.count, options, given.batch, given.ray)


if __name__ == "__main__":
    sys.exit(main())
