"""Every method in a size that tests can afford: options, manifests, features, tolerances."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from inpaint_ops.models import create_model, model_class
from inpaint_ops.models.blocks.conv_block import initialise
from inpaint_ops.models.edge_connect.recipe import EdgeConnectRecipe
from inpaint_ops.models.gmcnn.recipe import GMCNNRecipe
from inpaint_ops.models.partial_conv_unet.recipe import PartialConvUNetRecipe
from inpaint_ops.models.shift_net.recipe import ShiftNetRecipe


class ToyFeatures(nn.Module):
    """Stands for a VGG network: maps of the names asked for, of a few channels."""

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.maps = nn.ModuleDict({name: nn.Conv2d(3, 4, 5, 4) for name in layers})
        self.requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {name: layer(image).relu() for name, layer in self.maps.items()}


MANIFESTS = Path(__file__).parents[1] / "manifests"


@dataclass(frozen=True)
class ModelCase:
    """A method in a size that tests can afford.

    `manifests`: file (without .json) to (layout/network, options of the model it belongs to).
    `training`: side of the pictures in a training step; `features`: makes the feature network.
    """

    small: Mapping[str, Any]
    manifests: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict)
    # Options that files of a layout need: layout/network to the options.
    asked: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sizes: tuple[tuple[int, int], ...] = ((16, 16), (37, 50))
    training: int = 64
    features: Callable[[], torch.nn.Module] | None = None
    # Largest difference between fused and reference completions, in levels of [0, 1].
    tolerance: float = 1e-4
    # Standard deviation of the weights, where the published start leaves no signal in evaluation.
    spread: float | None = None
    # Pattern of parameters without effect in training: biases that a normalisation takes away.
    idle: str | None = None


CASES: dict[str, ModelCase] = {
    "context_encoder": ModelCase(
        {"base_channels": 8, "bottleneck": 32},
        {
            "context_encoder.boyuanjiang": ("boyuanjiang/generator", {"variant": "centre"}),
            "context_encoder.boyuanjiang.discriminator": ("boyuanjiang/discriminator", {}),
            "context_encoder.eriklindernoren": (
                "eriklindernoren/generator",
                {"variant": "convolutional", "bias": True},
            ),
            "context_encoder.eriklindernoren.discriminator": (
                "eriklindernoren/discriminator",
                {"variant": "convolutional"},
            ),
        },
        sizes=((16, 16), (37, 50), (200, 150)),
        spread=0.15,
    ),
    "deepfill_v1": ModelCase(
        {"base_channels": 8, "critic_channels": 4, "size": 64},
        {
            "deepfillv1.daa233": (
                "daa233/generator",
                {"padding": "symmetric", "pick": "floor", "key_norm": "sum"},
            ),
            "deepfillv1.daa233_global_disc": ("daa233/global_critic", {"size": 256}),
            "deepfillv1.daa233_local_disc": (
                "daa233/local_critic",
                {"size": 256, "local_channels": 256},
            ),
        },
        # Real and fake scores shift alike.
        idle=r"linear\.bias$",
    ),
    "deepfill_v2": ModelCase(
        {"base_channels": 8, "critic_channels": 4},
        {
            "deepfillv2.nipponjo": (
                "nipponjo/generator",
                {"padding": "symmetric", "pick": "floor", "fuse": True},
            ),
            "deepfillv2.nipponjo_tf": ("nipponjo_tf/generator", {"fuse": False}),
            "deepfillv2.nipponjo_disc": ("nipponjo/discriminator", {}),
            "deepfillv2.nipponjo_tf_disc": ("nipponjo/discriminator", {}),
            "deepfillv2.zhaoyuzhi": ("zhaoyuzhi/generator", {"variant": "zhaoyuzhi"}),
            "deepfillv2.zhaoyuzhi_disc": ("zhaoyuzhi/discriminator", {"variant": "zhaoyuzhi"}),
        },
    ),
    "glcic": ModelCase(
        {"base_channels": 8, "global_size": 64, "local_size": 32},
        {
            "glcic.otenim": ("otenim/generator", {"norm_first": False, "subtract_mean": False}),
            "glcic.official_converted_sequential": (
                "official_converted/generator",
                {"norm_first": True, "subtract_mean": True},
            ),
            "glcic.otenim.discriminator_places2_256_128": (
                "otenim/discriminator",
                {"global_size": 256, "local_size": 128},
            ),
            "glcic.otenim.discriminator_celeba_160_96": (
                "otenim/discriminator",
                {"global_size": 160, "local_size": 96, "norm_first": False},
            ),
        },
        asked={"otenim/generator": {"mean": (0.2, 0.3, 0.4)}},
        idle=r"conv\.bias$",
    ),
    # The texture is synthesised in test_msnps.py, which has features for it.
    "msnps": ModelCase(
        {"base_channels": 8, "bottleneck": 32, "energy": "none"},
        {"msnps.zhanzhoufeng": ("zhanzhoufeng/content_network", {"elu_alpha": 0.2})},
        spread=0.15,
    ),
    "patch_gan": ModelCase({"base_channels": 8, "image_size": 64}, spread=0.1),
    "edge_connect": ModelCase(
        {"base_channels": 8, "critic_channels": 4, "residual_blocks": 2},
        {
            "edgeconnect.edge_generator": ("knazeri/edge_generator", {"residual_blocks": 8}),
            "edgeconnect.inpaint_generator": ("knazeri/inpaint_generator", {"base_channels": 64}),
            "edgeconnect.edge_discriminator": ("knazeri/edge_discriminator", {}),
            "edgeconnect.inpaint_discriminator": ("knazeri/inpaint_discriminator", {}),
        },
        sizes=((12, 16), (37, 50)),
        idle=r"_generator\.(stem|down|middle|up).*bias$",
        features=lambda: ToyFeatures(EdgeConnectRecipe.feature_network["layers"]),
    ),
    "shift_net": ModelCase(
        {"base_channels": 4, "critic_channels": 4},
        {
            "shiftnet.zhaoyiyan": ("zhaoyiyan/generator", {"in_channels": 4, "face": False}),
            "shiftnet.zhaoyiyan_in3": ("zhaoyiyan/generator", {"in_channels": 3}),
            "shiftnet.zhaoyiyan_face": ("zhaoyiyan_face/generator", {"face": True}),
            "shiftnet.zhaoyiyan_disc": ("zhaoyiyan/discriminator", {}),
        },
        sizes=((37, 50), (264, 250)),
        training=256,
        idle=r"conv\d?\.bias$",
        features=lambda: ToyFeatures(ShiftNetRecipe.feature_network["layers"]),
    ),
    "gmcnn": ModelCase(
        {"base_channels": 4, "critic_channels": 2, "critic_size": 196, "local_size": 64},
        {
            "gmcnn.shepnerd": ("shepnerd/generator", {"base_channels": 32}),
            "gmcnn.shepnerd.global_local_discriminator": (
                "shepnerd/discriminator",
                {"critic_channels": 64, "critic_size": 256, "local_size": 128},
            ),
        },
        training=196,
        # While a critic is unsure of both, its bias has slopes of 1 and -1 in the hinge loss.
        idle=r"discriminator\..*linear\.bias$",
        features=lambda: ToyFeatures(GMCNNRecipe.feature_network["layers"]),
    ),
    "partial_conv_unet": ModelCase(
        {"base_channels": 4, "levels": 5},
        {
            "partialconv.naoto0804": (
                "naoto0804/generator",
                {"levels": 7, "normalise": "sum", "input_range": "imagenet", "stem_bias": False},
            ),
            "partialconv.mmagic": (
                "mmagic/generator",
                {
                    "levels": 7,
                    "normalise": "window",
                    "input_range": "signed",
                    "stem_bias": True,
                    "channel_order": "bgr",
                },
            ),
        },
        features=lambda: ToyFeatures(PartialConvUNetRecipe.feature_network["layers"]),
    ),
}


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a public state dict."""
    content = json.loads((MANIFESTS / f"{name}.json").read_text())
    return {key: tuple(shape) for key, shape in content.items()}


