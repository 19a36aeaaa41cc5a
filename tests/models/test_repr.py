"""What methods print: name, training size and options in the first line, then the networks."""

import inspect

import pytest
import torch
from model_cases import picture, small
from torch import nn

from inpaint_ops.models import InpaintingModel, Session, list_models, model_class


@pytest.mark.parametrize("name", list_models())
def test_first_line_says_what_it_is(name):
    with torch.device("meta"):
        model = small(name)
    first, *networks = repr(model).splitlines()
    assert first.startswith(f"{type(model).__name__}(name='{name}', trained_size=")
    assert f"trained_size={model.trained_size}," in first
    for option in inspect.signature(model_class(name).__init__).parameters:
        if option != "self":
            assert f" {option}={getattr(model, option)!r}" in first
    for network in model.networks:
        assert any(line.startswith(f"  ({network}): ") for line in networks)
    assert networks[-1] == ")"
    assert repr(nn.Sequential(model)).count("\n") == len(networks) + 2


def test_a_method_of_ones_own():
    class Own(InpaintingModel):
        name = "own"

        def __init__(self, *, kept=3, forgotten=4):
            super().__init__()
            self.kept = kept

    assert repr(Own(kept=5)) == "Own(name='own', trained_size=256, kept=5)"


def test_a_session_says_of_what():
    session = Session(small("glcic"), picture(1, 3, 16, 24))
    assert repr(session) == "Session(glcic, image (1, 3, 16, 24) torch.float32)"
