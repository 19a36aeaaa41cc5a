"""Computation of those pixels alone that a hole needs.

A network's result is used in the hole only, so of each layer only those pixels have to be computed
that reach it. In the order in which things happen: `lazy` (a tensor that notes the operators called
on it), `needs` (which pixels each operator needs for which), `steps` (needs backwards, then the
noted steps). What the hole gets is bit for bit what a whole computation gives it.
"""

from inpaint_ops.needed.lazy import lazy
from inpaint_ops.needed.steps import computed, saves

__all__ = ["computed", "lazy", "saves"]