def synthetic(shapes: Mapping[str, tuple[int, ...]], seed: int = 0) -> dict[str, Tensor]:
    """A state dict with such keys: small numbers, positive where variances are wanted."""
    rng = np.random.default_rng(seed)
    state = {}
    for key, shape in shapes.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros((), dtype=torch.int64)
            continue
        values = torch.from_numpy(rng.standard_normal(shape).astype(np.float32))
        fan = max(1, values[0].numel()) if values.dim() > 1 else 1
        state[key] = values.abs() + 0.5 if key.endswith("running_var") else values / fan**0.5
    return state


def small(name, **options):
    torch.manual_seed(0)
    model = create_model(name, **{**CASES[name].small, **options})
    if CASES[name].spread is not None:
        initialise(model, CASES[name].spread)
    return model


# All phases of all methods.
PHASES = [(name, phase.name) for name in CASES for phase in model_class(name).recipe_class.phases]
# Those and other forms of methods: options and phase.
FORMS = [(name, {}, phase) for name, phase in PHASES] + [
    ("context_encoder", {"variant": "random_64"}, "joint"),
    ("context_encoder", {"variant": "convolutional"}, "joint"),
    ("context_encoder", {"variant": "alexnet"}, "reconstruction"),
    ("deepfill_v2", {"variant": "zhaoyuzhi"}, "joint"),
    ("deepfill_v2", {"sketch": True}, "joint"),
    ("glcic", {"norm_first": False}, "joint"),
    ("shift_net", {"norm": "batch"}, "joint"),
    ("shift_net", {"mirror": "exact", "face": True}, "joint"),
    ("shift_net", {"mirror": "port", "face": True}, "joint"),
]


def picture(*shape, seed=1):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def box(n, h, w):
    hole = torch.zeros(n, 1, h, w, dtype=torch.bool)
    for i in range(n):
        hole[i, :, h // 4 + i : h // 2 + 1 + i, w // 4 : (3 * w) // 4] = True
    return hole


def recipe_of(model, phase, **options):
    """The recipe of a small model, with the features that it needs, in the model's dtype."""
    features = CASES[model.name].features
    made = None if features is None else features().to(next(model.parameters()).dtype)
    return model.recipe(phase, features=made, **options)


def batch(name, dtype=torch.float32):
    """Pictures and holes of a training step."""
    side = CASES[name].training
    return picture(2, 3, side, side).to(dtype), box(2, side, side)
