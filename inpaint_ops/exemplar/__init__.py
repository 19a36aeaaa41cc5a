"""The training-free filler, in the order a picture passes.

`fill` checks and divides the work; `scatter` estimates single missing pixels; `levels` makes the
coarser sizes; `search` finds nearest patches; `vote` makes pixels of them; `blend` evens out seams.
"""

from inpaint_ops.exemplar.fill import fill_exemplar

__all__ = ["fill_exemplar"]
