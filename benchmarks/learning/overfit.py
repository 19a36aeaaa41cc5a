"""Each method learns three photographs by heart, in a size that a test can afford.

A method whose losses, gradients or order of updates are wrong does not get this far, however right
each of its operators is. ``python -m inpaint_ops.benchmarks.learning.overfit`` draws what the ten
have learned, and their curves.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from inpaint_ops.benchmarks.learning.sheets import contact_sheet, curves, marked
from inpaint_ops.models import InpaintingModel, create_model

# Public domain and CC0, inside scikit-image's wheel.
PHOTOS = ("astronaut", "chelsea", "coffee")


class Stretch(NamedTuple):
    """Steps of a phase, and numbers in place of its source's, which are for 100000s of steps."""

    phase: str
    steps: int
    numbers: Mapping[str, Any] = {}


class Lesson(NamedTuple):
    """What a method does to learn the photographs.

    Attributes:
        method: its name.
        options: of its class: a small network.
        stretches: one after the other.
        loss: name of the reconstruction loss.
        falls: the factor by which it must fall, from the first ten steps of the last stretch to the
            last ten.
        side: of the photographs in pixels.
        photographs: how many of them.
        gain: weights start with this deviation over the root of their number for a channel. Those
            of the source (None) are so small that a network of few channels gives one colour for
            hundreds of steps, before it sees anything.
    """

    method: str
    options: Mapping[str, Any]
    stretches: Sequence[Stretch]
    loss: str
    falls: float
    side: int = 64
    photographs: int = len(PHOTOS)
    gain: float | None = None


class Learned(NamedTuple):
    """What came of it.

    Attributes:
        losses: the reconstruction loss of each step of the last stretch.
        before: PSNR of the missing pixels in dB, with the weights of the start.
        after: the same at the end.
        constant: the same where each hole is filled with its own mean colour, which no filler
            knows: what is above has a shape.
        filled: (N, 3, side, side), the photographs at the end.
    """

    losses: list[float]
    before: float
    after: float
    constant: float
    filled: Tensor

    @property
    def fall(self) -> float:
        """Return the factor by which the loss fell."""
        return float(np.mean(self.losses[:10]) / np.mean(self.losses[-10:]))


_FAST = {"learning_rate": 1e-3}
_BLIND = {"content": 0.0, "style": 0.0}
LESSONS = (
    Lesson(
        "context_encoder",
        {"base_channels": 8, "bottleneck": 64},
        (Stretch("joint", 120),),
        "reconstruction",
        8.0,
        128,
    ),
    Lesson(
        "msnps",
        {"base_channels": 8, "bottleneck": 64, "energy": "none"},
        (Stretch("joint", 120),),
        "reconstruction",
        8.0,
        128,
    ),
    Lesson(
        "glcic",
        {"base_channels": 8, "global_size": 64, "local_size": 32},
        (Stretch("completion", 160),),
        "reconstruction",
        6.0,
    ),
    Lesson(
        "patch_gan",
        {"base_channels": 8, "image_size": 64},
        (Stretch("joint", 120, {"generator_rate": 2e-3}),),
        "reconstruction",
        3.0,
    ),
    Lesson(
        "shift_net",
        {"base_channels": 8, "critic_channels": 4},
        (Stretch("joint", 30, {"learning_rate": 2e-3}),),
        "l1",
        2.0,
        256,
    ),
    Lesson(
        "deepfill_v1",
        {"base_channels": 8, "critic_channels": 4, "size": 64},
        (Stretch("joint", 120, {**_FAST, "critic_steps": 1}),),
        "l1",
        2.0,
    ),
    Lesson(
        "gmcnn",
        {"base_channels": 4, "critic_channels": 2, "critic_size": 196, "local_size": 64},
        (Stretch("pretrain", 50, _FAST),),
        "reconstruction",
        1.5,
        196,
        photographs=2,
        gain=1.4,
    ),
    Lesson(
        "partial_conv_unet",
        {"base_channels": 8, "levels": 5},
        (Stretch("train", 200, {"learning_rate": 3e-3, "perceptual": 0.0, "style": 0.0}),),
        "hole",
        3.0,
    ),
    Lesson(
        "edge_connect",
        {"base_channels": 8, "critic_channels": 4, "residual_blocks": 2},
        (Stretch("edge", 30, _FAST), Stretch("inpaint_edges", 120, {**_FAST, **_BLIND})),
        "l1",
        2.5,
    ),
    Lesson(
        "deepfill_v2",
        {"base_channels": 8, "critic_channels": 4},
        # A gate halves what passes it at first.
        (Stretch("joint", 120, {"learning_rate": 2e-3, "adversarial": 0.05}),),
        "l1",
        2.0,
        gain=2.0,
    ),
)


