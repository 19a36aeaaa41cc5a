"""Triton kernels for CUDA and ROCm devices, one file an operator; imported when first needed.

Every kernel is a `launch.Kernel`: a jitted function with the closed table of the configurations it
may be launched in. The same table is compiled ahead of time, without a GPU, by
``inpaint_ops.benchmarks.gpu.compile``, which holds each row to its budget of registers, shared
memory and instructions; so nothing runs that was not budgeted. `launch` tells how a kernel is
declared, `tune` how a row is chosen by measurement on a GPU.
"""
