"""Facts about this installation: its parts, and reasons for missing ones.

``inpaint-ops doctor`` prints them; ``python -m inpaint_ops.doctor`` does without the extra "cli".
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from inpaint_ops import program

# Optional dependencies of the package by extra, as distribution names.
EXTRAS = {
    "image": ("pillow",),
    "blend": ("scipy",),
    "edges": ("scikit-image",),
    "models": ("safetensors",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "cli": ("click", "rich", "pillow"),
    "bench": ("matplotlib", "pytest-benchmark", "rich"),
    "triton": ("triton",),
    "train": ("accelerate", "tensorboard", "rich", "safetensors", "pillow"),
    "evaluate": ("torchmetrics", "pillow"),
    "fillers": ("opencv-python-headless", "scikit-image", "pypatchmatch"),
    "ray": ("ray", "pillow"),
    "peers": ("onnx", "onnxscript", "onnxruntime", "openvino", "ncnn", "pnnx", "mnn"),
}


def collect() -> dict[str, Any]:
    """Return the facts about the installation and the machine, ready for JSON.

    Returns:
        Sections "versions", "machine", "extension", "backends", "convolutions" (the algorithm that
        sums each kind of layer on the CPU), "cuda", "gpu_kernels" and "extras". A section that
        could not be read is None. Section "broken" has a line for each of those, and one for an
        extension that was built and does not load.
    """
    facts: dict[str, Any] = {}
    broken: list[str] = []
    sections: dict[str, Callable[[], Any]] = {
        "versions": _versions,
        "machine": _machine,
        "extension": _extension,
        "backends": backends,
        "convolutions": _convolutions,
        "cuda": _cuda,
        "gpu_kernels": _gpu_kernels,
        "extras": _extras,
    }
    for name, section in sections.items():
        try:
            facts[name] = section()
        except Exception as exc:
            facts[name] = None
            broken.append(f"{name}: {type(exc).__name__}: {exc}")
    extension = facts["extension"]
    switched_off = bool(os.environ.get("INPAINT_OPS_DISABLE_EXTENSION"))
    if extension and extension["built"] and not (extension["available"] or switched_off):
        broken.append(f"extension: built but not loaded: {extension['error']}")
    facts["broken"] = broken
    return facts


def render(facts: dict[str, Any]) -> str:
    """Return the facts of `collect` as text for a terminal."""
    lines: list[str] = []
    for name, version in (facts["versions"] or {}).items():
        lines.append(_row(name, version or "not installed"))
    machine = facts["machine"]
    if machine:
        lines += [
            _row("platform", machine["platform"]),
            _row("CPU", f"{machine['cpu']} ({machine['cores']} cores usable)"),
            _row("torch threads", machine["torch_threads"]),
        ]
    lines.append(_row("CUDA devices", ", ".join(facts["cuda"] or []) or "none"))
    lines.append(_row("GPU kernels", facts["gpu_kernels"]))
    extension = facts["extension"]
    if extension and extension["available"]:
        sets = extension["instruction_sets"]
        others = f"of {', '.join(sets)}" if len(sets) > 1 else "no other here"
        openmp = "with" if extension["openmp"] else "without"
        lines.append(
            _row("extension", f"{extension['instruction_set']} ({others}), {openmp} OpenMP")
        )
    elif extension:
        lines.append(_row("extension", f"not loaded: {extension['error']}"))
    lines += ["", "Operators"]
    for name, devices in (facts["backends"] or {}).items():
        served = ", ".join(f"{device}: {text}" for device, text in devices.items())
        lines.append(_row(f"  {name}", served))
    if facts["convolutions"]:
        lines += ["", "Convolutions on the CPU (batch 1)"]
        lines += [_row(f"  {kind}", name, 48) for kind, name in facts["convolutions"].items()]
    lines += ["", "Extras"]
    for name, extra in (facts["extras"] or {}).items():
        missing = ", ".join(extra["missing"])
        text = f"missing {missing}: {extra['install']}" if missing else "present"
        lines.append(_row(f"  {name}", text))
    if facts["broken"]:
        lines += ["", "Broken", *(f"  {line}" for line in facts["broken"])]
    return "\n".join(lines)


def _row(name: str, value: object, width: int = 26) -> str:
    return f"{name:<{width}} {value}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _versions() -> dict[str, str | None]:
    import torch

    names = ("numpy", "pillow", "click", "rich", "triton")
    return {
        "inpaint-ops": _version("inpaint-ops"),
        "python": platform.python_version(),
        # The distribution's version lacks the local part (+cpu, +cu130) in some builds.
        "torch": str(torch.__version__),
        **{name: _version(name) for name in names},
    }


def _machine() -> dict[str, Any]:
    import torch

    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": cores,
        "torch_threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def _extension() -> dict[str, Any]:
    from inpaint_ops.ops import native as extension

    status = extension.status()
    return {
        "available": status.available,
        "built": importlib.util.find_spec("inpaint_ops._C") is not None,
        "error": status.error,
        "instruction_set": status.instruction_set,
        "instruction_sets": list(status.instruction_sets),
        "openmp": status.openmp,
    }


def backends() -> dict[str, dict[str, str]]:
    """Return the implementation that serves each operator on each type of device.

    Returns:
        Operator name to device type to text, e.g. ``{"nearest_patch": {"cpu": "csrc (avx2)"}}``.
    """
    from inpaint_ops.ops import native, triton
    from inpaint_ops.ops.dispatch import OPERATORS

    isa = native.status().instruction_set
    cpu = "reference" if isa is None else f"csrc ({isa})"
    reason = triton.missing()
    return {
        name: {
            "cpu": operator.library or cpu,
            "cuda": operator.library or _on_cuda(operator.cuda, reason),
            "other": operator.library or "reference",
        }
        for name, operator in sorted(OPERATORS.items())
    }


def _on_cuda(made_of: str | None, reason: str | None) -> str:
    if made_of is None:
        return "reference"
    return made_of if reason is None else f"{made_of} (error when called: {reason})"


def _convolutions() -> dict[str, str]:
    from inpaint_ops.ops import native as extension

    if not extension.status().available:
        return {}
    from inpaint_ops.ops.convolution.plan import Convolution, Shapes, choose
    from inpaint_ops.ops.convolution.spec import Geometry

    def plain(kernel: int, stride: int, channels: int, filters: int, size: int, up: int = 1) -> str:
        g = Geometry((stride, stride), ((kernel - 1) // 2,) * 4, (1, 1), upsample=up)
        weight = (filters, channels, kernel, kernel)
        return choose(Convolution(g), Shapes(1, (size, size), weight, (), in_place=True))

    def transposed(channels: int, filters: int, size: int) -> str:
        what = Convolution(Geometry((2, 2), (1, 1, 1, 1), (1, 1)), kind="transposed")
        return choose(what, Shapes(1, (size, size), (channels, filters, 4, 4), (), in_place=True))

    grouped = Convolution(Geometry((1, 1), (1, 1, 1, 1), (1, 1), groups=8))
    return {
        "1x1": plain(1, 1, 128, 128, 64),
        "3x3": plain(3, 1, 128, 128, 64),
        "3x3 after upsampling": plain(3, 1, 128, 128, 128, 2),
        "3x3 stride 2, 32 -> 64 channels at 128^2": plain(3, 2, 32, 64, 128),
        "3x3 stride 2, 128 -> 256 channels at 32^2": plain(3, 2, 128, 256, 32),
        "4x4 stride 2, 64 -> 128 channels at 64^2": plain(4, 2, 64, 128, 64),
        "4x4 stride 2, 512 -> 512 channels at 4^2": plain(4, 2, 512, 512, 4),
        "5x5": plain(5, 1, 128, 128, 64),
        "5x5 stride 2": plain(5, 2, 64, 128, 64),
        "7x7": plain(7, 1, 64, 64, 128),
        "7x7 to an image": plain(7, 1, 64, 3, 256),
        "transposed 4x4, 256 -> 128 channels at 64^2": transposed(256, 128, 64),
        "transposed 4x4, 1024 -> 512 channels at 4^2": transposed(1024, 512, 4),
        "grouped": choose(grouped, Shapes(1, (64, 64), (64, 8, 3, 3), ())),
    }


def _cuda() -> list[str]:
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]


def _gpu_kernels() -> str:
    from inpaint_ops.ops import triton

    return triton.status()


def _extras() -> dict[str, Any]:
    return {
        extra: {
            "missing": [name for name in distributions if _version(name) is None],
            "install": f"pip install 'inpaint-ops[{extra}]'",
        }
        for extra, distributions in EXTRAS.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the facts, for a report of a bug.

    Args:
        argv: arguments without the program's name; ``sys.argv[1:]`` if None.

    Returns:
        Exit code: 0, 1 if something is broken.
    """
    parser = argparse.ArgumentParser(
        prog="python -m inpaint_ops.doctor",
        description="Show versions, kernels, devices and extras, and why something is missing.",
    )
    parser.add_argument("--json", action="store_true", help="for programs")
    options = parser.parse_args(argv)
    facts = collect()
    with suppress(BrokenPipeError):  # head has read enough
        print(json.dumps(facts, indent=2) if options.json else render(facts))
    flushed = program.flush_output()
    return 1 if facts["broken"] or not flushed else 0


if __name__ == "__main__":
    sys.exit(main())
