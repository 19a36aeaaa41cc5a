"""Benchmarks: operators and methods against the public formulas, the compiler and the machine.

In the order of a run:

- `cases`: the problems, one file for each operator; a case is right or it is not timed.
- `harness`: checks, times, memory and errors of a case.
- `peers`: other engines that a user could take, each in a process of its own.
- `base`: ours at another commit.
- `report`: tables, plots and the page of a run.
- `options`: arguments of the command, and the cases that they mean.
- `main`: the command that ties them, ``python -m inpaint_ops.benchmarks``.
- `demo`, `demo_speed`: ``make demo``, pictures and a minute of these cases.
- `bulk`: many pictures, by the folder command, `InpaintBatch` and Ray Data.
- `learning`: proofs that the methods learn.
- `gpu`: checks, compilation and predictions of the GPU kernels.
"""
