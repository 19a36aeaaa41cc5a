"""Other engines that a user could run a network with, each in a process of its own.

- `engines`: those that read a file, ONNX Runtime, OpenVINO, ncnn and MNN; `torch_engines`: those in
  PyTorch, its compiler, its other layout, and ours.
- `worker`: the process of an engine; `remote`: that process seen from the benchmark.
- `invite`: the engines as contestants of a case, each at an accuracy like ours and at its own.
"""
