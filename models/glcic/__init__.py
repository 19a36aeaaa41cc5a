"""GLCIC: globally and locally consistent image completion."""

from inpaint_ops.models.glcic.model import GLCIC

__all__ = ["GLCIC"]
