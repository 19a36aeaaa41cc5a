"""What watches modules and saved tensors: steps stay as they are."""

import copy
import re

import pytest
import torch
from model_cases import CASES, FORMS, batch, recipe_of, small
from support import check_close
from torch import nn
from torch.autograd.graph import save_on_cpu
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.checkpoint import checkpoint

from inpaint_ops import layers
from inpaint_ops.models.blocks.conv_block import ConvBlock

# Full backward hooks say so of modules whose inputs take no gradients.
pytestmark = pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")


def gradients(model):
    """By name, without those that are rounding errors alone."""
    idle = CASES[model.name].idle
    return {
        name: p.grad
        for name, p in model.named_parameters()
        if p.grad is not None and not (idle and re.search(idle, name))
    }


def check_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        check_close(ours[name], theirs[name], terms=10**4)


@pytest.mark.parametrize(("name", "options", "phase"), FORMS, ids=str)
def test_full_backward_hooks_on_all_modules(name, options, phase):
    # Hooks add nodes to the graph: sums of gradients come in another order. Where it takes little
    # time float64 keeps rounding errors small.
    dtype = torch.float64 if CASES[name].training < 100 else torch.float32
    plain, model = (small(name, **options).to(dtype) for _ in range(2))
    called = set()
    for path, module in model.named_modules():
        module.register_full_backward_hook(lambda *_, path=path: called.add(path))
        module.register_full_backward_pre_hook(lambda *_, path=path: called.add(f"before {path}"))
    recipe = recipe_of(model, phase)
    losses = recipe.step(*batch(name, dtype))
    expected = recipe_of(plain, phase).step(*batch(name, dtype))
    assert losses == pytest.approx(expected, rel=1e-10 if dtype == torch.float64 else 1e-4)
    check_same(gradients(model), gradients(plain))
    for network in recipe.trained:
        for path, module in model.get_submodule(network).named_modules(prefix=network):
            if isinstance(module, layers.FusedConv2d):
                assert {path, f"before {path}"} <= called


PAIRS = {
    "convolution": (layers.FusedConv2d(4, 6, 3, 2, 1), nn.Conv2d(4, 6, 3, 2, 1)),
    "transposed": (
        layers.FusedConvTranspose2d(4, 6, 4, 2, 1),
        nn.ConvTranspose2d(4, 6, 4, 2, 1),
    ),
    "norm": (layers.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(4, affine=True)),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_hooks_see_what_they_see_in_torch(kind):
    seen = []
    theirs = copy.deepcopy(PAIRS[kind][1]).double()
    ours = copy.deepcopy(PAIRS[kind][0]).double()
    ours.load_state_dict(theirs.state_dict())
    for module in (ours, theirs):
        module.register_full_backward_pre_hook(lambda m, grads: (2 * grads[0],))
        module.register_full_backward_hook(lambda m, *grads: seen.append(grads))
        x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).double()
        module(x.requires_grad_()).square().sum().backward()
        seen.append((x.grad,))
    for a, b in zip(seen[:2], seen[2:]):
        for first, second in zip(a, b):
            for ours, theirs in zip(first, second):
                check_close(ours, theirs)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh"])
def test_activations_after_hooked_modules(activation):
    found = []
    for how in ("plain", "hooked", "compiled"):
        torch.manual_seed(2)
        block = ConvBlock(3, 4, 3, activation=activation, alpha=0.7)
        call = torch.compile(block, fullgraph=True, backend="eager") if how == "compiled" else block
        if how == "hooked":
            for module in block.modules():
                module.register_full_backward_hook(lambda *_: None)
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
        call(x).square().sum().backward()
        found.append(block.conv.weight.grad)
    for gradient in found[1:]:
        torch.testing.assert_close(gradient, found[0])


class Checkpointed(nn.Module):
    """A network whose activations are computed again in the backward pass."""

    reentrant = False

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args):
        return checkpoint(self.module, *args, use_reentrant=self.reentrant)


class ReentrantlyCheckpointed(Checkpointed):
    """The older form, which needs an input that takes gradients."""

    reentrant = True

    def forward(self, first, *args):
        return super().forward(first.requires_grad_(), *args)


# Networks whose second pass is the first one again: spectral norms iterate in each.
REPEATED = [
    form
    for form in FORMS
    if form[0] in ("deepfill_v1", "deepfill_v2", "glcic", "gmcnn", "partial_conv_unet", "shift_net")
    and form[1].get("variant") is None
]


@pytest.mark.parametrize("wrap", [Checkpointed, ReentrantlyCheckpointed])
@pytest.mark.parametrize(("name", "options", "phase"), REPEATED, ids=str)
def test_checkpointed_generators(name, options, phase, wrap):
    plain, model = (small(name, **options) for _ in range(2))

    def wrapped(network):
        return wrap(network) if network is model.generator else network

    losses = recipe_of(model, phase, wrap=wrapped).step(*batch(name))
    assert losses == recipe_of(plain, phase).step(*batch(name))
    ours, theirs = gradients(model), gradients(plain)
    assert ours.keys() == theirs.keys()
    for key, gradient in ours.items():
        assert torch.equal(gradient, theirs[key]), key


@pytest.mark.parametrize(("name", "options", "phase"), FORMS, ids=str)
def test_saved_tensors_may_go_elsewhere(name, options, phase):
    plain, model = (small(name, **options) for _ in range(2))
    with save_on_cpu():
        losses = recipe_of(model, phase).step(*batch(name))
    assert losses == recipe_of(plain, phase).step(*batch(name))
    for (key, p), q in zip(model.named_parameters(), plain.parameters()):
        assert torch.equal(p, q), key


@pytest.mark.parametrize("name", CASES)
def test_averaged_models(name):
    model = small(name)
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    image, hole = batch(name)
    before = averaged.module.complete(image, hole)
    assert torch.equal(before, model.complete(image, hole))
    averaged.update_parameters(model)
    start = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    averaged.update_parameters(model)
    for p, q, r in zip(averaged.module.parameters(), start.parameters(), model.parameters()):
        torch.testing.assert_close(p, (q + r) / 2)
    # Its own weights, updated in place, are seen.
    fresh = small(name)
    fresh.load_state_dict(averaged.module.state_dict())
    after = averaged.module.complete(image, hole)
    assert torch.equal(after, fresh.complete(image, hole))
    assert not torch.equal(after, before)
    assert torch.equal(start.complete(image, hole), before)
