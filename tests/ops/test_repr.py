"""What layers print: sizes, and every option that is not the default."""

import pytest
from torch import nn

from inpaint_ops import layers
from inpaint_ops.features import INPUT_RULES, FeatureNetwork, InputRule

# Arguments by keyword, and what the text must hold.
CONVOLUTION = {
    "in_channels": 6,
    "out_channels": 4,
    "kernel_size": 3,
    "stride": 2,
    "padding": 1,
    "dilation": 2,
    "bias": False,
    "algorithm": "direct",
}
PLAIN = (
    *("6, 4, kernel_size=(3, 3)", "stride=(2, 2)", "padding=1", "dilation=(2, 2)", "bias=False"),
    "algorithm='direct'",
)
TABLE = {
    layers.FusedConv2d: (
        {**CONVOLUTION, "groups": 2, "padding_mode": "reflect", "activation": "relu"},
        (*PLAIN, "groups=2", "padding_mode='reflect'", "activation='relu'"),
    ),
    layers.GatedConv2d: (
        {**CONVOLUTION, "stride": 1, "upsample": 2, "activation": "relu"},
        (*(part for part in PLAIN if "stride" not in part), "upsample=2", "activation='relu'"),
    ),
    layers.FusedConvTranspose2d: (
        {
            **{"in_channels": 6, "out_channels": 4, "kernel_size": 4, "stride": 2, "padding": 1},
            **{"bias": False, "activation": "elu", "algorithm": "direct"},
        },
        (
            *("6, 4, kernel_size=(4, 4)", "stride=(2, 2)", "padding=(1, 1)", "bias=False"),
            *("activation='elu'", "algorithm='direct'"),
        ),
    ),
    layers.PartialConv2d: (
        {**CONVOLUTION, "groups": 2, "multi_channel": True, "return_mask": True},
        (
            *("6, 4, kernel_size=(3, 3)", "stride=(2, 2)", "padding=(1, 1)", "dilation=(2, 2)"),
            *("groups=2", "bias=False", "multi_channel=True", "return_mask=True"),
            "algorithm='direct'",
        ),
    ),
    layers.InstanceNorm2d: (
        {"num_features": 5, "eps": 1e-3, "affine": True, "activation": "relu"},
        ("5, eps=0.001", "affine=True", "activation='relu'"),
    ),
    layers.ChannelwiseLinear: (
        {"channels": 5, "size": (3, 4), "out_size": (2, 1), "bias": False},
        ("5, size=(3, 4)", "out_size=(2, 1)", "bias=False"),
    ),
    layers.ContextualAttention: (
        {
            **{"rate": 4, "softmax_scale": 5.0, "fuse": True, "n_down": 3, "return_flow": True},
            **{"pick": "align_corners", "key_norm": "sum", "hole_mode": "exclude"},
            "overlap": "count",
        },
        (
            *("rate=4", "softmax_scale=5.0", "fuse=True", "n_down=3", "return_flow=True"),
            *("pick='align_corners'", "key_norm='sum'", "hole_mode='exclude'", "overlap='count'"),
        ),
    ),
    layers.ShiftConnection: (
        {"gradient_scale": 0.5, "hole_rule": "convolution"},
        ("gradient_scale=0.5", "hole_rule='convolution'"),
    ),
    layers.GuidanceLoss: (
        {"strength": 2.0, "hole_rule": "convolution", "mask_target": False},
        ("strength=2.0", "hole_rule='convolution'", "mask_target=False"),
    ),
    layers.IDMRFLoss: (
        {
            **{
                "features": dict,
                "weights": {"relu3_2": 2.0},
                "bandwidth": 0.25,
                "eps": 1e-3,
                "center": "spatial",
            },
            **{"reduction": "mean", "exclude_self": True, "max_patches": 9},
        },
        (
            *("'relu3_2': 2.0", "bandwidth=0.25", "eps=0.001", "center='spatial'"),
            *("reduction='mean'", "exclude_self=True", "max_patches=9"),
        ),
    ),
}


def test_the_table_has_every_layer():
    made = [getattr(layers, name) for name in layers.__all__]
    assert {one for one in made if isinstance(one, type) and issubclass(one, nn.Module)} == set(
        TABLE
    )


@pytest.mark.parametrize("layer", TABLE, ids=lambda layer: layer.__name__)
def test_text_has_sizes_and_options(layer):
    options, parts = TABLE[layer]
    text = repr(layer(**options))
    assert text.startswith(f"{layer.__name__}(")
    assert [part for part in parts if part not in text] == []
    assert "\n" not in text


@pytest.mark.parametrize("rule", [*INPUT_RULES, InputRule(scale=3.0)])
def test_text_of_a_feature_network(rule):
    network = FeatureNetwork.untrained(
        "vgg16", layers=("relu1_1",), rule=rule, pooling="average", ceil=True
    )
    text = repr(network)
    for part in ("'vgg16'", "relu1_1", f"rule={rule!r}", "pooling='average'", "ceil=True"):
        assert part in text
