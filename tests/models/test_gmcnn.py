"""GMCNN: numbers of the public port, parameter counts, layer table, both phases."""

import pytest
import torch
from golden_networks import drawn_state, network_golden
from model_cases import manifest
from support import check_network
from torch import nn

from inpaint_ops.models import create_model, parameter_counts
from inpaint_ops.models.gmcnn.model import GMCNN
from inpaint_ops.models.gmcnn.networks import Critic, Generator


def test_generator_equals_the_port():
    z, recipe = network_golden("gmcnn_shepnerd_196")
    state = drawn_state(manifest("gmcnn.shepnerd"), recipe, z["param_sum"])
    model = create_model("gmcnn", weights=state, critic_size=16, local_size=16)
    with torch.no_grad():
        check_network(model.generator(z["x"]), z["out"])


def test_critic_equals_the_port():
    z, recipe = network_golden("gmcnn_discriminator_64")
    critic = Critic(16, 64)
    own = critic.state_dict()
    names = {}
    kinds = {"bias": "bias", "weight_u": "0._u", "weight_v": "0._v", "weight_bar": "original"}
    for i, layer in enumerate(("conv0", "conv1", "conv2", "conv3", "linear")):
        for public, ours in kinds.items():
            place = ours if public == "bias" else f"parametrizations.weight.{ours}"
            names[f"layers.{i}.module.{public}"] = f"{layer}.{place}"
    shapes = {public: tuple(own[ours].shape) for public, ours in names.items()}
    state = drawn_state(shapes, recipe, z["param_sum"])
    critic.load_state_dict({names[key]: value for key, value in state.items()})
    # The port iterates in evaluation mode too.
    critic.eval()
    check_network(critic(z["x"]).detach(), z["logit"])
    for i, layer in ((0, critic.conv0), (4, critic.linear)):
        check_network(layer.parametrizations.weight[0]._u, z[f"layers.{i}.weight_u_after"])


def test_parameter_counts():
    model = create_model("gmcnn")
    assert parameter_counts(model) == {"generator": 12_561_891, "discriminator": 5_417_730}
    columns = [sum(p.numel() for p in column.parameters()) for column in model.generator.columns]
    assert columns == [7_132_576, 3_947_040, 1_449_568]


def test_layer_table():
    generator = Generator(32)
    for column, kernel in zip(generator.columns, (7, 5, 3)):
        dilations = []
        for layer in column:
            assert layer.kernel_size == (kernel, kernel)
            assert layer.padding == layer.dilation[0] * (kernel // 2)
            assert layer.padding_mode == "reflect"
            assert layer.activation == "elu"
            dilations.append(layer.dilation[0])
        assert dilations[6:10] == [2, 4, 8, 16]
        assert dilations[:6] + dilations[10:] == [1] * (len(dilations) - 4)
    assert generator.merge.in_channels == 224
    assert generator.to_picture.activation == "identity"


def small(**options):
    torch.manual_seed(0)
    return GMCNN(
        **{
            "base_channels": 2,
            "critic_channels": 2,
            "critic_size": 196,
            "local_size": 64,
            **options,
        }
    )


class Texture(nn.Module):
    """Two maps with the names that the recipe asks for."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 5, 4, 2)
        self.second = nn.Conv2d(6, 8, 3, 2, 1)
        self.requires_grad_(False)

    def forward(self, x):
        y = self.first(x).relu()
        return {"relu3_1": y, "relu4_1": self.second(y).relu()}


def batch():
    image = torch.rand(2, 3, 196, 196, generator=torch.Generator().manual_seed(1))
    hole = torch.zeros(2, 1, 196, 196)
    hole[0, :, 60:124, 40:104] = 1
    hole[1, :, 4:30, 150:190] = 1
    return image, hole


def test_pretraining_needs_neither_critics_nor_features():
    model = small()
    recipe = model.recipe("pretrain")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    result = recipe.step(*batch())
    assert set(result) == {"reconstruction", "auto_encoding", "generator"}
    expected = 1.4 * result["reconstruction"] + 1.2 * result["auto_encoding"]
    assert result["generator"] == pytest.approx(expected)
    after = model.state_dict()
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert moved == {k for k in before if k.startswith("generator.")}


def test_finetuning_steps_the_critics_five_times():
    model = small()
    recipe = model.recipe("finetune", features=Texture())
    result = recipe.step(*batch())
    numbers = recipe.numbers
    terms = ("reconstruction", "auto_encoding", "texture", "adversarial")
    expected = sum(numbers[name] * result[name] for name in terms)
    assert result["generator"] == pytest.approx(expected, rel=1e-5)
    steps = {
        name: {int(s["step"]) for s in one.state.values()}
        for name, one in recipe.optimizers.items()
    }
    assert steps == {"generator": {1}, "discriminator": {5}}
    # Hinge of both critics: 4 where they know nothing, less where they have learnt.
    assert 0 < result["critic"] < 4.5


def test_sizes_are_checked():
    model = small()
    with pytest.raises(ValueError, match="at least 196"):
        model.generator(torch.zeros(1, 4, 192, 256))
    with pytest.raises(ValueError, match="multiples of 4"):
        model.generator(torch.zeros(1, 4, 196, 198))
    with pytest.raises(ValueError, match="critics take pictures of their own size"):
        model.discriminator(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="local_size must be at most"):
        GMCNN(critic_size=64)
    with pytest.raises(ValueError, match="base_channels must be even"):
        GMCNN(base_channels=3)
    with pytest.raises(ValueError, match="features must be given in phase finetune"):
        model.recipe("finetune")


def test_completion_of_a_small_picture():
    model = small()
    image, hole = torch.rand(1, 3, 30, 41), torch.zeros(1, 1, 30, 41)
    hole[..., 5:20, 5:20] = 1
    result = model.complete(image, hole)
    assert result.shape == image.shape
    assert not torch.equal(result, image)
