"""Differential fuzzer of all operators and layers against their float64 reference.

A case is a dictionary of plain values, drawn from a seed and a number: sizes, options, layouts and
kinds of values, instruction set, threads, backend. `replay` builds its tensors, calls the operator,
and raises `Failure` if a result is not what the reference says within a bound on rounding errors,
or if a promise about bits, inputs or errors is broken. `python -m fuzz` (``make fuzz``) runs many
cases in child processes and shrinks what fails.
"""

from fuzz.case import Failure, replay

__all__ = ["Failure", "replay"]
