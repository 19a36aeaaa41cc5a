"""Training of a method from a data set to its weights, in one process or many.

The design. A run is a pure function of its configuration and of its list of pictures. What a step
does depends on the weights, the optimisers and the number of the step alone: batches come by their
position (`inpaint_ops.data`), and every generator is seeded anew at each step. So a checkpoint is
weights, optimisers and two counts, and a run that was killed goes on to the same bits. The batch is
that of all processes and parts together, so that a recipe's numbers hold on any number of GPUs.

In reading order: `config` is what a user may choose, `values` reads and writes it as TOML; `plan`
makes the method, its data and its phases of it; `run_folder` is the folder that a run describes
itself in; `checkpoints` are in it, written whole or not at all; `processes` shares a step between
processes; `average` keeps the mean of the weights; `trainer` runs the phases; `board` draws curves
and pictures.
"""

from inpaint_ops.training.config import Config, read_config
from inpaint_ops.training.trainer import NonFiniteLossError, Progress, Stopped, train

__all__ = ["Config", "NonFiniteLossError", "Progress", "Stopped", "read_config", "train"]
