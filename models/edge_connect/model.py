"""EdgeConnect: edges are completed first, then colours along them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.pictures import composite, erase, stacked
from inpaint_ops.models.blocks.spectral_norm import spectral_keys
from inpaint_ops.models.edge_connect.canny import canny, grey
from inpaint_ops.models.edge_connect.networks import Discriminator, Generator
from inpaint_ops.models.edge_connect.recipe import ADVERSARIAL, EdgeConnectRecipe
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.registry import register_model
from inpaint_ops.models.weights.layouts import Implied, Layout, Place, fixed

_OP = "edge_connect"
_MOST_BLOCKS = 256

# Convolutions of the generator in the port's order, ours to theirs.
_ENDS = {
    "stem": "encoder.1",
    "down1": "encoder.4",
    "down2": "encoder.7",
    "up1": "decoder.0",
    "up2": "decoder.3",
    "head": "decoder.7",
}


def _generator_keys(network: Generator) -> dict[str, Place]:
    names = dict(_ENDS)
    for i in range(len(network.middle)):
        names[f"middle.{i}.conv1"] = f"middle.{i}.conv_block.1"
        names[f"middle.{i}.conv2"] = f"middle.{i}.conv_block.5"
    own = network.state_dict()
    keys: dict[str, Place] = {}
    for ours, theirs in names.items():
        if f"{ours}.bias" in own:
            keys[f"{theirs}.bias"] = f"{ours}.bias"
        if f"{ours}.weight" in own:
            keys[f"{theirs}.weight"] = f"{ours}.weight"
        else:
            keys.update(spectral_keys(theirs, ours))
    return keys


def _discriminator_keys(network: nn.Module) -> dict[str, Place]:
    keys: dict[str, Place] = {}
    for name, _ in network.named_children():
        keys.update(spectral_keys(f"{name}.0", name))
    return keys


def _alias(network: nn.Module) -> State:
    # The port registers its first layer a second time as part of a list.
    own, first = network.state_dict(), spectral_keys("features.0", "conv1")
    return {theirs: own[ours] for theirs, ours in first.items()}


def _generator_options(weight: str) -> Any:
    def options(state: Mapping[str, Tensor]) -> dict[str, Any]:
        blocks = {key.split(".")[1] for key in state if key.startswith("middle.")}
        return {
            "base_channels": state[f"encoder.1.{weight}"].shape[0],
            "residual_blocks": len(blocks),
        }

    return options


def _discriminator_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    return {"critic_channels": state["conv1.0.weight_orig"].shape[0]}


def _judges(channels: int) -> Any:
    return lambda state: state["conv1.0.weight_orig"].shape[1] == channels


_LICENCE, _PORT = "CC BY-NC 4.0", "knazeri/edge-connect"


def _discriminator_layout(network: str, channels: int) -> Layout:
    return Layout(
        "knazeri",
        network,
        _discriminator_keys,
        signature=("conv1.0.weight_orig", "conv2.0.weight_orig"),
        recognise=_judges(channels),
        options=_discriminator_options,
        recipe=fixed(adversarial="nsgan"),
        unstated=("adversarial",),
        hint="GAN_LOSS of its configuration",
        nesting=("discriminator",),
        ignored=(r"^features\.0\.",),
        emitted=_alias,
        licence=_LICENCE,
        source=_PORT,
    )


@register_model("edge_connect")
class EdgeConnect(InpaintingModel):
    """Two generators, for the edges in the hole and for its colours, each with a discriminator.

    Edges of the known part are Canny's, by scikit-image (extra `edges`); `generate` takes others.

    Args:
        base_channels: width of the generators' first layer.
        critic_channels: width of the discriminators' first layer.
        residual_blocks: of each generator.
        adversarial: "nsgan", "lsgan" or "hinge", which does without the discriminators' sigmoid.
        sigma: smoothing before Canny's edges, pixels.
        merge_edges: False gives the colours the completed edges everywhere, as the public test code
            does; True the known edges outside the hole, as its training code does.
        channel_order: of the pictures the weights were trained on.

    Source: Nazeri et al., ICCV Workshops 2019 (arXiv 1901.00212); knazeri/edge-connect.
    """

    multiple = 4
    minimum = 12
    networks = (
        "edge_generator",
        "inpaint_generator",
        "edge_discriminator",
        "inpaint_discriminator",
    )
    completion_networks = ("edge_generator", "inpaint_generator")
    layouts = (
        Layout(
            "knazeri",
            "edge_generator",
            _generator_keys,
            signature=("encoder.1.weight_orig", "decoder.7.weight"),
            options=_generator_options("weight_orig"),
            recipe=fixed(sigma=2.0),
            unstated=("sigma",),
            hint="SIGMA of its configuration",
            nesting=("generator",),
            licence=_LICENCE,
            source=_PORT,
        ),
        Layout(
            "knazeri",
            "inpaint_generator",
            _generator_keys,
            signature=("encoder.1.weight", "decoder.7.weight"),
            recognise=lambda state: "encoder.1.weight_orig" not in state,
            options=_generator_options("weight"),
            nesting=("generator",),
            licence=_LICENCE,
            source=_PORT,
        ),
        _discriminator_layout("edge_discriminator", 2),
        _discriminator_layout("inpaint_discriminator", 3),
    )
    recipe_class = EdgeConnectRecipe

    def __init__(
        self,
        *,
        base_channels: int = 64,
        critic_channels: int = 64,
        residual_blocks: int = 8,
        adversarial: str = "nsgan",
        sigma: float = 2.0,
        merge_edges: bool = False,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        checks.check_int(_OP, "base_channels", base_channels)
        checks.check_int(_OP, "critic_channels", critic_channels)
        checks.check_int(_OP, "residual_blocks", residual_blocks)
        if residual_blocks > _MOST_BLOCKS:
            raise ValueError(
                f"{_OP}: residual_blocks must be at most {_MOST_BLOCKS}, got {residual_blocks}"
            )
        checks.check_choice(_OP, "adversarial", adversarial, tuple(ADVERSARIAL))
        checks.check_finite(_OP, "sigma", sigma)
        if sigma <= 0:
            raise ValueError(f"{_OP}: sigma must be positive, got {sigma}")
        self.base_channels = base_channels
        self.critic_channels = critic_channels
        self.residual_blocks = residual_blocks
        self.adversarial = adversarial
        self.sigma = sigma
        self.merge_edges = merge_edges
        sigmoid = adversarial != "hinge"
        self.edge_generator = Generator(3, 1, base_channels, residual_blocks, edges=True)
        self.inpaint_generator = Generator(4, 3, base_channels, residual_blocks, edges=False)
        self.edge_discriminator = Discriminator(2, critic_channels, sigmoid=sigmoid)
        self.inpaint_discriminator = Discriminator(3, critic_channels, sigmoid=sigmoid)

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        unstated = ["channel_order"]
        normed = "parametrizations.weight.original"
        for network, stem in (("edge", f"stem.{normed}"), ("inpaint", "stem.weight")):
            generator = f"{network}_generator."
            if generator + stem in state:
                blocks = {
                    key.split(".")[2] for key in state if key.startswith(f"{generator}middle")
                }
                facts["base_channels"] = state[generator + stem].shape[0]
                facts["residual_blocks"] = len(blocks)
            judge = f"{network}_discriminator.conv1.{normed}"
            if judge in state:
                facts["critic_channels"] = state[judge].shape[0]
                unstated.append("adversarial")
        if f"edge_generator.stem.{normed}" in state:
            unstated.append("sigma")
        return Implied(facts, tuple(dict.fromkeys(unstated)))

    def brightness(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) in the model's channel order to (N, 1, H, W)."""
        return grey(image if self.channel_order == "rgb" else image.flip(1))

    def complete_edges(self, image: Tensor, hole: Tensor, edges: Tensor) -> Tensor:
        """The first stage's edges in [0, 1], (N, 1, H, W), known ones predicted too."""
        brightness = erase(self.brightness(image), hole, 1.0)
        result: Tensor = self.edge_generator(stacked(brightness, erase(edges, hole), hole))
        return result

    def paint(self, image: Tensor, hole: Tensor, edges: Tensor) -> Tensor:
        """The second stage's picture in [0, 1], (N, 3, H, W), along complete edges."""
        result: Tensor = self.inpaint_generator(stacked(erase(image, hole, 1.0), edges))
        return result

    def generate(
        self, image: Tensor, hole: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both stages' results, edges (N, 1, H, W) and picture (N, 3, H, W), in [0, 1].

        Args:
            image: (N, 3, H, W) in [0, 1].
            hole: (N, 1, H, W), 1 = missing.
            edges: (N, 1, H, W), 1 = edge, used outside the hole; None takes Canny's.

        Raises:
            ImportError: no edges were given and scikit-image is not installed.
        """
        if edges is None:
            edges = canny(self.brightness(image), hole, self.sigma)
        drawn = self.complete_edges(image, hole, edges)
        lines = composite(edges, drawn, hole) if self.merge_edges else drawn
        return drawn, self.paint(image, hole, lines)

    def _fill(self, image: Tensor, hole: Tensor, *, seed: int) -> Tensor:
        return self.generate(image, hole)[1]
