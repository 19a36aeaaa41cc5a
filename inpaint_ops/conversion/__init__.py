"""Replacement of what a model does with our kernels, in place, without an edit of the model.

In reading order: `record` (what a converted module keeps, and the change of its class), `chains`
(layers in a row as one call: fused and plain), `leaves` (convolutions and norms of torch.nn),
`attributes`, `tracing` (the data flow of a forward), `flow`, `steps`, `growth`, `gates`, `patterns`
(chains in that flow), `joins` (partial convolutions of several pictures), `layout` (stretches in
channels_last), `restart`, `containers` (modules whose forward runs its chains fused, and the
guards), `recognition`, `partial`, `attention`, `shift` (layers known by what they do to random
inputs), `installation` (which module becomes what), `verification`, `sample` (comparison and
timing), `report`, `converter` (the public functions).
"""

from inpaint_ops.conversion.converter import convert, revert
from inpaint_ops.conversion.report import Report, Row

__all__ = ["Report", "Row", "convert", "revert"]
