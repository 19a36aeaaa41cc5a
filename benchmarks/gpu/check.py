"""Check on a GPU that the operators are right there, and measure how fast they are.

``make gpu-check`` runs every operator on the device, forward and backward, in float32, float16 and
bfloat16, against the float64 judge of its benchmark. It replays the public implementations' numbers
if the checkout has them. It times each case against the public formula, eager and under
torch.compile (default and max-autotune), and writes the benchmark report, ``gpu.json`` and
``gpu.html``. Cases for which the time limit leaves no time are listed as not run. On the CPU
(``--device cpu``) it rehearses itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inpaint_ops.atomic import write_atomically
from inpaint_ops.benchmarks.gpu import goldens
from inpaint_ops.benchmarks.gpu.roofline import DEVICES
from inpaint_ops.benchmarks.harness import machine
from inpaint_ops.benchmarks.harness.case import Case, Missing, Problem, Unavailable, load
from inpaint_ops.benchmarks.harness.machine import Peaks
from inpaint_ops.benchmarks.harness.runner import EAGER, OURS, Result, run_case
from inpaint_ops.benchmarks.report import page
from inpaint_ops.benchmarks.report.report import Report, ratio_text
from inpaint_ops.ops import native

OPS = (
    "gated_conv2d",
    "partial_conv2d",
    "fused_conv2d",
    "fused_conv_transpose2d",
    "contextual_attention",
    "shift_connection",
    "nearest_patch",
    "id_mrf_loss",
    "channelwise_linear",
)
# Largest error relative to the largest value, as in the project's tests, for sums of 64 terms; the
# gates and the softmax pass rounding errors on.
_HALF_TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
_SLACK = 8.0


def on_device(
    problem: Problem, device: torch.device, dtype: torch.dtype = torch.float32
) -> Problem:
    """Return the problem with its inputs on a device; the public formula gets contiguous ones."""

    def moved(value: Any, contiguous: bool) -> Any:
        if not isinstance(value, Tensor):
            return value
        result = value.detach().to(device)
        if result.is_floating_point():
            result = result.to(dtype)
        if contiguous:
            result = result.contiguous()
        return result.requires_grad_(value.requires_grad)

    inputs = tuple(moved(value, False) for value in problem.inputs)
    contiguous = {id(x): moved(y, True) for x, y in zip(inputs, problem.inputs)}

    def on_contiguous(implementation: Callable[..., Any]) -> Callable[..., Any]:
        if problem.gradient is not None:
            return implementation  # gradients are taken of the inputs themselves
        return lambda *given: implementation(*(contiguous.get(id(x), x) for x in given))

    def check(outcome: Any) -> str | None:
        return problem.check(_to_cpu(outcome))

    implementations = {
        name: one if isinstance(one, Missing) or name == OURS else on_contiguous(one)
        for name, one in problem.implementations.items()
    }
    gradient = None if problem.gradient is None else moved(problem.gradient, False)
    # Without errors in multiples of eager's: cuDNN has algorithms and rounding of its own.
    return replace(
        problem,
        inputs=inputs,
        implementations=implementations,
        check=check,
        gradient=gradient,
        errors=None,
    )


def _to_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return value.float() if value.dtype in _HALF_TOLERANCE else value
    if isinstance(value, (tuple, list)):
        return tuple(_to_cpu(one) for one in value)
    return value


def half_error(problem: Problem, device: torch.device, dtype: torch.dtype) -> str | None:
    """Sentence on the error of ours in half precision against ours in float32 there, or None."""
    ours = problem.implementations[OURS]
    assert not isinstance(ours, Missing)
    results = []
    for one in (torch.float32, dtype):
        # Both see numbers that half precision can hold.
        rounded = replace(
            problem,
            inputs=tuple(
                x.detach().to(dtype).to(x.dtype).requires_grad_(x.requires_grad)
                if isinstance(x, Tensor) and x.is_floating_point()
                else x
                for x in problem.inputs
            ),
        )
        there = on_device(rounded, device, one)
        results.append([x for x in _flat(_to_cpu(there.run(ours))) if x.is_floating_point()])
    for exact, got in zip(*results):
        scale = max(exact.abs().max().item(), 1e-6) if exact.numel() else 1.0
        error = (got - exact).abs().max().item() / scale if exact.numel() else 0.0
        allowed = _HALF_TOLERANCE[dtype] * _SLACK
        if not error <= allowed:
            return (
                f"{str(dtype).removeprefix('torch.')} is off by {error:.2g}, allowed {allowed:.2g}"
            )
    return None


def _flat(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for one in value:
            yield from _flat(one)


def peaks_of(device: torch.device) -> Peaks:
    """Rates in float32 without TF32: of the data sheet, or measured on other devices."""
    if device.type == "cpu":
        return machine.measure_peaks(1, seconds=0.1)
    name = torch.cuda.get_device_name(device)
    for known in DEVICES:
        if known.name.split()[0] in name:
            return Peaks(1, known.fp32 / 1e9, "data sheet", known.memory / 1e9)
    size = 4096
    a = torch.rand(size, size, device=device)
    source = torch.empty(2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    product = _seconds(lambda: torch.mm(a, a))
    copy = _seconds(lambda: target.copy_(source))
    return Peaks(1, 2 * size**3 / product / 1e9, "torch.mm", 2 * 2**28 / copy / 1e9)


def _seconds(call: Callable[[], Any]) -> float:
    best = float("inf")
    for _ in range(5):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        call()
        torch.cuda.synchronize()
        best = min(best, time.perf_counter() - begun)
    return best


def environment(device: torch.device) -> dict[str, Any]:
    """Facts about the machine, as in the benchmarks, and about the device."""
    facts = machine.environment()
    if device.type != "cpu":
        properties = torch.cuda.get_device_properties(device)
        facts["gpu"] = properties.name
        facts["gpu_memory_gb"] = round(properties.total_memory / 1e9, 1)
        facts["gpu_processors"] = properties.multi_processor_count
        facts["cuda"] = torch.version.cuda or torch.version.hip
        facts["cudnn"] = torch.backends.cudnn.version()
        facts["tf32"] = torch.backends.cuda.matmul.allow_tf32
    facts["extension"] = native.status().available
    return facts


def _cases(ops: Sequence[str], quick: bool) -> list[Case]:
    """Cases to run, promised and short ones first: a time limit then cuts off the others."""
    cases = [case for op in ops for case in load(op).CASES if case.quick or not quick]
    return sorted(cases, key=lambda case: not case.quick)


def _tuned(problem: Problem) -> Problem:
    eager = problem.implementations.get(EAGER)
    if eager is None or isinstance(eager, Missing):
        return problem
    tuned = torch.compile(eager, dynamic=False, mode="max-autotune-no-cudagraphs")
    return replace(problem, implementations={**problem.implementations, "max-autotune": tuned})


def check_case(
    case: Case, device: torch.device, peaks: Peaks, *, seconds: float, compiled: bool
) -> Result:
    """Check one case in three dtypes and time it in float32."""
    problem = load(case.op).setup(case)

    def setup(_: Case) -> Problem:
        there = on_device(problem, device)
        return _tuned(there) if compiled else there

    settle = None if device.type == "cpu" else partial(torch.cuda.synchronize, device)
    (result,) = run_case(
        case, setup, {1: peaks}, seconds=seconds, with_compile=compiled, settle=settle
    )
    if case.quick and case.op != "nearest_patch":
        for dtype in _HALF_TOLERANCE:
            wrong = half_error(problem, device, dtype)
            if wrong is not None:
                result.entries[OURS].status, result.entries[OURS].detail = "wrong", wrong
    return result


@contextmanager
def exact_float32() -> Iterator[None]:
    """Forbid TF32 in convolutions, which torch allows: the checks' bounds are those of float32."""
    conv = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    before = conv.fp32_precision
    conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        conv.fp32_precision = before


