"""Kernels of contextual attention and of the ID-MRF loss, on strips of scores.

Contextual attention, in the order in which data passes: `cells` (pixels to cells and back), `grid`
(lines and columns of strips, and neighbours), `strips`, `samples` (what the strips share), `steps`
(the launches), `scores`, `softmax`, `corners`; backward `softmax_backward`, `stencils`.
The ID-MRF loss: `cosines` (parts of its kernels), `similarities`, `similarities_backward`.
"""
