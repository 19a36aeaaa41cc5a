"""Kernels of contextual attention and of the ID-MRF loss, on strips of scores.

Contextual attention, in the order in which data passes: `cells` (pixels to cells and back),
`strips`, `samples` (what the strips share, and the launches), `stencils`, `softmax`, `corners`.
The ID-MRF loss: `cosines` (parts of its kernels), `similarities`, `similarities_backward`.
"""