@exact_float32()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; return 0, 1 if something was wrong, 2 for wrong usage or no device."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--device", default="cuda", help="default: cuda")
    parser.add_argument("--ops", default=",".join(OPS), help="comma-separated; default: all")
    parser.add_argument("--minutes", type=float, default=7.5, help="time limit; default: 7.5")
    parser.add_argument("--seconds", type=float, default=0.3, help="timing of one case")
    parser.add_argument("--quick", action="store_true", help="promised and short cases only")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--goldens", type=Path, default=goldens.FOLDER)
    parser.add_argument("--out", type=Path, default=Path("reports"))
    options = parser.parse_args(arguments)
    ops = options.ops.split(",")
    if not set(ops) <= set(OPS):
        parser.error(f"--ops must be of {', '.join(OPS)}, got {options.ops}")
    device = torch.device(options.device)
    if device.type != "cpu" and not torch.cuda.is_available():
        print("gpu-check: this PyTorch sees no GPU (torch.cuda.is_available() is False)")
        return 2
    report = Report(environment(device), vars(options) | {"out": str(options.out)})
    report.settings["goldens"] = str(options.goldens.name)
    report.peaks[1] = peaks_of(device)
    ends = time.monotonic() + 60 * options.minutes
    wrong = []
    for name, error in goldens.replay(options.goldens, device, ops):
        print(f"golden {name}: {error or 'equal'}")
        if error is not None:
            wrong.append(f"golden {name}: {error}")
    for case in _cases(ops, options.quick):
        if time.monotonic() > ends:
            report.skipped.append((case.op, case.id, "no time left"))
            continue
        # Compiling takes longer than everything else: for the cases that stand for their kind.
        compiled = case.compile and case.quick and not options.no_compile
        try:
            result = check_case(
                case, device, report.peaks[1], seconds=options.seconds, compiled=compiled
            )
        except (Unavailable, torch.OutOfMemoryError) as reason:
            report.skipped.append((case.op, case.id, str(reason).partition("\n")[0]))
            continue
        report.results.append(result)
        ratios = ", ".join(
            f"{name} {ratio_text(ratio[0])}"
            for name in result.entries
            if name != OURS and (ratio := result.ratio(name)) is not None
        )
        reached = result.floor_reached(OURS)
        floor = "" if reached is None else f"; {100 * reached:.0f} % of the roofline"
        print(f"{case.op} {case.id}: {result.entries[OURS].status}; {ratios}{floor}", flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, text in (("gpu.json", report.to_json()), ("gpu.html", page.render(report))):
        with write_atomically(options.out / name) as stream:
            stream.write(text.encode())
        print(options.out / name)
    failures = wrong + report.failures()
    for line in failures:
        print(f"FAILED {line}")
    print(f"{len(report.results)} cases, {len(report.skipped)} not run, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
