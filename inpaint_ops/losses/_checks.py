"""Argument checks shared by the losses."""

import torch
from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.ops import tensors


def pair(loss: str, prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Check two floating tensors of one shape and device; return them in float32 at least."""
    for name, x in (("prediction", prediction), ("target", target)):
        floating(loss, name, x)
    if prediction.shape != target.shape:
        raise ValueError(
            f"{loss}: target must have the shape {tuple(prediction.shape)} of prediction, got "
            f"{tuple(target.shape)}"
        )
    if prediction.device != target.device:
        raise ValueError(f"{loss}: target must be on {prediction.device}, got {target.device}")
    return tensors.compute_dtype(prediction), tensors.compute_dtype(target)


def floating(loss: str, name: str, x: Tensor) -> None:
    """Check a floating tensor."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{loss}: {name} must be a Tensor, got {type(x).__name__}")
    if x.dtype not in checks.FLOAT_DTYPES:
        raise TypeError(f"{loss}: {name} must be floating, got {x.dtype}")


def image(loss: str, name: str, x: Tensor) -> Tensor:
    """Check an (N, C, H, W) floating tensor; return it in float32 at least."""
    checks.check_image(loss, name, x)
    return tensors.compute_dtype(x)


def spread(loss: str, name: str, mask: Tensor, like: Tensor) -> Tensor:
    """Return a mask or weight in the dtype of `like`, expanded to its shape."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"{loss}: {name} must be a Tensor, got {type(mask).__name__}")
    if mask.dtype not in checks.MASK_DTYPES:
        raise TypeError(f"{loss}: {name} must be bool, uint8 or floating, got {mask.dtype}")
    try:
        return mask.to(like.dtype).expand_as(like)
    except RuntimeError:
        raise ValueError(
            f"{loss}: {name} must expand to {tuple(like.shape)}, got {tuple(mask.shape)}"
        ) from None


def selected(x: Tensor, mask: Tensor) -> Tensor:
    """Return x where the mask is not zero, else 0; a product with 0 would keep NaN."""
    return torch.where(mask != 0, x, x.new_zeros(()))
