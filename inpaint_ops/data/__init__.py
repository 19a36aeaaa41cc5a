"""Pictures and holes for training and evaluation, from folders, lists and shards.

The design. A data set is a list of pictures in a fixed order, found once: that list has a digest,
and every later choice is a number. Position p of a run is picture `order[p]` of epoch p // count;
its crop, flip and hole come from generators seeded by (seed, epoch, index). Nothing depends on the
worker that reads a picture or on what was read before. So a run is repeated by any number of
workers and processes, and continued from its count of pictures alone.

In the order a picture passes: `sources` finds the pictures of a folder, a list or a shard, with
`layouts` of known data sets and `shards` for tar files; `framing` resizes, crops and flips; `holes`
draws what is missing, or takes it from files; `samples` puts both together; `loading` makes batches
of them. `checking` reads every file and names the bad ones.
"""

from inpaint_ops.data.checking import Fault, check_pictures
from inpaint_ops.data.framing import Framing, Whole
from inpaint_ops.data.holes import DrawnHoles, HoleFiles, Holes
from inpaint_ops.data.loading import Batch, Order, Rows, batches
from inpaint_ops.data.samples import Sample, Samples
from inpaint_ops.data.sources import Picture, Pictures, find_pictures

__all__ = [
    "Batch",
    "DrawnHoles",
    "Fault",
    "Framing",
    "HoleFiles",
    "Holes",
    "Order",
    "Picture",
    "Pictures",
    "Rows",
    "Sample",
    "Samples",
    "Whole",
    "batches",
    "check_pictures",
    "find_pictures",
]
