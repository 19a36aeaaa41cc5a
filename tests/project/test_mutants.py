"""The table of mutations is true: each quotes one line of the kernels as it is."""

import pytest
from fuzz.case import entries
from mutants.__main__ import of_file
from mutants.build import mutated
from mutants.table import ENTRIES, MUTATIONS, TESTS


def test_there_are_enough_and_each_has_its_name():
    assert len(MUTATIONS) >= 40
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_mutations_apply(mutation):
    assert mutation.after in mutated(mutation)
    assert mutation.before != mutation.after
    assert mutation.fault
    assert of_file(TESTS, mutation.file)
    assert set(of_file(ENTRIES, mutation.file)) <= set(entries())
