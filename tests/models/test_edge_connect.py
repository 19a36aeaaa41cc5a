"""EdgeConnect: numbers of the public port, parameter counts, spectral norm of old files, edges."""

import copy
import sys

import pytest
import torch
import torch.nn.functional as F
from golden_networks import drawn_state, network_golden
from model_cases import CASES, manifest
from support import check_network

from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models import create_model, load_weights, parameter_counts
from inpaint_ops.models.blocks.canny import canny, grey
from inpaint_ops.models.edge_connect.recipe import EdgeConnectRecipe

FILES = {
    "edge_generator": "edgeconnect_edge_generator_64",
    "inpaint_generator": "edgeconnect_inpaint_generator_64",
}

# One network's file, and what such files do not tell.
ONE = {"partial": True, "sigma": 2.0, "adversarial": "nsgan"}


def port_state(name, file):
    """Arrays of a golden file and its weights: vectors of spectral norms iterated, one alias."""
    shapes = manifest(file)
    data, recipe = network_golden(name)

    def finish(state):
        for base in {key.removesuffix("_orig") for key in state if key.endswith("_orig")}:
            transposed = base.startswith(("decoder.0", "decoder.3"))
            matrix = state[f"{base}_orig"].double().movedim(int(transposed), 0).flatten(1)
            u = state[f"{base}_u"].double()
            for _ in range(5):
                v = F.normalize(matrix.T @ u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
            state[f"{base}_u"], state[f"{base}_v"] = u.float(), v.float()
        return {key: state[key.replace("features.0.", "conv1.0.")] for key in shapes}

    own = {key: shape for key, shape in shapes.items() if not key.startswith("features.0.")}
    return data, drawn_state(own, recipe, data["param_sum"], finish)


@pytest.mark.parametrize("network", FILES)
def test_generators_equal_the_port(network):
    z, state = port_state(FILES[network], f"edgeconnect.{network}")
    model = create_model("edge_connect", weights={"iteration": 3, "generator": state}, **ONE).eval()
    generator = model.get_submodule(network)
    with torch.no_grad():
        check_network(generator(z["x"].contiguous(memory_format=torch.channels_last)), z["out"])
    # Signs at ReLU's kinks make float32 gradients differ by percents: float64 it is.
    generator.double()
    x = z["x"].double().requires_grad_()
    (gx,) = torch.autograd.grad(generator(x), x, z["gout"].double())
    check_network(gx, z["gx"].double())


def test_discriminator_equals_the_port():
    z, state = port_state("edgeconnect_discriminator_64", "edgeconnect.edge_discriminator")
    model = create_model("edge_connect", weights={"discriminator": state}, **ONE).eval()
    with torch.no_grad():
        out, maps = model.edge_discriminator(z["x"])
    check_network(out, z["out"])
    check_network(maps[0][:, :8], z["feat0"])
    check_network(maps[3][:, :16], z["feat3"])
    assert torch.equal(maps[4].sigmoid(), out)
    assert len(maps) == 5


def test_parameter_counts():
    assert parameter_counts(create_model("edge_connect")) == {
        "edge_generator": 10_761_089,
        "inpaint_generator": 10_774_595,
        "edge_discriminator": 2_762_752,
        "inpaint_discriminator": 2_763_776,
    }
    judge = create_model("edge_connect").inpaint_discriminator
    with torch.no_grad():
        assert judge(torch.zeros(1, 3, 256, 256))[0].shape == (1, 1, 30, 30)


def small(**options):
    torch.manual_seed(0)
    return create_model("edge_connect", **{**CASES["edge_connect"].small, **options})


def test_spectral_norm_of_old_and_new_files():
    """PyTorch 1.0 stored the normalised weight and no v; today it is a parametrisation."""
    model = small().eval()
    with torch.no_grad():
        for block in (*model.edge_generator.middle, model.edge_generator):
            for layer in block.children():
                if hasattr(layer, "parametrizations"):
                    layer.train()
                    for _ in range(60):
                        _ = layer.weight  # one power iteration
                    layer.eval()
    (layout,) = [one for one in model.layouts if one.network == "edge_generator"]
    own = model.edge_generator.state_dict()
    full = {key: own[place] for key, place in layout.keys(model.edge_generator).items()}
    old = {key: value for key, value in full.items() if not key.endswith("weight_v")}
    older = dict(old)
    for theirs, ours in (("encoder.1", "stem"), ("decoder.0", "up1")):
        older[f"{theirs}.weight"] = model.edge_generator.get_submodule(ours).weight.detach()
    names = {"_orig": "original", "_u": "0._u", "_v": "0._v"}
    new = dict(full)
    for key in full:
        base, _, kind = key.rpartition(".weight")
        if kind in names:
            new[f"{base}.parametrizations.weight.{names[kind]}"] = new.pop(key)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        expected = model.edge_generator(x)
        for form in (full, old, older, new):
            again = create_model("edge_connect", weights=form, critic_channels=4, **ONE).eval()
            torch.testing.assert_close(again.edge_generator(x), expected, rtol=0, atol=1e-3)


def test_spectral_norm_is_remembered_until_something_changes():
    judge = small().eval().edge_discriminator
    layer, norm = judge.conv2, judge.conv2.parametrizations.weight[0]
    with torch.no_grad():
        weight = layer.weight
        assert layer.weight is weight
        for change in (
            lambda: layer.parametrizations.weight.original.mul_(2),
            lambda: layer.parametrizations.weight.original.data.add_(1),
            lambda: norm._u.neg_(),
            lambda: norm._v.neg_(),
            lambda: layer.parametrizations.weight.original.data[2, 1, 0].zero_(),
            lambda: layer.weight.data.zero_(),  # the kept quotient itself
        ):
            before = layer.weight
            change()
            after = layer.weight
            assert after is not before
            original = layer.parametrizations.weight.original
            sigma = torch.dot(norm._u, original.flatten(1) @ norm._v)
            torch.testing.assert_close(after, original / sigma)
    assert layer.weight.requires_grad
    twin = copy.deepcopy(judge)
    assert twin.conv2.parametrizations.weight[0]._kept._kept is None


def test_one_file_fills_one_network():
    model = small()
    states = {
        name: {k: v.clone() for k, v in model.get_submodule(name).state_dict().items()}
        for name in model.networks
    }
    (layout,) = [one for one in model.layouts if one.network == "inpaint_generator"]
    network = model.inpaint_generator
    file = {
        f"module.{key}": network.state_dict()[place] + 1
        for key, place in layout.keys(network).items()
    }
    assert load_weights(model, {"iteration": 7, "generator": file}) == ["inpaint_generator"]
    for name, state in states.items():
        now = model.get_submodule(name).state_dict()
        same = all(torch.equal(state[key], now[key]) for key in state)
        assert same == (name != "inpaint_generator")


def test_edges_of_the_known_part():
    image = torch.zeros(1, 3, 32, 40)
    image[:, :, :, 20:] = 1
    hole = torch.zeros(1, 1, 32, 40)
    hole[:, :, 8:24, 10:30] = 1
    edges = canny("edge_connect", grey(image), None, 2.0)
    assert edges[0, 0, :, 18:22].any(1)[2:30].all()
    assert not edges[..., :18].any()
    assert not edges[..., 22:].any()
    masked = canny("edge_connect", grey(image), hole, 2.0)
    assert not masked[hole > 0].any()
    assert masked[0, 0, 3].any()
    # Pixels in the hole make no edges.
    image[hole.expand_as(image) > 0] = 0.5
    assert torch.equal(canny("edge_connect", grey(image), hole, 2.0), masked)
    assert not canny("edge_connect", grey(image), torch.ones_like(hole), 2.0).any()


def test_given_edges_merging_and_channel_order():
    model, merging = small(), small(merge_edges=True)
    image = torch.rand(1, 3, 24, 28)
    hole = torch.zeros(1, 1, 24, 28)
    hole[:, :, 8:16, 8:20] = 1
    edges = (torch.rand(1, 1, 24, 28) > 0.8).float()
    model.eval(), merging.eval()
    with torch.no_grad():
        drawn, picture = model.generate(image, hole, edges)
        torch.testing.assert_close(merging.generate(image, hole, edges)[0], drawn)
        assert not torch.equal(merging.generate(image, hole, edges)[1], picture)
        torch.testing.assert_close(
            merging.paint(image, hole, torch.where(hole > 0, drawn, edges)),
            merging.generate(image, hole, edges)[1],
        )
        inside = torch.where(hole > 0, 1 - edges, edges)
        assert torch.equal(model.generate(image, hole, inside)[1], picture)
        swapped = small(channel_order="bgr").brightness(image.flip(1))
    torch.testing.assert_close(swapped, model.brightness(image))


def test_without_scikit_image(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.feature", None)
    image, hole = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    hole[..., :8] = 1
    with pytest.raises(ImportError, match=r"scikit-image .* 'inpaint-ops\[edges\]'"):
        small().complete(image, hole)


@pytest.mark.parametrize("adversarial", ["lsgan", "hinge"])
def test_other_games(adversarial):
    model = small(adversarial=adversarial)
    image = torch.rand(1, 3, 64, 64)
    score = model.inpaint_discriminator(image)[0]
    assert bool(((score > 0) & (score < 1)).all()) == (adversarial == "lsgan")
    hole = torch.zeros(1, 1, 64, 64)
    hole[..., 20:40] = 1
    losses = model.recipe("edge").step(image, hole)
    assert all(abs(value) < float("inf") for value in losses.values())


@pytest.mark.parametrize(
    "options", [{"sigma": 0.0}, {"adversarial": "wgan"}, {"residual_blocks": 0}]
)
def test_wrong_options(options):
    with pytest.raises(ValueError, match="edge_connect: "):
        create_model("edge_connect", **options)


def test_features_of_the_recipe_exist():
    network = FeatureNetwork.untrained(**EdgeConnectRecipe.feature_network)
    maps = network(torch.rand(1, 3, 32, 32))
    assert list(maps) == list(EdgeConnectRecipe.feature_network["layers"])
