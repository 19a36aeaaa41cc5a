"""Pruning, weight norm, spectral norm, copies and pickles: what nn.Conv2d does, our layers do."""

import copy
import pickle

import pytest
import torch
from operators import draw
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm
from torch.nn.utils import remove_spectral_norm as unspectral
from torch.nn.utils import remove_weight_norm as unweighted
from traceable import LAYERS, check_equal, listed

from inpaint_ops import layers

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")

CONVOLUTION, BASE = "nn.Conv2d", nn.Conv2d(4, 6, 3, padding=1)
NAMES = (
    "FusedConv2d",
    "GatedConv2d",
    "FusedConvTranspose2d",
    "PartialConv2d",
    "InstanceNorm2d",
    "ChannelwiseLinear",
)


def unparametrised(layer):
    parametrize.remove_parametrizations(layer, "weight")


# The change, and its removal.
CHANGES = {
    "prune weights": (
        lambda layer: prune.l1_unstructured(layer, "weight", 0.3),
        lambda layer: prune.remove(layer, "weight"),
    ),
    "prune filters": (
        lambda layer: prune.ln_structured(layer, "weight", 0.4, n=2, dim=0),
        lambda layer: prune.remove(layer, "weight"),
    ),
    "prune biases": (
        lambda layer: prune.l1_unstructured(layer, "bias", 0.3),
        lambda layer: prune.remove(layer, "bias"),
    ),
    "weight_norm by hook": (weight_norm, unweighted),
    "spectral_norm by hook": (spectral_norm, unspectral),
    "weight_norm": (parametrizations.weight_norm, unparametrised),
    "spectral_norm": (parametrizations.spectral_norm, unparametrised),
    "orthogonal": (parametrizations.orthogonal, unparametrised),
}


def made(name):
    torch.manual_seed(0)
    layer = copy.deepcopy(BASE) if name == CONVOLUTION else LAYERS[name].module()
    inputs = LAYERS["FusedConv2d" if name == CONVOLUTION else name].inputs
    with torch.no_grad():
        layer.weight.add_(0.01 * draw(*layer.weight.shape))
    return layer.eval(), inputs(2, 8, 9)


def learns(layer, inputs):
    layer.train()
    listed(layer(*inputs))[0].square().sum().backward()
    assert all(p.grad is not None for key, p in layer.named_parameters() if "weight" in key)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter -= 0.01 * parameter.grad
    return listed(layer(*inputs))[0]


def copied(layer, inputs):
    with torch.no_grad():
        layer(*inputs)
    check_equal(copy.deepcopy(layer)(*inputs), layer(*inputs))


def copied_with_gradients(layer, inputs):
    layer(*inputs)
    check_equal(copy.deepcopy(layer)(*inputs), layer(*inputs))


def pickled(layer, inputs):
    layer(*inputs)
    check_equal(pickle.loads(pickle.dumps(layer))(*inputs), layer(*inputs))


def outcome(name, change, step):
    """The error of a step, or None."""
    layer, inputs = made(name)
    change(layer)
    try:
        step(layer, inputs)
    except (RuntimeError, AttributeError) as error:
        return type(error)
    return None


def fits(change, name):
    """Whether torch changes weights of that many axes at all."""
    return name != "InstanceNorm2d" or change not in ("prune filters", "orthogonal")


CASES = [(change, name) for change in CHANGES for name in NAMES if fits(change, name)]


@pytest.mark.parametrize(("change", "name"), CASES)
def test_each_step_ends_as_for_a_convolution_of_torch(change, name):
    apply, remove = CHANGES[change]

    def removed(layer, inputs):
        expected = layer(*inputs)
        remove(layer)
        check_equal(layer(*inputs), expected)
        assert isinstance(layer.weight, nn.Parameter)
        check_equal(copy.deepcopy(layer)(*inputs), expected)

    for step in (learns, copied, copied_with_gradients, pickled, removed):
        expected = outcome(CONVOLUTION, apply, step)
        assert outcome(name, apply, step) is expected, step.__name__


@pytest.mark.parametrize(("change", "name"), CASES)
def test_a_state_dict_restores_values(change, name):
    (layer, inputs), (other, _) = made(name), made(name)
    for one in (layer, other):
        CHANGES[change][0](one)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(2)
    other.load_state_dict(layer.state_dict())
    check_equal(other(*inputs), layer(*inputs))


@pytest.mark.parametrize("change", CHANGES)
def test_values_are_those_of_a_convolution_of_torch(change):
    ours, theirs = layers.FusedConv2d(4, 6, 3, padding=1), copy.deepcopy(BASE)
    ours.load_state_dict(theirs.state_dict())
    x = draw(2, 4, 8, 9)
    for layer in (ours, theirs):
        torch.manual_seed(1)
        CHANGES[change][0](layer)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
    check_equal(ours(x), theirs(x))
    check_equal(learns(ours, [x]), learns(theirs, [x]), 1e-4)
    for layer in (ours, theirs):
        CHANGES[change][1](layer)
    check_equal(ours(x), theirs(x), 1e-4)
