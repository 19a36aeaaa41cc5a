"""Networks of DeepFill v2: the generator of two stages and the SN-PatchGAN critic."""

from __future__ import annotations

from torch import Tensor, nn

from inpaint_ops.layers import ContextualAttention, FusedConv2d, GatedConv2d
from inpaint_ops.models.blocks import pictures
from inpaint_ops.models.blocks.pictures import composite, pad_for
from inpaint_ops.models.blocks.spectral_norm import spectral
from inpaint_ops.models.blocks.two_stage import COARSE, Refinement, chain, check_sides, to_picture


class Generator(nn.Module):
    """Both stages; ELU on the features, no normalisation.

    Args:
        width: channels of the first layer.
        inputs: 5, or 6 with a sketch.
        padding: "same" or "symmetric".
        attention: the layer in the middle.
    """

    def __init__(
        self, width: int, inputs: int, padding: str, attention: ContextualAttention
    ) -> None:
        super().__init__()
        coarse = chain(GatedConv2d, COARSE, inputs, width, padding)
        self.coarse = to_picture(coarse, "conv17", width, padding, "tanh")
        self.refinement = Refinement(GatedConv2d, 3, width, padding, attention, "tanh")
        for module in self.modules():
            if isinstance(module, FusedConv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, hole: Tensor) -> tuple[Tensor, Tensor]:
        """Fill in two steps.

        Args:
            x: (N, 5, H, W): picture in [-1, 1] with 0 where it is missing, ones, hole; with a
                sketch (N, 6, H, W), its lines inside the hole as channel 3. Sides are multiples
                of 8 in the ports; multiples of 4 round the attention's grid up.
            hole: (N, 1, H, W), 1 = missing.

        Returns:
            The pictures of both stages, (N, 3, H, W) in [-1, 1], known pixels predicted too.

        Raises:
            ValueError: other sides.
        """
        check_sides("deepfill_v2.generator", x)
        first: Tensor = self.coarse(x)
        second = self.refinement(pictures.arranged(composite(x[:, :3], first, hole)), hole)
        return first, second


class PatchCritic(nn.Module):
    """SN-PatchGAN: six 5x5 convolutions of stride 2; every output judges a patch.

    Args:
        width: channels of the first layer.
        inputs: 4, or 5 with a sketch.
        padding: "same" or "symmetric".
    """

    def __init__(self, width: int = 64, inputs: int = 4, padding: str = "same") -> None:
        super().__init__()
        for index, times in enumerate((1, 2, 4, 4, 4, 4), start=1):
            layer = FusedConv2d(
                inputs, times * width, 5, 2, pad_for(5, 1, padding), activation="leaky_relu"
            )
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
            self.add_module(f"conv{index}", spectral(layer, always=True))
            inputs = times * width

    def forward(self, x: Tensor) -> Tensor:
        """(N, 4, H, W), picture in [-1, 1] and hole, to (N, patches) scores, channels outside."""
        for layer in self.children():
            x = layer(x)
        return x.flatten(1)
