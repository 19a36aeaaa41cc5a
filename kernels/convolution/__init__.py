"""Kernels of the convolutions, in the order in which data passes.

* `layer`: forward and backward of fused_conv2d and gated_conv2d; the transposed and the partial
  convolution have their own in ``kernels/<op>.py``.
* `choose`: the fused kernel or the library, layer by layer.
* `fused` launches `fused_kernel` in a row of `fused_rows`; `load` finds the pixels that it reads,
  `phases` turns doubled images and transposed convolutions into small ones.
* `epilogue`, `epilogue_backward`: the elementwise pass after the library's product, and back.
* `mask_planes`: updated mask and mask ratio where the fused kernel does not form them.
* `activation`: activations and their derivatives.
"""
