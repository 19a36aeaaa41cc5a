"""fused_conv2d over the plain convolutions of the ten methods."""

from inpaint_ops.benchmarks.cases.conv_problems import cases, setup

CASES = cases("fused_conv2d", "fused")

__all__ = ["CASES", "setup"]
