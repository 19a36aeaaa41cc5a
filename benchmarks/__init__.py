"""Benchmarks: fused operators against the public formulas, the compiler and the machine's floor."""
