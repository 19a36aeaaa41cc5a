"""DeepFill v2: free-form inpainting with gated convolution."""

from inpaint_ops.models.deepfill_v2.model import DeepFillV2

__all__ = ["DeepFillV2"]
