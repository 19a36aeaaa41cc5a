"""MSNPS: a content network's prediction, then neural patch synthesis at several scales."""

from inpaint_ops.models.msnps.model import MSNPS

__all__ = ["MSNPS"]
