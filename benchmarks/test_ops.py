"""``pytest benchmarks/``: the cases of the short report under pytest-benchmark, one thread."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from inpaint_ops.benchmarks.harness.case import OPS, Case, Missing, Unavailable, load
from inpaint_ops.benchmarks.harness.timing import thread_count

_CASES = [case for op in OPS for case in load(op).CASES if case.quick]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with thread_count(1):
        yield


@pytest.mark.parametrize("contestant", ["ours", "eager"])
@pytest.mark.parametrize("case", _CASES, ids=lambda case: f"{case.op}-{case.id}")
def test_speed(case: Case, contestant: str, benchmark: Any) -> None:
    try:
        problem = load(case.op).setup(case)
    except Unavailable as reason:
        pytest.skip(str(reason))
    implementation = problem.implementations.get(contestant, Missing("no public formula"))
    if isinstance(implementation, Missing):
        pytest.skip(implementation.reason)
    assert problem.check(problem.run(implementation)) is None
    benchmark.group = f"{case.op} {case.id}"
    benchmark.extra_info.update(case.sizes)
    benchmark(problem.run, implementation)
