"""`convert` and `revert`."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from inpaint_ops import checks
from inpaint_ops.conversion import (
    containers,
    leaves,
    recognition,
)
from inpaint_ops.conversion.chains import ALONE, prepare
from inpaint_ops.conversion.installation import install_all
from inpaint_ops.conversion.leaves import Observer, Watch
from inpaint_ops.conversion.record import (
    Record,
    converted_modules,
    record_of,
    uninstall,
)
from inpaint_ops.conversion.report import LEFT, Report, Row
from inpaint_ops.conversion.sample import (
    LAYER_TOLERANCE,
    LEAST_SPEED_UP,
    MODEL_TOLERANCE,
    Sample,
    model_difference,
    preserved,
    results,
    speed_up,
)
from inpaint_ops.conversion.verification import Verifier

# Relative, of a change of parameters that no model should be asked to tell from none.
_ROUNDING = 5e-7
_KEEP = ("faster", "equal")


def convert(model: nn.Module, sample: Any = None, *, keep: str = "faster") -> Report:
    """Let a model compute with our operators, in place, wherever they do the same.

    Recognised are nn.Conv2d and nn.ConvTranspose2d with the activation after them, with symmetric
    padding and nearest upsampling by 2 before them, nn.InstanceNorm2d with activation and residual,
    gated convolutions (one split in two, or two), partial convolutions, contextual attention and
    shift layers of public ports. docs/guides/convert.md has the rules. Parameters stay the same
    objects under the same keys of the state dict; hooks, spectral and weight norm, copies and
    pickles work as before. What is not recognised is left alone. `revert` takes all of it back.

    Each layer is compared with what it did before, on random inputs of a few pixels, or with
    `sample` on inputs of the shapes that it meets there, in results and gradients; a difference
    above 2e-4 of the largest value leaves it alone. With `sample` the whole model is compared and
    timed as well: all of it is left alone above 5e-3, unless a change of its parameters by 5e-7
    does a tenth of that too, and where it is not faster. What is timed is forward and backward for
    a model in training mode with parameters to train, else forward.

    Args:
        model: any module; one that is converted is reverted first.
        sample: input of the model, or a tuple or list of its arguments, or a dictionary of
            keyword arguments.
        keep: "faster": with a sample, layers that are not 1.02 times as fast are left alone;
            "equal": every layer that agrees is kept.

    Returns:
        What became of each layer, printable.

    Raises:
        TypeError: model is no module.
        ValueError: for another `keep`.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"convert: model must be an nn.Module, got {type(model).__name__}")
    checks.check_choice("convert", "keep", keep, _KEEP)
    revert(model)
    before = None if sample is None else Sample(model, sample)
    expected = None if before is None else before.results()
    try:
        left = install_all(model)
        with preserved(model):
            report = _verify(model, before, left, keep)
        if before is not None and expected is not None:
            _whole(before, expected, report, keep)
    except BaseException:
        revert(model)
        raise
    return report