def photographs(side: int) -> tuple[Tensor, Tensor]:
    """Return the photographs, (3, 3, side, side) in [0, 1], and holes, (3, 1, side, side) bool.

    Raises:
        ImportError: scikit-image or Pillow is not installed.
    """
    import skimage
    from PIL import Image

    folder, pictures = Path(skimage.__file__).parent / "data", []
    for name in PHOTOS:
        with Image.open(folder / f"{name}.png") as opened:
            picture = opened.convert("RGB")
        taken = min(picture.size)
        left, top = (picture.width - taken) // 2, (picture.height - taken) // 2
        square = picture.crop((left, top, left + taken, top + taken)).resize((side, side))
        pictures.append(torch.from_numpy(np.asarray(square).copy()).permute(2, 0, 1))
    hole = torch.zeros(len(PHOTOS), 1, side, side, dtype=torch.bool)
    # As large as Context Encoder's, which sees none but such.
    length = side * 56 // 128
    for number in range(len(PHOTOS)):
        start = (side - length) // 2 + (number - 1) * side // 16
        hole[number, :, start : start + length, start : start + length] = True
    return torch.stack(pictures).float() / 255, hole


def _redraw(network: nn.Module, gain: float) -> None:
    """Draw the weights of convolutions anew, small ones for the last."""
    kernels = [p for p in network.parameters() if p.dim() == 4]
    for kernel in kernels:
        nn.init.normal_(kernel, std=gain / kernel[0].numel() ** 0.5)
    nn.init.normal_(kernels[-1], std=0.02)


def hole_psnr(filled: Tensor, image: Tensor, hole: Tensor) -> float:
    """Return the mean over pictures of the PSNR of their missing pixels, in dB."""
    values = [
        -10 * (a - b).masked_select(h).square().mean().log10()
        for a, b, h in zip(filled, image, hole)
    ]
    return float(torch.stack(values).mean())


def learn(lesson: Lesson, on_step: Callable[[int], None] = lambda step: None) -> Learned:
    """Train a method on the photographs.

    Args:
        lesson: what it does.
        on_step: called after each step with its number.
    """
    torch.manual_seed(0)
    model = create_model(lesson.method, **lesson.options)
    if lesson.gain is not None:
        _redraw(model.get_submodule("generator"), lesson.gain)
    image, hole = (x[: lesson.photographs] for x in photographs(lesson.side))
    before = hole_psnr(_fill(model, image, hole), image, hole)
    losses: list[float] = []
    step = 0
    for stretch in lesson.stretches:
        recipe = model.recipe(stretch.phase, **stretch.numbers)
        losses = []
        for _ in range(stretch.steps):
            told = recipe.step(image, hole)
            losses.append(told.get(lesson.loss, float("nan")))
            step += 1
            on_step(step)
    filled = _fill(model, image, hole)
    missing = hole.to(image.dtype)
    mean = (image * missing).sum((2, 3), keepdim=True) / missing.sum((2, 3), keepdim=True)
    return Learned(
        losses,
        before,
        hole_psnr(filled, image, hole),
        hole_psnr(mean.expand_as(image), image, hole),
        filled,
    )


def _fill(model: InpaintingModel, image: Tensor, hole: Tensor) -> Tensor:
    """Complete pictures as a user does, without what the holes hide."""
    training = model.training
    model.eval()
    filled: Tensor = model.complete(image.masked_fill(hole, 0), hole)
    model.train(training)
    return filled


def report(learned: Mapping[str, Learned], out: Path) -> None:
    """Write a contact sheet, `ten.jpg`, and curves, `ten.svg`, into a folder."""
    rows = []
    for lesson in LESSONS:
        result = learned[lesson.method]
        image, hole = photographs(lesson.side)
        pictures = [
            part
            for i, filled in enumerate(result.filled)
            for part in (marked(image[i], hole[i]), filled, image[i])
        ]
        text = f"{lesson.method}: {result.before:.1f} dB, then {result.after:.1f} dB"
        rows.append((text, pictures))
    out.mkdir(parents=True, exist_ok=True)
    heads = ("hole", "learned", "photograph") * len(PHOTOS)
    contact_sheet(rows, heads, 96).save(out / "ten.jpg", quality=80)
    shares = {name: [v / one.losses[0] for v in one.losses] for name, one in learned.items()}
    curves(shares, out / "ten.svg", ylabel="reconstruction loss, share of the first step's")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m inpaint_ops.benchmarks.learning.overfit")
    parser.add_argument("--out", type=Path, default=Path("learning"), help="folder to write")
    options = parser.parse_args(argv)
    learned = {}
    for lesson in LESSONS:
        result = learned[lesson.method] = learn(lesson)
        print(
            f"{lesson.method}: {lesson.loss} / {result.fall:.1f}, hole {result.before:.1f} -> "
            f"{result.after:.1f} dB (mean colour {result.constant:.1f} dB)",
            flush=True,
        )
    report(learned, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
