"""fused_conv_transpose2d over the transposed convolutions of the ten methods."""

from inpaint_ops.benchmarks.cases.conv_problems import cases, setup

CASES = cases("fused_conv_transpose2d", "transposed")

__all__ = ["CASES", "setup"]