def revert(model: nn.Module) -> None:
    """Take back what `convert` did, bit for bit; a model that is not converted stays as it is.

    Raises:
        TypeError: model is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"revert: model must be an nn.Module, got {type(model).__name__}")
    for _, module in list(converted_modules(model)):
        uninstall(module)
    for module in model.modules():
        containers.forget(module)


def _verify(model: nn.Module, sample: Sample | None, left: dict[str, Row], keep: str) -> Report:
    """Compare (and time) each layer with its chain; keep what passes."""
    calls = _calls(model, sample)
    verifier = Verifier(
        trained=sample is not None and sample.trained,
        timed=sample is not None and keep == "faster",
    )
    rows: list[Row] = []
    names = {module: name for name, module in model.named_modules()}
    for module, name in names.items():
        record = record_of(module)
        if name in left:
            rows.append(left[name])
        if record is None or record.kind == "container":
            continue
        chains = [(key, seen) for (m, key), seen in calls.items() if m is module]
        if not chains and sample is not None:
            record.allowed = set()
            rows.append(Row(name, LEFT, reason="the sample does not reach it"))
        allowed, failed = set(), set()
        for key, seen in chains:
            row, kept = _best(verifier, module, record, name, key, seen)
            rows.append(row)
            if row.converted:
                allowed.add(kept)
            else:
                failed.add(ALONE)
        if chains:
            # Calls that no sample showed, of the layer alone, are as sure as its own chain.
            record.allowed = allowed if sample is not None else allowed | ({ALONE} - failed)
    _forget_plans(model)
    return Report(rows)


def _best(
    verifier: Verifier, module: nn.Module, record: Record, name: str, key: Any, seen: Any
) -> tuple[Row, Any]:
    """Compare one layer in one chain, and in what is left of it where that is not kept."""
    row = _judge(verifier, module, record, name, key, seen)
    if row.converted or key == recognition.CALL:
        return row, key
    reason = f"{key.text(record.kind)}: {row.reason}"
    for part in key.reduced():
        start_gone = seen is not None and part.upsample == 1 and part.padding_mode is None
        inner = (prepare(seen[0], key),) if start_gone else seen
        row = _judge(verifier, module, record, name, part, inner)
        row.reason = reason
        if row.converted:
            return row, part
    return row, key


def _judge(
    verifier: Verifier, module: nn.Module, record: Record, name: str, key: Any, seen: Any
) -> Row:
    """Compare one layer in one chain."""
    text = record.kind if key == recognition.CALL else key.text(record.kind)
    try:
        measured = verifier.measure(module, record, key, seen)
    except Exception as error:
        first = (str(error).splitlines() or [""])[0][:80]
        return Row(name, LEFT, reason=f"{type(error).__name__}: {first}")
    row = Row(name, text, measured.difference, measured.speed_up)
    if not measured.difference <= LAYER_TOLERANCE:
        row.became, row.reason = LEFT, "results or gradients differ"
    elif measured.speed_up is not None and measured.speed_up < LEAST_SPEED_UP:
        row.became, row.reason = LEFT, "not faster"
    return row


def _calls(model: nn.Module, sample: Sample | None) -> dict[Any, Any]:
    """Return the layers that are called and their chains, with inputs where a sample shows them."""
    if sample is not None:
        Watch.observer = Observer()
        try:
            with preserved(model), torch.no_grad():
                torch.manual_seed(0)
                sample.call()
            return Watch.observer.calls
        finally:
            Watch.observer = None
    calls: dict[Any, Any] = {}
    chained: set[nn.Module] = set()
    for module in model.modules():
        # The outermost come first, and look into those inside.
        plans = [(m, chain) for m, chain in containers.guessed(module) if m not in chained]
        calls.update(dict.fromkeys(plans))
        chained.update(m for m, _ in plans)
    for _, module in converted_modules(model):
        record = record_of(module)
        assert record is not None
        if record.kind != "container" and module not in chained:
            key = ALONE if record.kind in leaves.NAMES else recognition.CALL
            calls.setdefault((module, key), None)
    return calls


def _forget_plans(model: nn.Module) -> None:
    for module in model.modules():
        containers.forget_plans(module)


def _whole(sample: Sample, expected: Any, report: Report, keep: str) -> None:
    """Compare and time the whole model; leave it alone if it differs."""
    report.difference = model_difference(sample.results(), expected)
    if not report.difference <= MODEL_TOLERANCE and not _within_rounding(sample, report.difference):
        _give_up(sample.model, report, f"the whole model differs by {report.difference:.1e}")
        return
    with preserved(sample.model):
        report.speed_up = speed_up(
            lambda: _step(sample),
            lambda: containers.unfused(lambda: _step(sample)),
            sample.device(),
        )
    if keep == "faster" and report.converted and report.speed_up < 1:
        _give_up(sample.model, report, "the whole model is not faster")


def _give_up(model: nn.Module, report: Report, reason: str) -> None:
    revert(model)
    report.reason = f"left alone: {reason}"
    for row in report.rows:
        row.became, row.reason = LEFT, row.reason or reason


def _within_rounding(sample: Sample, found: float) -> bool:
    """Return whether the model itself differs as much where its parameters change by rounding."""
    parameters = [p for p in sample.model.parameters() if p.is_floating_point()]
    before = [p.detach().clone() for p in parameters]

    def run(scale: float) -> Any:
        with torch.no_grad():
            for p, value in zip(parameters, before):
                p.copy_(value * (1 + scale * torch.randn_like(value)) if scale else value)
        return containers.unfused(sample.results)

    with torch.random.fork_rng(devices=[]):
        noise = model_difference(run(_ROUNDING), run(0.0))
    return found <= 10 * noise


def _step(sample: Sample) -> None:
    """Run the model once, and its backward pass in training."""
    wanted = [p for p in sample.model.parameters() if p.requires_grad] if sample.trained else []
    with torch.set_grad_enabled(bool(wanted)):
        results(sample.call, wanted)
