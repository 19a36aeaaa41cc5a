"""Measuring: from a case to times, memory and errors.

- `case`: the types that a file of cases gives.
- `runner`: checks the contestants of a case, then times them.
- `timing`: rounds in which the contestants take turns.
- `memory`, `once`: one call in a process of its own, for peak memory and for very long cases.
- `accuracy`: errors against float64.
- `machine`: name, rates and load of the machine.
"""
