"""Checks, compilation and predictions of the GPU kernels."""
