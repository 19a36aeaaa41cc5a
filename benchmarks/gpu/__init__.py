"""Checks, compilation and predictions of the GPU kernels.

* `compile`: every row of every kernel ahead of time, without a GPU, against budget.json.
* `check`: correctness and times on a GPU; `goldens`: numbers of the public implementations.
* `tune`: the fastest row of each kernel on a GPU, over the problems of `tune_problems`.
* `host`: time of a call on the host, without a GPU; `stand_in` takes the place of its driver.
* `roofline`: speed-ups predicted from data sheets.
"""
