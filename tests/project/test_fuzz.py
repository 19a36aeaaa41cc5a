"""The bounded part of the fuzzer: every operator and layer, in every instruction set."""

import pytest
from fuzz import engine, shrink
from fuzz.case import entries, instruction_sets

# Each entry takes the instruction sets in turn.
CASES = 4200
SEED = 12


@pytest.fixture(scope="module")
def outcome():
    """All cases at once, in processes of their own."""
    return engine.run(CASES, SEED, most=20)


@pytest.mark.parametrize("name", entries())
def test_cases_agree_with_the_reference(name, outcome):
    for found in outcome.found:
        if found.case.get("op") == name:
            small, error = shrink.shrink(found.case, found.error)
            pytest.fail(shrink.script(found, small, error, SEED) + found.output)
    assert outcome.found or sum(outcome.done.values()) == CASES


def test_every_instruction_set_had_its_share(outcome):
    if not outcome.found:
        least = CASES // len(instruction_sets()) - len(entries())
        assert all(outcome.done[isa] >= least for isa in instruction_sets())
