"""Computation of those pixels alone that a hole needs.

A network's result is used in the hole only, so of each layer only those pixels have to be computed
that reach it. In the order in which things happen: `lazy_tensor` (a tensor whose operators are
noted), `step` (a noted call), `needs` (which pixels each operator needs for which), `compute`
(needs backwards, then the noted calls). What the hole gets is bit for bit what it gets where all
pixels are computed.
"""

from inpaint_ops.needed.lazy_tensor import computed, lazy, saves

__all__ = ["computed", "lazy", "saves"]
