"""EdgeConnect: edges are completed first, then colours along them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inpaint_ops import checks
from inpaint_ops.checkpoints import State
from inpaint_ops.models.blocks.canny import canny, grey
from inpaint_ops.models.blocks.pictures import composite, erase, stacked
from inpaint_ops.models.edge_connect.layouts import LAYOUTS
from inpaint_ops.models.edge_connect.networks import Discriminator, Generator
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.weights.layouts import Implied

_OP = "edge_connect"
_MOST_BLOCKS = 256
# Values of the option `adversarial`, and the kind of each in `inpaint_ops.losses`.
ADVERSARIAL = {"nsgan": "log", "lsgan": "lsgan", "hinge": "hinge"}


class EdgeConnect(InpaintingModel):
    """Two generators, for the edges in the hole and for its colours, each with a discriminator.

    Edges of the known part are Canny's, by scikit-image (extra `edges`), or those given to
    `complete`, `generate` or a training step. Edges in the hole are never looked at.

    Args:
        base_channels: width of the generators' first layer.
        critic_channels: width of the discriminators' first layer.
        residual_blocks: of each generator.
        adversarial: "nsgan", "lsgan" or "hinge", whose discriminators have no sigmoid.
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
    hint_names = ("edges",)
    layouts = LAYOUTS

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
        """Return the brightness, (N, 1, H, W), of (N, 3, H, W) in the model's channel order."""
        return grey(image if self.channel_order == "rgb" else image.flip(1))

    def complete_edges(self, image: Tensor, hole: Tensor, edges: Tensor) -> Tensor:
        """Return the first stage's edges in [0, 1], (N, 1, H, W), known ones predicted too."""
        brightness = erase(self.brightness(image), hole, 1.0)
        result: Tensor = self.edge_generator(stacked(brightness, erase(edges, hole), hole))
        return result

    def paint(self, image: Tensor, hole: Tensor, edges: Tensor) -> Tensor:
        """Return the second stage's picture in [0, 1], (N, 3, H, W), along complete edges."""
        result: Tensor = self.inpaint_generator(stacked(erase(image, hole, 1.0), edges))
        return result

    def generate(
        self, image: Tensor, hole: Tensor, edges: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return both stages' results, edges (N, 1, H, W) and picture (N, 3, H, W), in [0, 1].

        Args:
            image: (N, 3, H, W) in [0, 1].
            hole: (N, 1, H, W), 1 = missing.
            edges: (N, 1, H, W), 1 = edge, used outside the hole; None takes Canny's.

        Raises:
            ImportError: no edges were given and scikit-image is not installed.
        """
        if edges is None:
            edges = canny(self.name, self.brightness(image), hole, self.sigma)
        drawn = self.complete_edges(image, hole, edges)
        lines = composite(edges, drawn, hole) if self.merge_edges else drawn
        return drawn, self.paint(image, hole, lines)

    def hints(self, image: Tensor, hole: Tensor) -> tuple[Tensor, ...]:
        """Return Canny's edges of the known part, one (N, 1, H, W), 1 = edge; see `generate`."""
        picture, cells, _ = self._framed(image, (hole > 0).expand(image.shape[0], -1, -1, -1))
        return (canny(self.name, grey(picture), cells, self.sigma),)

    def _fill_with(
        self,
        image: Tensor,
        hole: Tensor,
        hints: tuple[Tensor, ...],
        *,
        wanted: Tensor | None,
        seed: int,
    ) -> Tensor:
        return self.generate(image, hole, *hints)[1]
