"""VGG feature networks: layers, weights of torchvision's layout, input rules, errors."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from support import check_close

import inpaint_ops
from inpaint_ops.features import INPUT_RULES, FeatureNetwork, InputRule

MANIFEST = Path(__file__).parents[1] / "manifests" / "msnps.torchvision_vgg19_to_relu4_2.json"
# Index of the convolutions in torchvision's `features`, and where its pooling layers are.
VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
VGG19 = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34)
POOLS = {"vgg16": (4, 9, 16, 23, 30), "vgg19": (4, 9, 18, 27, 36)}
# Where the sheets say the layers are.
INDICES = {
    "vgg19": {"relu1_1": 1, "relu2_1": 6, "relu2_2": 8, "relu3_1": 11, "relu3_4": 17}
    | {"relu4_1": 20, "relu4_2": 22, "relu4_4": 26, "relu5_1": 29, "relu5_2": 31},
    "vgg16": {"pool1": 4, "pool2": 9, "pool3": 16, "conv3_1": 10, "relu4_3": 22},
}


def weights_for(name, seed=0, last=None):
    """A state dict of torchvision's shapes up to an index, thinned to nothing but random values."""
    generator = torch.Generator().manual_seed(seed)
    state, inputs = {}, 3
    widths = iter([64] * 2 + [128] * 2 + [256] * (3 + (name == "vgg19")) + [512] * 8)
    for index, width in zip(VGG16 if name == "vgg16" else VGG19, widths):
        if last is not None and index > last:
            break
        scale = (2 / (9 * inputs)) ** 0.5
        state[f"features.{index}.weight"] = scale * torch.randn(
            width, inputs, 3, 3, generator=generator
        )
        state[f"features.{index}.bias"] = 0.1 * torch.randn(width, generator=generator)
        inputs = width
    return state


def torchvision_maps(name, state, x, indices, pool=F.max_pool2d, **pooling):
    """The output after every index, one PyTorch call each."""
    maps = {}
    for i in range(max(indices) + 1):
        if i in POOLS[name]:
            x = pool(x, 2, 2, **pooling)
        elif f"features.{i}.weight" in state:
            x = F.conv2d(x, state[f"features.{i}.weight"], state[f"features.{i}.bias"], padding=1)
        else:
            x = F.relu(x)
        maps[i] = x
    return maps


@pytest.mark.parametrize("name", ["vgg16", "vgg19"])
def test_maps_and_gradient_equal_the_plain_network(name):
    state = weights_for(name)
    indices = INDICES[name]
    net = FeatureNetwork(name, state, layers=list(indices), rule="plain")
    image = torch.rand(1, 3, 17, 24, generator=torch.Generator().manual_seed(1))
    x = image.clone().requires_grad_()
    maps = net(x)
    assert list(maps) == list(indices)
    wide = image.double().requires_grad_()
    plain = torchvision_maps(
        name, {k: v.double() for k, v in state.items()}, wide, indices.values()
    )
    for label, index in indices.items():
        check_close(maps[label].detach(), plain[index].detach(), terms=16 * 9 * 512)
    last = max(indices.values())
    label = next(k for k, v in indices.items() if v == last)
    (grad,) = torch.autograd.grad(maps[label].square().mean(), x)
    (expected,) = torch.autograd.grad(plain[last].square().mean(), wide)
    # A ReLU that flips on a rounding error moves single gradients, not their sum of squares.
    assert (grad - expected).norm() <= 5e-3 * expected.norm()


def test_weights_are_frozen_and_in_evaluation_mode():
    net = FeatureNetwork.untrained("vgg16", layers=["relu1_2"])
    assert not any(p.requires_grad for p in net.parameters())
    assert not net.training
    assert list(net.convolutions) == ["conv1_1", "conv1_2"]


def test_manifest_of_msnps():
    shapes = json.loads(MANIFEST.read_text())
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    net = FeatureNetwork("vgg19", state, layers=["relu3_1", "relu4_1", "relu4_2"])
    assert sum(p.numel() for p in net.parameters()) == 5_865_536
    with pytest.raises(ValueError, match=r"features\.23\.weight"):
        FeatureNetwork("vgg19", state, layers=["relu4_3"])


