"""Layers over the operators, drop-in for the public layers they name."""

from inpaint_ops.layers.shift_connection import GuidanceLoss, ShiftConnection, reduce_hole

__all__ = ["GuidanceLoss", "ShiftConnection", "reduce_hole"]
