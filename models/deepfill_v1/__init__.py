"""DeepFill v1: two stages of plain convolutions with contextual attention."""

from inpaint_ops.models.deepfill_v1.model import DeepFillV1

__all__ = ["DeepFillV1"]
