"""Checks, compilation and predictions of the GPU kernels.

* `compile`: every row of every kernel ahead of time, without a GPU, against budget*.json.
* `check`: ten minutes on a GPU, step by step; `run_from_tree` runs it where nothing is installed.
  `worker` is the process of a step of `steps`, `store` its results, `page` the report.
* `goldens`: numbers of the public implementations.
* `host`: time of a call on the host, without a GPU; `stand_in` takes the place of its driver.
* `roofline`: speed-ups predicted from data sheets, by the counts of `costs` and `matchings` and the
  `loops` of the machine code.
"""
