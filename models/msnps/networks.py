"""Networks of MSNPS: those of Context Encoders, the content network with ELU."""

from __future__ import annotations

from inpaint_ops.models.context_encoder.networks import EncoderDecoder, RegionDiscriminator


class ContentNetwork(EncoderDecoder):
    """Predict the middle 64^2 pixels of a square of 128^2, as Context Encoder's centre network.

    Args:
        base_channels: filters of the first layer.
        bottleneck: length of the code.
        elu_alpha: of ELU.
    """

    def __init__(self, *, base_channels: int, bottleneck: int, elu_alpha: float) -> None:
        super().__init__(
            base_channels=base_channels,
            bottleneck=bottleneck,
            activations=("elu", "elu"),
            alpha=elu_alpha,
        )


class ContentDiscriminator(RegionDiscriminator):
    """Judge the predicted 64^2 pixels, as Context Encoder's discriminator.

    Args:
        base_channels: filters of the first layer.
    """

    def __init__(self, *, base_channels: int) -> None:
        super().__init__(base_channels=base_channels)
