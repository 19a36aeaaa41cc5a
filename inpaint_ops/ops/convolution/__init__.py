"""What the convolution operators share: geometry, formulas, calls of the CPU kernels."""
