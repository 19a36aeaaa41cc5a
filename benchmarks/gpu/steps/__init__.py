"""Steps of the check on a GPU, each in a process of its own, in this order.

* `right`: every operator against float64.
* `warm`: the kernels that the later steps run, compiled by many processes.
* `tuning`: the fastest row of the fused convolution, and who multiplies faster, by shape.
* `layers`: every convolution of the methods against cuDNN.
* `matching`: the operators that compare positions, against the public formulas.
* `networks`: the ten methods end to end, their training steps, and replayed graphs.
* `compiled`: layers and networks against torch.compile, last since compiling takes longest.

`task` has the types of a step and the table of the steps; `problems` and `stage` the calls of
`right`, `contestants` those of `layers`.
"""