def test_files_classifier_and_prefixes(tmp_path):
    state = weights_for("vgg16", last=7)
    bare = FeatureNetwork("vgg16", state, layers=["relu2_2"])
    whole = {**weights_for("vgg16"), "classifier.0.weight": torch.zeros(3, 3)}
    for key, value in state.items():
        whole[key] = value
    torch.save({f"module.{k}": v for k, v in whole.items()}, tmp_path / "vgg.pth")
    pytest.importorskip("safetensors.torch").save_file(state, str(tmp_path / "vgg.safetensors"))
    x = torch.rand(1, 3, 16, 16)
    for file in ("vgg.pth", "vgg.safetensors"):
        net = FeatureNetwork("vgg16", tmp_path / file, layers=["relu2_2"])
        assert torch.equal(net(x)["relu2_2"], bare(x)["relu2_2"])
    prefixed = {f"model.vgg.{key}": value for key, value in whole.items()}
    alone = {key.removeprefix("features."): value for key, value in state.items()}
    for given in (prefixed, {"epoch": 1, "state_dict": prefixed}, alone, {"model": alone}):
        net = FeatureNetwork("vgg16", given, layers=["relu2_2"])
        assert torch.equal(net(x)["relu2_2"], bare(x)["relu2_2"])


def test_input_rules():
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    state = weights_for("vgg16", last=0)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    caffe = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    fed = {
        "imagenet": (image - mean) / deviation,
        "centred": image - mean,
        "plain": image,
        "caffe": image.flip(1) * 255 - caffe,
        "caffe_256": image.flip(1) * 256 - caffe,
    }
    assert set(fed) == set(INPUT_RULES)
    plain = FeatureNetwork("vgg16", state, layers=["conv1_1"], rule="plain")
    for rule, x in fed.items():
        net = FeatureNetwork("vgg16", state, layers=["conv1_1"], rule=rule)
        check_close(net(image)["conv1_1"], plain(x)["conv1_1"].double(), terms=640)
    own = FeatureNetwork("vgg16", state, layers=["conv1_1"], rule=InputRule(scale=2.0))
    check_close(own(image)["conv1_1"], plain(2 * image)["conv1_1"].double(), terms=640)


def test_pooling_options():
    state = weights_for("vgg19", last=2)
    image = torch.rand(1, 3, 15, 18)
    for pooling, pool in (("max", F.max_pool2d), ("average", F.avg_pool2d)):
        for ceil in (False, True):
            net = FeatureNetwork(
                "vgg19", state, layers=["pool1"], rule="plain", pooling=pooling, ceil=ceil
            )
            wanted = torchvision_maps("vgg19", state, image, [4], pool, ceil_mode=ceil)[4]
            check_close(net(image)["pool1"], wanted.double(), terms=16 * 640)


def test_reference_backend_and_channels_last():
    net = FeatureNetwork.untrained("vgg16", layers=["pool3"], seed=3)
    image = torch.rand(2, 3, 32, 24)
    fused = net(image)["pool3"]
    assert fused.is_contiguous(memory_format=torch.channels_last)
    with inpaint_ops.backend("reference"):
        check_close(fused, net(image)["pool3"].double(), terms=16 * 9 * 256)
    same = FeatureNetwork.untrained("vgg16", layers=["pool3"], seed=3)
    assert torch.equal(same(image)["pool3"], fused)


STATE = {"features.0.weight": torch.zeros(64, 3, 3, 3), "features.0.bias": torch.zeros(64)}
ERRORS = {
    "no weights": (TypeError, "nothing is downloaded", {"weights": None}),
    "no file": (FileNotFoundError, "no-such-file", {"weights": "no-such-file.pth"}),
    "network": (ValueError, "vgg16, vgg19", {"name": "vgg11"}),
    "layer": (ValueError, "layers must be among", {"layers": ["relu6_1"]}),
    "layer text": (ValueError, "layers must be among", {"layers": "relu1_1"}),
    "no layer": (ValueError, "layers must be among", {"layers": []}),
    "rule": (ValueError, "rule must be one of", {"rule": "other"}),
    "pooling": (ValueError, "pooling must be", {"pooling": "min"}),
    "missing": (ValueError, r"no features\.2\.bias", {"layers": ["relu1_2"]}),
    "other network": (
        ValueError,
        r"features\.16\.weight besides",
        {"weights": {**STATE, "features.16.weight": torch.zeros(1)}},
    ),
    "foreign": (ValueError, "keys of torchvision", {"weights": {"conv.weight": torch.zeros(1)}}),
    "shape": (
        ValueError,
        "must have shape",
        {"weights": {**STATE, "features.0.bias": torch.zeros(3)}},
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    kind, text, changed = ERRORS[case]
    arguments = {"name": "vgg16", "weights": STATE, "layers": ["relu1_1"], **changed}
    with pytest.raises(kind, match=text):
        FeatureNetwork(arguments.pop("name"), arguments.pop("weights"), **arguments)


def test_image_errors():
    net = FeatureNetwork("vgg16", STATE, layers=["relu1_1"])
    with pytest.raises(ValueError, match="3 channels"):
        net(torch.zeros(1, 1, 8, 8))
    with pytest.raises(TypeError, match="dtype"):
        net(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
