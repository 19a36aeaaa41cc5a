"""What partial convolutions make of a mask, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.models import InpaintingModel
from inpaint_ops.visualize.sheets import Picture, check_picture, rgb, sheet

# Grey between masks, which are black and white themselves.
_GROUND = 0.5


@torch.no_grad()
def updated_masks(
    model: nn.Module, image: Tensor, hole: Tensor, *, multi_channel: bool = False
) -> dict[str, Tensor]:
    """Run a network of partial convolutions and return the mask behind each of them.

    Args:
        model: a method that has such layers, `PartialConvUNet`; or a module that is called with
            image and valid pixels, and whose layers return a result and its mask: those of
            `PartialConv2d` with return_mask=True, of NVIDIA's layer, of `compat.naoto0804`.
        image: (N, 3, H, W), [0, 1]; missing pixels may hold anything.
        hole: (N or 1, 1, H, W), 1 = missing; bool, or 0 and 1 in uint8 or float.
        multi_channel: give a module the valid pixels of each of the three channels, which
            `compat.naoto0804` takes, instead of one mask for all. Methods know themselves.

    Returns:
        Valid pixels of each layer's result, (N or 1, 1, h, w) or (N, C, h, w), float32 on the CPU:
        1 = the layer saw something. Names of modules, in the order in which they ran; that of a
        layer inside another one with the same mask is left out.

    Raises:
        TypeError, ValueError: wrong type, shape or mask value; no layer returns a mask.
    """
    op = "updated_masks"
    if not isinstance(model, nn.Module):
        raise TypeError(f"{op}: model must be an nn.Module, got {type(model).__name__}")
    check_picture(op, image)
    checks.check_flag(op, "multi_channel", multi_channel)
    size = (image.shape[2], image.shape[3])
    checks.check_mask(op, "hole", hole, image.shape[0], size, image.device)
    missing = checks.binary(op, "hole", hole).expand(image.shape[0], 1, *size)
    found: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(partial(_note, found, name))
        for name, module in model.named_modules()
    ]
    training = model.training
    model.eval()
    try:
        if isinstance(model, InpaintingModel):
            model.completed(image, missing)
        else:
            known = (~missing).to(image.dtype)
            model(
                torch.where(missing, 0.0, image),
                known.expand_as(image) if multi_channel else known,
            )
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError(
            f"{op}: model must have layers that return a mask, got none in "
            f"{type(model).__name__}; PartialConv2d does with return_mask=True"
        )
    return found


def _note(found: dict[str, Tensor], name: str, _: nn.Module, __: Any, result: Any) -> None:
    """Keep the mask that a layer returned beside its result."""
    if not (isinstance(result, tuple) and len(result) == 2):
        return
    y, valid = result
    if not (isinstance(y, Tensor) and isinstance(valid, Tensor) and y.dim() == valid.dim() == 4):
        return
    if y.shape[2:] != valid.shape[2:]:
        return
    mask = valid.detach().float().cpu()
    if not bool(((mask >= 0) & (mask <= 1)).all()):  # another kind of map
        return
    # A block ends with the mask of its convolution, and a network with that of its last layer.
    inside = [other for other in found if name == "" or other.startswith(f"{name}.")]
    if inside and torch.equal(found[inside[-1]], mask):
        return
    found[name] = mask.clone()


def mask_updates(masks: Mapping[str, Tensor], *, sample: int = 0, side: int = 128) -> Picture:
    """Draw masks side by side: white where they are 1, black where they are 0.

    Args:
        masks: (N or 1, 1 or C, h, w) in [0, 1] by name, as from `updated_masks`; of several
            channels the mean is shown. They are shown in this order, in rows of eight at most.
        sample: of the batch.
        side: height of each in the picture, pixels; nearest values, nothing is smoothed.

    Returns:
        A PIL image with a grey gap of 2 pixels between masks.

    Raises:
        ImportError: Pillow is not installed; the extra is named.
        TypeError, ValueError: wrong type, shape, range or option.
    """
    op = "mask_updates"
    if not isinstance(masks, Mapping) or not masks:
        raise TypeError(f"{op}: masks must be tensors by name, got {type(masks).__name__}")
    checks.check_int(op, "sample", sample, 0)
    checks.check_int(op, "side", side)
    pictures = []
    for name, mask in masks.items():
        if not isinstance(mask, Tensor) or mask.dim() != 4 or 0 in mask.shape:
            got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
            raise ValueError(f"{op}: {name} must have shape (N, C, h, w) with pixels, got {got}")
        values = mask.detach().cpu().float()
        if not bool(((values >= 0) & (values <= 1)).all()):
            raise ValueError(f"{op}: {name} must be in [0, 1]")
        one = values[min(sample, len(values) - 1) :][:1].mean(1, keepdim=True)
        pictures.append(F.interpolate(one, size=_size(one, side))[0])
    width = max(picture.shape[2] for picture in pictures)
    panels = [F.pad(rgb(p[None])[0], (0, width - p.shape[2]), value=_GROUND) for p in pictures]
    return sheet(panels, min(8, len(panels)), _GROUND)


def _size(mask: Tensor, side: int) -> tuple[int, int]:
    return side, max(1, round(side * mask.shape[3] / mask.shape[2]))
