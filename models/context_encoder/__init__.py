"""Context Encoder: a picture's missing part from its surroundings, by L2 and an adversary."""

from inpaint_ops.models.context_encoder.model import ContextEncoder

__all__ = ["ContextEncoder"]
