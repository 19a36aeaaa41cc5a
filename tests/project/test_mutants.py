"""The table of mutations is true: each quotes one line of the kernels as it is."""

import runpy
import sys

import pytest
import setuptools
from fuzz.case import entries
from mutants.__main__ import of_file
from mutants.build import ROOT, in_order, mutated
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


def test_links_what_the_build_links(tmp_path, monkeypatch):
    """Every object that setup.py makes, none of another Python or of a file that is no more."""
    monkeypatch.setattr(setuptools, "setup", lambda **given: None)
    names = runpy.run_path(str(ROOT / "setup.py"))
    module = f"module-{sys.implementation.cache_tag}"
    wanted = [(module, s) for s in names["BINDINGS"]]
    wanted += [("shared", s) for s in names["SHARED_SOURCES"]]
    for name in names["INSTRUCTION_SETS"]:
        wanted += [(name, s) for s in names["KERNEL_SOURCES"]]
    others = [("module-other", names["BINDINGS"][0]), ("baseline", "csrc/renamed.cpp")]
    for folder, source in wanted + others:
        built = (tmp_path / folder / source).with_suffix(".o")
        built.parent.mkdir(parents=True, exist_ok=True)
        built.touch()
    found = [one.relative_to(tmp_path).with_suffix(".cpp") for one in in_order(tmp_path)]
    assert [str(one) for one in found] == [f"{name}/{source}" for name, source in wanted]
