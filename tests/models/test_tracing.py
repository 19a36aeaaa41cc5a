"""Generators of the ten methods in exported programs and traces, at several sizes."""

import pytest
import torch
from traceable import GENERATORS, check_equal

TOLERANCE = 1e-4  # of whole networks; batch normalisations are folded in one, not in the other
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()


def check(traced, network, case):
    with torch.no_grad():
        for size in case.sizes[:2]:
            tensors = case.inputs(*size)
            check_equal(traced(*tensors), network(*tensors), TOLERANCE)


# Strict tracing takes several times as long.
STRICT = ("context_encoder", "deepfill_v2", "glcic", "edge_connect, picture", "partial_conv_unet")


@pytest.mark.parametrize(
    ("name", "strict"),
    [*((name, False) for name in GENERATORS), *((name, True) for name in STRICT)],
)
def test_exports_with_any_size(name, strict):
    case = GENERATORS[name]
    network, tensors = case.module(), case.inputs(*case.sizes[0])
    program = torch.export.export(
        network, tuple(tensors), dynamic_shapes=case.axes(), strict=strict
    )
    check(program.module(), network, case)


@pytest.mark.parametrize("name", ["glcic", "patch_gan", "context_encoder"])
def test_exports_folded(name):
    case = GENERATORS[name]
    network, tensors = case.module(), case.inputs(*case.sizes[0])
    with torch.no_grad():
        program = torch.export.export(network, tuple(tensors), dynamic_shapes=case.axes())
    check(program.module(), network, case)


@pytest.mark.filterwarnings('ignore:.*padding "same" depends on the size')
@pytest.mark.parametrize("name", GENERATORS)
def test_torch_jit_trace(name):
    case = GENERATORS[name]
    network = case.module()
    check(torch.jit.trace(network, tuple(case.inputs(*case.sizes[0]))), network, case)


def test_a_picture_of_another_size_than_the_vector_was_made_of():
    case = GENERATORS["context_encoder"]
    dynamic = {2: torch.export.Dim.DYNAMIC}
    with pytest.raises(torch._dynamo.exc.UserError, match="specialized it to be a constant"):
        torch.export.export(
            case.module(), tuple(case.inputs(2, 128, 128)), dynamic_shapes=(dynamic,)
        )
