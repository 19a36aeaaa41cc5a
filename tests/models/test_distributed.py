"""Training in several processes: networks inside wrappers, DistributedDataParallel, FSDP."""

import pytest
import torch
from model_cases import FORMS, PHASES, batch, recipe_of, small
from pairs import run_pair
from torch import nn


def has_batch_norm(name, options):
    return any(isinstance(module, nn.BatchNorm2d) for module in small(name, **options).modules())


class Opaque(nn.Module):
    """Something around a network that passes calls on, and nothing else."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, *args, **options):
        return self.module(*args, **options)


def check_same(models, names):
    first, second = models
    for (key, p), q in zip(first.named_parameters(), second.parameters()):
        assert torch.equal(p, q), key
        trained = key.split(".")[0] in names
        assert (p.grad is not None) == (q.grad is not None) == trained, key
        assert p.grad is None or torch.equal(p.grad, q.grad), key
    for (key, p), q in zip(first.named_buffers(), second.buffers()):
        assert torch.equal(p, q), key


@pytest.mark.parametrize(("name", "options", "phase"), FORMS, ids=str)
def test_steps_call_networks_by_their_forward_pass_alone(name, options, phase):
    plain, model = (small(name, **options) for _ in range(2))
    recipe = recipe_of(model, phase, wrap=Opaque)
    losses = recipe.step(*batch(name))
    assert losses == recipe_of(plain, phase).step(*batch(name))
    check_same((plain, model), recipe.trained)
    for network in model.networks:
        assert not isinstance(model.get_submodule(network), Opaque)
        inside = recipe.model.get_submodule(network)
        assert isinstance(inside, Opaque) == (network in recipe.trained)
    trained = {id(p) for n in recipe.trained for p in model.get_submodule(n).parameters()}
    groups = [g for o in recipe.optimizers.values() for g in o.param_groups]
    assert trained == {id(p) for g in groups for p in g["params"]}


@pytest.mark.parametrize(("name", "phase"), [("shift_net", "joint"), ("glcic", "joint")])
def test_networks_may_be_replaced_in_the_model(name, phase):
    plain, model = (small(name) for _ in range(2))
    for network in model.networks:
        setattr(model, network, Opaque(model.get_submodule(network)))
    assert recipe_of(model, phase).step(*batch(name)) == recipe_of(plain, phase).step(*batch(name))
    image, hole = batch(name)
    assert torch.equal(model.complete(image, hole), plain.complete(image, hole))


def test_wrappers_are_checked():
    with pytest.raises(TypeError, match=r"glcic.recipe: wrap must return an nn.Module, got None"):
        small("glcic").recipe(wrap=lambda network: None)


@pytest.mark.parametrize(
    ("name", "options", "phase"), [form for form in FORMS if has_batch_norm(*form[:2])], ids=str
)
def test_synchronised_batch_normalisation(name, options, phase):
    plain = small(name, **options)
    model = nn.SyncBatchNorm.convert_sync_batchnorm(small(name, **options))
    recipe = recipe_of(model, phase)
    assert recipe.step(*batch(name)) == recipe_of(plain, phase).step(*batch(name))
    check_same((plain, model), recipe.trained)
    image, hole = batch(name)
    assert torch.equal(model.complete(image, hole), plain.complete(image, hole))


@pytest.fixture(scope="module")
def parallel(tmp_path_factory):
    """Comparisons of `distributed_steps`, by method and phase."""
    first, second = run_pair("distributed_steps.py", tmp_path_factory.mktemp("parallel"))
    return first | second


@pytest.mark.parametrize(("name", "phase"), PHASES)
def test_two_processes_equal_one_with_the_whole_batch(name, phase, parallel):
    result = parallel[f"{name} {phase}"]
    assert result.pop("agree")
    assert set(result) == {"losses", "gradients", "parameters", "buffers"}
    assert all(value < 1e-6 for value in result.values()), result


@pytest.fixture(scope="module")
def sharded(tmp_path_factory):
    """Losses of `sharded_training`, in both processes."""
    return run_pair("sharded_training.py", tmp_path_factory.mktemp("sharded"))


def test_sharded_layers(sharded):
    # Parameters are freed and gathered again around each layer: their storages are resized.
    for results in sharded:
        plain, *ours = torch.tensor(results["stacks"])
        assert plain[0] > plain[-1]
        for losses in ours:
            torch.testing.assert_close(losses, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["deepfill_v2", "partial_conv_unet", "shift_net"])
def test_sharded_methods(name, sharded):
    for results in sharded:
        whole, parts = torch.tensor(results[name])
        assert not torch.equal(whole[0], whole[-1])
        if name != "shift_net":  # fully_shard; FSDP 1 puts weights elsewhere in memory
            assert torch.equal(parts, whole)
        torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-6)
