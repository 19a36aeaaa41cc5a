"""The convolutions: what their public operators and the CPU's kernels have between them.

In the order a call meets them: `spec` (geometry, checks, memory of results), `operator`
(`fused_conv2d` and `gated_conv2d` for each device), `cpu` (calls of the kernels), `plan` (the
algorithm and all else that shapes decide, made once), `packed_weights` (weights as the kernels read
them), `cpu_backward` (gradients). `formulas` is all of it in plain
PyTorch. The masks of partial convolution are in `partial_cpu` and `partial_formulas`.
"""
