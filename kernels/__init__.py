"""Triton kernels for CUDA and ROCm devices, one file an operator; imported when first needed.

The package is a map in reading order:

* `launch`: a kernel is declared once, with the closed table of rows it may run in (`launch.Kernel`,
  `launch.Row`). ``inpaint_ops.benchmarks.gpu.compile`` compiles each row ahead of time, without a
  GPU, and holds it to a budget of registers, shared memory and instructions; so nothing runs that
  was not budgeted.
* `tables`: what was measured, on disk; `tuning` measures, by the clock of `stopwatch`; `tune` is
  the command for it.
* `program`: launch of what was compiled; `plans`: what options and shapes decide of a call, once.
* `dot`, `products`: matrix products inside a kernel, and those that the vendor's library forms.
* ``<op>``: `forward` and, where the operator has gradients, `backward`, with the arguments and
  results of the registered operator; ``inpaint_ops.ops.triton.kernels(op)`` finds them by name.
  The kernels of one operator alone are in its file, those of a family in the family's folder.
* `convolution`: fused, gated, transposed and partial convolutions.
* `attention`: contextual attention and the ID-MRF loss, on strips of scores.
* `matching`: the search of nearest_patch and shift_connection.

A kernel's docstring states its formula, what one program computes and the grid; the head of a file
says how memory is read and written.
"""
