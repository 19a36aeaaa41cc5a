"""Tables of layers, from which layouts make the keys of state dicts."""

import pytest
from model_cases import small
from torch import nn

from inpaint_ops.models import save_weights
from inpaint_ops.models.blocks.spectral_norm import spectral
from inpaint_ops.models.weights.layouts import layer_keys


def network():
    return nn.ModuleDict(
        {
            "stem": spectral(nn.Conv2d(3, 4, 3)),
            "norm": nn.BatchNorm2d(4),
            "blocks": nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2), nn.ReLU()),
        }
    )


def test_a_row_is_all_that_the_network_holds_of_a_layer():
    keys = layer_keys({"conv1.module": "stem", "bn1": "norm"}, weight="weight_bar")(network())
    assert keys == {
        "conv1.module.bias": "stem.bias",
        "conv1.module.weight_bar": "stem.parametrizations.weight.original",
        "conv1.module.weight_u": "stem.parametrizations.weight.0._u",
        "conv1.module.weight_v": "stem.parametrizations.weight.0._v",
        **{
            f"bn1.{kind}": f"norm.{kind}"
            for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        },
    }


def test_numbers_count_up_from_both_starts():
    keys = layer_keys({"fc{6}": "blocks.{0}"})(network())
    assert keys == {
        "fc6.weight": "blocks.0.weight",
        "fc7.weight": "blocks.1.weight",
        "fc7.bias": "blocks.1.bias",
    }


def test_layers_that_the_network_lacks_are_errors():
    with pytest.raises(KeyError, match="tail"):
        layer_keys({"last": "tail"})(network())
    with pytest.raises(KeyError, match=r"heads\.0"):
        layer_keys({"fc{1}": "heads.{0}"})(network())


def test_saving_in_the_layout_of_another_variant_is_refused(tmp_path):
    for name, layout in (
        ("deepfill_v2", "zhaoyuzhi/generator"),
        ("deepfill_v2", "zhaoyuzhi/discriminator"),
        ("context_encoder", "eriklindernoren/discriminator"),
    ):
        with pytest.raises(ValueError, match=f"{layout} is of another variant"):
            save_weights(small(name), tmp_path / "weights.safetensors", layout=layout)
