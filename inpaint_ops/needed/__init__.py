"""Computation of those pixels alone that a hole needs.

A network's result is used in the hole only, so of each layer only those pixels have to be computed
that reach it. In the order in which things happen: `lazy_tensor` (a tensor whose operators are
noted), `step` (a noted call), `needs` (which pixels each operator needs for which), `compute`
(needs backwards, then the noted calls). What the hole gets is bit for bit what it gets where all
pixels are computed.

Where the hole changes and all else stays, `refill` keeps the results from one time to the next, and
`changes` says which of their pixels are right no longer.
"""

from inpaint_ops.needed.lazy_tensor import CannotBeNoted, computed, lazy, saves
from inpaint_ops.needed.refill import Memory, remembering

__all__ = ["CannotBeNoted", "Memory", "computed", "lazy", "remembering", "saves"]
