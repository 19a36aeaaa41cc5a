"""Engines that read a network from a file.

An engine is made of a folder with ``model.onnx``, a number of threads and one of its settings.
`run` computes, from inputs that were given beforehand, and `outcome` returns what it computed. The
time of a call leaves out what a program would do once, and copies into and out of an engine's own
arrays.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

MODEL = "model.onnx"


class RefusedError(Exception):
    """An engine cannot run this network; the text says why."""


class Engine(Protocol):
    """A network in an engine, ready to run."""

    def run(self) -> None:
        """Compute the result once."""

    def outcome(self) -> Array:
        """Return the first result of the last run."""


@runtime_checkable
class Judged(Protocol):
    """An engine that knows the case."""

    def wrong(self) -> str | None:
        """Return the reason to refuse the result of the last run, or None."""


class OnnxRuntime:
    """ONNX Runtime's provider for the CPU."""

    def __init__(
        self, folder: Path, inputs: Sequence[Array], threads: int, options: Mapping[str, Any]
    ) -> None:
        import onnxruntime

        wanted = onnxruntime.SessionOptions()
        wanted.intra_op_num_threads = threads
        wanted.inter_op_num_threads = 1
        wanted.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(folder / MODEL), wanted, providers=["CPUExecutionProvider"]
        )
        names = [entry.name for entry in self._session.get_inputs()]
        self._feed = dict(zip(names, inputs))

    def run(self) -> None:
        self._result = self._session.run(None, self._feed)

    def outcome(self) -> Array:
        result: Array = self._result[0]
        return result


class OpenVino:
    """OpenVINO's plugin for the CPU.

    It computes in bfloat16 by itself on processors that have it.
    """

    def __init__(
        self, folder: Path, inputs: Sequence[Array], threads: int, options: Mapping[str, Any]
    ) -> None:
        # Its plugin finds the instruction sets itself, and fails where oneDNN must not take them.
        os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
        import openvino

        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "PERFORMANCE_HINT": "LATENCY",
            # Bound to a processor it would wait there for whoever else has it.
            "ENABLE_CPU_PINNING": False,
            **options,
        }
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(folder / MODEL), "CPU", settings)
        self._request = compiled.create_infer_request()
        for number, array in enumerate(inputs):
            self._request.set_input_tensor(number, openvino.Tensor(array, shared_memory=True))
        self._inputs = inputs

    def run(self) -> None:
        self._request.infer()

    def outcome(self) -> Array:
        result: Array = self._request.get_output_tensor(0).data.copy()
        return result


class Ncnn:
    """ncnn, from the file that its converter pnnx makes of ONNX."""

    def __init__(
        self, folder: Path, inputs: Sequence[Array], threads: int, options: Mapping[str, Any]
    ) -> None:
        import ncnn

        if any(x.shape[0] != 1 for x in inputs):
            raise RefusedError("ncnn has no batches")
        param = folder / "model.ncnn.param"
        if not param.exists():
            _convert_ncnn(folder)
        if not param.exists() or "pnnx." in param.read_text(encoding="utf-8"):
            raise RefusedError("pnnx does not convert every operator")
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads
        for name, value in options.items():
            setattr(self._net.opt, name, value)
        if self._net.load_param(str(param)) or self._net.load_model(str(param.with_suffix(".bin"))):
            raise RefusedError("ncnn does not load what pnnx wrote")
        self._inputs = [ncnn.Mat(np.ascontiguousarray(x[0])).clone() for x in inputs]

    def run(self) -> None:
        with self._net.create_extractor() as extractor:
            for number, mat in enumerate(self._inputs):
                extractor.input(f"in{number}", mat)
            failed, self._result = extractor.extract("out0")
        if failed:
            raise RefusedError(f"ncnn returns {failed}")

    def outcome(self) -> Array:
        return np.array(self._result)[None]


def _convert_ncnn(folder: Path) -> None:
    import pnnx

    command = [pnnx.EXEC_PATH, MODEL, "fp16=0"]
    done = subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=300)
    if done.returncode:
        raise RefusedError(f"pnnx ends with {done.returncode}")


class Mnn:
    """MNN, from the file that its converter makes of ONNX."""

    def __init__(
        self, folder: Path, inputs: Sequence[Array], threads: int, options: Mapping[str, Any]
    ) -> None:
        import MNN

        converted = folder / "model.mnn"
        if not converted.exists():
            _convert_mnn(folder / MODEL, converted)
        if not converted.exists():
            raise RefusedError("MNN's converter refuses it")
        runtime = MNN.nn.create_runtime_manager(({"numThread": threads, "backend": "CPU"},))
        for hint, value in options.items():
            runtime.set_hint(int(hint), value)
        names = _input_names(folder)
        self._network = MNN.nn.load_module_from_file(
            str(converted), names, [], runtime_manager=runtime
        )
        self._inputs = [MNN.expr.const(x, list(x.shape), MNN.expr.NCHW) for x in inputs]

    def run(self) -> None:
        self._result = self._network.forward(self._inputs)

    def outcome(self) -> Array:
        return np.array(self._result[0].read(), np.float32)


def _input_names(folder: Path) -> list[str]:
    import onnx

    model = onnx.load(folder / MODEL, load_external_data=False)
    return [entry.name for entry in model.graph.input]


def _convert_mnn(source: Path, target: Path) -> None:
    # The package MNN.tools, which wraps this module, installs a package by itself when it is
    # imported, and reports each conversion to a server.
    import _tools

    command = ["mnnconvert", "-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(target)]
    before = Path.cwd()
    # It leaves a file of its own in the working directory.
    os.chdir(target.parent)
    try:
        _tools.mnnconvert([*command, "--bizCode", "benchmark"])
    finally:
        os.chdir(before)
