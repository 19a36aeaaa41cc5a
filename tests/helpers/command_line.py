"""Pictures, holes and a filler for the tests of the command line."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

SIZE = 12


RGB = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


HOLE = np.zeros((SIZE, SIZE), np.uint8)


HOLE[4:8, 3:9] = 255


FILLED = RGB.copy()


FILLED[HOLE > 0] = (0, 128, 255)


class StubFiller:
    """Writes nonsense over known pixels too, which must not reach a file."""

    def __init__(self):
        self.seeds = []
        self.threads = []
        self.fail_at = None
        self.error = RuntimeError("boom")

    def __call__(self, image, hole, *, seed=0, progress=None):
        self.seeds.append(seed)
        self.threads.append(torch.get_num_threads())
        if self.fail_at == len(self.seeds):
            raise self.error
        if progress is not None:
            progress(0.5)
        assert image.dtype == torch.float32
        assert hole.dtype == torch.bool
        colour = torch.tensor([0.0, 128 / 255, 1.0]).reshape(1, 3, 1, 1)
        return torch.where(hole, colour, torch.rand_like(image))


def write(path, pixels):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def read(path):
    with Image.open(path) as picture:
        return np.array(picture)


FOLDER_ARGUMENTS = ("fill", "--images", "photos", "--holes", "holes", "--out", "out")
