"""Faults put into the kernels on purpose, to see whether the fuzzer and the tests find them."""
