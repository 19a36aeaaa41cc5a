"""Small runs of the trainer: photographs of a few pixels, networks of a few channels."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors.torch import load_file

from inpaint_ops.training import read_config, train

SETTINGS = (
    *("iterations=6", "batch=2", "checkpoint_every=2", "log_every=2", "sample_every=0"),
    *("model.base_channels=8", "model.critic_channels=4", "data.size=32", "data.workers=0"),
)


def write_photos(folder, count=5, size=(40, 48)):
    """Smooth pictures, each another one."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rows, columns = np.mgrid[: size[0], : size[1]] / 48
    for number in range(count):
        waves = [np.sin((number + 2) * rows + k * columns * 3) for k in range(3)]
        pixels = np.rint(127.5 + 127.5 * np.stack(waves, -1)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def config_of(photos, *settings, method="deepfill_v2", base=SETTINGS):
    return read_config(method, None, (*base, *settings), **{"data.path": str(photos)})


def run(photos, out, *settings, method="deepfill_v2", base=SETTINGS, **options):
    return train(config_of(photos, *settings, method=method, base=base), out, **options)


def losses(out):
    lines = (Path(out) / "losses.jsonl").read_text().splitlines()
    return [json.loads(line)["losses"] for line in lines]


def weights(file):
    """The bytes of the tensors of a file, by name; those of its header come in any order."""
    return {name: x.numpy().tobytes() for name, x in load_file(file).items()}


def results(out):
    """What two equal runs have the same bytes of."""
    last = Path(out) / "checkpoints/step_000000006"
    files = (last / "weights.safetensors", Path(out) / "deepfill_v2.safetensors")
    return [(Path(out) / "losses.jsonl").read_bytes(), *map(weights, files)]
