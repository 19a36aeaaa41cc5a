"""Training steps under torch.compile: equal to eager ones, one graph for each backward pass."""

import shutil
from functools import partial

import pytest
import torch
from model_cases import batch, recipe_of, small
from torch._dynamo.utils import counters

pytestmark = [
    # The compiler looks for the gradients of all tensors that it traces.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    # torch compiles parts of its own in the old way.
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]
# Steps, and their graphs: DeepFill v2 has the generator's pass, the critic's loss, the others.
STEPS = [("deepfill_v2", "joint", 3), ("partial_conv_unet", "train", 1)]
# Where graphs end on purpose: before a critic's own backward pass, and before optimisers.
ENDS = ("cut_off", "TrainingRecipe.descend")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def check_steps(recipe, plain, exact):
    """Two steps of both; afterwards all gradients and parameters agree."""
    for _ in range(2):
        losses, expected = (one.step(*batch(one.model.name)) for one in (recipe, plain))
        if exact:
            assert losses == expected
        assert losses == pytest.approx(expected, rel=1e-4)
    for (key, p), q in zip(recipe.model.named_parameters(), plain.model.parameters()):
        for a, b in ((p, q), (p.grad, q.grad)):
            if exact:
                assert torch.equal(a, b), key
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3 * b.abs().max().item())


@pytest.mark.parametrize(("name", "phase", "graphs"), STEPS)
def test_whole_steps(name, phase, graphs):
    recipe, plain = (recipe_of(small(name), phase) for _ in range(2))
    recipe.update = torch.compile(recipe.update, backend="aot_eager")
    check_steps(recipe, plain, exact=True)
    assert counters["stats"]["unique_graphs"] == graphs
    reasons = list(counters["graph_break"])
    assert len(reasons) == (graphs + 1) // 2
    assert all(any(f"<function {end} " in reason for end in ENDS) for reason in reasons), reasons


def test_networks_by_the_default_compiler():
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("no compiler")
    recipe = recipe_of(
        small("partial_conv_unet"), "train", wrap=partial(torch.compile, fullgraph=True)
    )
    check_steps(recipe, recipe_of(small("partial_conv_unet"), "train"), exact=False)
