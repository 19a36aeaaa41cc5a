"""One case: drawn, run on the kernels, compared."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import inpaint_ops
from fuzz.draws import LAYOUTS, Case, Draw
from fuzz.tensors import Made, laid_out, make, same_bits
from inpaint_ops.ops import native

# Unit roundoffs.
ROUNDOFF = {"float64": 2**-53, "float32": 2**-24, "float16": 2**-11, "bfloat16": 2**-8}
# Below these a type holds no more digits.
SMALLEST = {"float64": 1e-300, "float32": 1e-36, "float16": 6e-8, "bfloat16": 1e-36}
BACKENDS = ("auto",) * 6 + ("precise",) + ("direct",) * 3 + ("reference",)

Results = dict[str, Tensor]


class Failure(AssertionError):
    """A result or a promise that does not hold."""


class Entry:
    """One operator or layer; `layer` says which. Subclasses override all but `run`."""

    name = ""
    layer = False
    can_be_spoiled = True

    def draw(self, d: Draw, case: Case) -> None:
        """Adds sizes, options and tensors to a case."""
        raise NotImplementedError

    def specs(self, case: Case) -> dict[str, dict[str, Any]]:
        """The tensors by name; `leaf`: those that get a gradient."""
        raise NotImplementedError

    def prepare(self, case: Case, made: dict[str, Made]) -> None:
        """Changes tensors in a way that depends on others."""

    def call(self, case: Case, t: dict[str, Tensor]) -> Sequence[Tensor]:
        """The results, the differentiable one first."""
        raise NotImplementedError

    def upstream(self, case: Case, wide: dict[str, Tensor], grad: Tensor) -> Tensor:
        """The gradient of the result, 0 where the derivative hangs on a rounding error."""
        return grad

    def check(self, case: Case, wide: dict[str, Tensor], results: Results) -> None:
        """Compares with the reference in float64; raises `Failure`.

        `results`: "y", "y1", ... and "grad NAME"; `wide`: the tensors, and "upstream".
        """
        raise NotImplementedError

    def fixed(self, case: Case) -> Sequence[str]:
        """Tensors whose layout may decide about bits."""
        return ()

    def exact(self, case: Case, again: str, name: str) -> bool:
        """Whether bits of a result do not depend on threads, or layouts, as `again` says."""
        return bool(case["dtype"] != "float64" and case["run"]["backend"] != "reference")


def entries() -> dict[str, Entry]:
    """All entries by name."""
    from fuzz.table import ENTRIES

    return ENTRIES


def instruction_sets() -> list[str]:
    """Those of this build that the machine runs; [""] without the extension."""
    module = native.extension() if native.status().available else None
    return [""] if module is None else list(module.instruction_sets())


def draw(name: str, seed: int, number: int, isa: str) -> Case:
    """The case of a number, for one entry."""
    d = Draw(f"{name} {seed} {number}")
    case: Case = {"op": name, "seed": d.between(0, 2**31)}
    case["run"] = {
        "isa": isa,
        "threads": d.of((1, 1, 2, 3)),
        "backend": d.of(BACKENDS),
        "again": d.of(("same", "threads", "layout", "layout")),
        "grad": d.chance(0.6),
        "edit": d.chance(0.1),
    }
    entry = entries()[name]
    entry.draw(d, case)
    if d.chance(0.06) and entry.can_be_spoiled:
        from fuzz.errors import spoil

        spoil(d, entry, case)
    return case


@contextlib.contextmanager
def _setting(case: Case) -> Iterator[None]:
    run = case["run"]
    threads = torch.get_num_threads()
    module = native.extension() if run["isa"] else None
    before = module.instruction_set() if module else ""
    try:
        if module:
            module.set_instruction_set(run["isa"])
        torch.set_num_threads(run["threads"])
        with inpaint_ops.backend(run["backend"]):
            yield
    finally:
        torch.set_num_threads(threads)
        if module:
            module.set_instruction_set(before)


def replay(case: Case, skip: Sequence[str] = ()) -> None:
    """Runs a case; raises `Failure`, or whatever the operator raises though it should not."""
    with _setting(case):
        if "spoil" in case:
            from fuzz.errors import check_error

            return check_error(case)
        _replay(entries()[case["op"]], case, skip)


def _replay(entry: Entry, case: Case, skip: Sequence[str]) -> None:
    specs = entry.specs(case)
    made = {name: make(case, name, spec) for name, spec in specs.items()}
    entry.prepare(case, made)
    leaves = [name for name, spec in specs.items() if spec.get("leaf") and case["run"]["grad"]]
    tensors = {name: one.tensor for name, one in made.items()}
    wide = _wide(tensors)
    first = _results(entry, case, tensors, leaves, wide)
    for name, one in made.items():
        if one.changed():
            raise Failure(f"{name} was written to")
    again = case["run"]["again"]
    promised = {n: y for n, y in first.items() if again == "same" or entry.exact(case, again, n)}
    if again not in skip and promised:
        _compare_bits(promised, _second(entry, case, tensors, leaves, wide), again)
    entry.check(case, wide, first)
    if case["run"]["edit"] and "edit" not in skip and "weight" in tensors:
        _check_edit(entry, case, tensors, leaves)


def _wide(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    # Contiguous: torch's own loops in float64 are wrong for some layouts.
    return {n: t.double().contiguous() if t.is_floating_point() else t for n, t in tensors.items()}


def _results(
    entry: Entry,
    case: Case,
    tensors: dict[str, Tensor],
    leaves: Sequence[str],
    wide: dict[str, Tensor],
    layout: str = "",
) -> Results:
    given = dict(tensors)
    for name in leaves:
        given[name] = tensors[name].detach().requires_grad_()
    with contextlib.nullcontext() if leaves else torch.no_grad():
        outputs = entry.call(case, given)
    results = {f"y{i or ''}": y.detach() for i, y in enumerate(outputs)}
    y = outputs[0]
    if not leaves or not y.requires_grad:
        return results
    if "upstream" not in wide:
        spec = {"shape": y.shape, "dtype": case["dtype"], **case["upstream"]}
        spec["dtype"] = str(y.dtype).removeprefix("torch.")
        spec["layout"] = "contiguous"
        wide["upstream"] = entry.upstream(case, wide, make(case, "upstream", spec).tensor.double())
    grad = _laid_out_gradient(wide["upstream"].to(y.dtype), layout or case["upstream"]["layout"])
    held = [given[name] for name in leaves]
    grads = torch.autograd.grad(y, held, grad.tensor, allow_unused=True)
    if grad.changed():
        raise Failure("the gradient of the result was written to")
    for name, leaf, value in zip(leaves, held, grads):
        if value is not None:
            if value.shape != leaf.shape or value.dtype != leaf.dtype:
                raise Failure(f"grad {name} has {value.shape} {value.dtype}")
            results[f"grad {name}"] = value
    return results


def _laid_out_gradient(g: Tensor, layout: str) -> Made:
    """Expanded as the gradient of a sum is, where all its values are equal."""
    if "expanded" not in layout:
        return laid_out(g, layout)
    if g.dim() and g.numel() and bool((g == g.flatten()[0]).all()):
        base = g.flatten()[:1].clone()
        return Made(base.expand(g.shape), base, base.clone())
    return laid_out(g, "contiguous")


def _second(
    entry: Entry,
    case: Case,
    tensors: dict[str, Tensor],
    leaves: Sequence[str],
    wide: dict[str, Tensor],
) -> Results:
    again = case["run"]["again"]
    if again == "threads":
        torch.set_num_threads(case["run"]["threads"] % 3 + 1)
        result = _results(entry, case, tensors, leaves, wide)
        torch.set_num_threads(case["run"]["threads"])
        return result
    if again == "same":
        return _results(entry, case, tensors, leaves, wide)
    d = Draw(f"{case['seed']} layouts")
    fixed = entry.fixed(case)
    tensors = {
        name: t
        if name in fixed
        else laid_out(t, d.of([lay for lay in LAYOUTS if "expanded" not in lay])).tensor
        for name, t in tensors.items()
    }
    layout = d.of(("contiguous", "channels_last", "sliced", "transposed"))
    return _results(entry, case, tensors, leaves, wide, layout)


def _compare_bits(first: Results, second: Results, again: str) -> None:
    for name, value in first.items():
        other = second[name]
        if not same_bits(value, other):
            wrong = int((value != other).sum())
            apart = (value.double() - other.double()).abs().max().item()
            raise Failure(
                f"bits of {name} differ ({again}): {wrong} of {value.numel()} values, by {apart}"
            )


def _check_edit(
    entry: Entry, case: Case, tensors: dict[str, Tensor], leaves: Sequence[str]
) -> None:
    """Whether values of the weight changed past autograd's eyes are seen by the next call."""
    d = Draw(f"{case['seed']} edit")
    weight = tensors["weight"]
    if 0 in weight.stride() or not weight.numel() or case["dtype"] == "bfloat16":
        return
    tensors = {**tensors, "weight": torch.nn.Parameter(weight.detach().clone())}
    weight = tensors["weight"]
    entry.call(case, tensors)
    place = tuple(d.between(0, size - 1) for size in weight.shape)
    how = d.of(("data", "numpy", "channel", "copy"))
    if how == "data":
        weight.data[place] += 1.0
    elif how == "numpy":
        weight.detach().numpy()[place] -= 1.0
    elif how == "channel":
        axis = min(1, weight.dim() - 1)
        weight.data.select(axis, place[axis]).zero_()
    else:
        weight.data.copy_(weight.data * 0.5)
    wide = _wide({name: t.detach() for name, t in tensors.items()})
    try:
        entry.check(case, wide, _results(entry, case, tensors, leaves, wide))
    except Failure as failure:
        raise Failure(f"after an edit of the weight ({how}): {failure}") from None


def close(name: str, got: Tensor, want: Tensor, bound: Tensor | float, dtype: str) -> None:
    """Each value within its bound, and as finite as the reference."""
    if got.shape != want.shape:
        raise Failure(f"{name} has shape {tuple(got.shape)}, not {tuple(want.shape)}")
    got = got.double()
    allowed = ROUNDOFF[dtype] * want.abs() + SMALLEST[dtype] + bound
    # A bound that is not finite says that the reference promises nothing there; what the type
    # cannot hold may be infinite.
    wrong = ~((got - want).abs() <= allowed) & want.isfinite()
    wrong &= torch.as_tensor(allowed).isfinite()
    wrong &= ~(got.isinf() & (want.abs() + allowed >= torch.finfo(getattr(torch, dtype)).max))
    if bool(wrong.any()):
        place = tuple(wrong.nonzero()[0].tolist())
        limit = allowed.expand_as(want)[place].item()
        raise Failure(
            f"{name}: {int(wrong.sum())} of {wrong.numel()} wrong, first at {list(place)}: "
            f"{got[place].item()} instead of {want[place].item()}, bound {limit:.3g}"
        )
