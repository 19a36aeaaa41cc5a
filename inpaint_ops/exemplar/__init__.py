"""The training-free filler, in the order a picture passes.

`fill` checks the arguments and divides the work. `scatter` estimates scattered missing pixels.
`levels` makes the coarser sizes and their first fillings. `search` finds the nearest patches,
`vote` makes pixels of them, and `blend` removes seams. `chebyshev` solves the linear systems of
`scatter` and `blend`.
"""

from inpaint_ops.exemplar.fill import fill_exemplar

__all__ = ["fill_exemplar"]
