"""gated_conv2d on GPUs: `convolution.layer` with the second half of the filters as gates."""

from functools import partial

from inpaint_ops.kernels.convolution import layer

forward = partial(layer.forward, gated=True)
backward = partial(layer.backward, gated=True)
