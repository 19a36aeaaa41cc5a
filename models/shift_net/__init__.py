"""Shift-Net: a U-Net that moves known features into the hole."""

from inpaint_ops.models.shift_net.model import ShiftNet

__all__ = ["ShiftNet"]
