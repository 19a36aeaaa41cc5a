"""Train a small U-Net of partial convolutions on a few photos, in a loop of your own.

    pip install 'inpaint-ops[demo,models]'
    python examples/train_unet.py --out trained

Six photos are far too few to learn from: watch the loss fall, and the network learn them by heart.
For a real training `inpaint-ops train partial_conv_unet` has the losses, the phases and the
checkpoints of the method. Here only the pixel losses are used, so that no other network is needed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from inpaint_ops.data import DrawnHoles, Framing, Rows, Samples, batches, find_pictures
from inpaint_ops.images import Photo
from inpaint_ops.losses import l1_loss
from inpaint_ops.models import create_model, save_weights

PHOTOS = ("astronaut.png", "brick.png", "chelsea.png", "coffee.png", "grass.png", "rocket.jpg")


def own_photos(folder: Path) -> Path:
    """Copy six photos that ship with scikit-image to a folder."""
    import skimage
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        picture = Image.open(Path(skimage.__file__).parent / "data" / name)
        picture.convert("RGB").save(folder / f"{Path(name).stem}.png")
    return folder


def main(arguments: Sequence[str] | None = None) -> list[float]:
    """Train, write pictures and weights, return the losses."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--photos", type=Path, help="a folder; without it six photos come along")
    parser.add_argument("--out", type=Path, default=Path("trained"))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--width", type=int, default=16, help="filters of the first layer")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)

    photos = options.photos or own_photos(options.out / "photos")
    samples = Samples(
        find_pictures(photos),
        Framing((options.size, options.size)),  # scaled, cropped and mirrored at random
        DrawnHoles("irregular", ratio=(0.1, 0.3)),
    )
    model = create_model("partial_conv_unet", levels=5, base_channels=options.width)
    optimizer = torch.optim.Adam(model.generator.parameters(), lr=2e-3)

    losses = []
    model.train()
    rows = Rows(batch=6)
    for step, batch in enumerate(batches(samples, rows, steps=options.steps, workers=0)):
        truth, hole = model.normalised(batch.image), batch.hole.float()
        # The network takes the picture and the known pixels, and returns a new mask too.
        made, _ = model.generator(truth * (1 - hole), hole == 0)
        loss = 6 * l1_loss(made, truth, hole) + l1_loss(made, truth, 1 - hole)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if step % 20 == 0:
            print(f"step {step}: loss {losses[-1]:.3f}")

    # Fill a sample and write it: before, with the hole, after.
    sample = samples[0, 0]
    image, hole = sample.image[None], sample.hole[None].float()
    filled = model.complete(image, hole)
    row = torch.cat([image, image * (1 - hole), filled], 3)[0]
    pixels = (row.permute(1, 2, 0) * 255).round().byte().numpy()
    options.out.mkdir(parents=True, exist_ok=True)
    Photo(pixels).save(options.out / "sample.png")
    save_weights(model, options.out / "unet.safetensors")
    print(f"{options.out}/sample.png, {options.out}/unet.safetensors")
    return losses


if __name__ == "__main__":
    main()
