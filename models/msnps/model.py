"""MSNPS: a content network's prediction, then neural patch synthesis at several scales."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from inpaint_ops import checks, needed
from inpaint_ops.checkpoints import State
from inpaint_ops.exporting import Graph
from inpaint_ops.features import FeatureNetwork
from inpaint_ops.models.blocks.centre import fill_centre, fill_colour, largest_share
from inpaint_ops.models.blocks.conv_block import initialise
from inpaint_ops.models.blocks.pictures import composite, unsigned
from inpaint_ops.models.context_encoder.layouts import encoder_decoder_options
from inpaint_ops.models.method import InpaintingModel
from inpaint_ops.models.msnps.layouts import LAYOUTS
from inpaint_ops.models.msnps.networks import ContentDiscriminator, ContentNetwork
from inpaint_ops.models.msnps.texture_energies import (
    PAPER_LAYERS,
    RELEASED_LAYERS,
    NoKnownPatch,
    Settings,
)
from inpaint_ops.models.msnps.texture_synthesis import Trace, region, synthesise
from inpaint_ops.models.squares import hole_by_hole
from inpaint_ops.models.weights.layouts import Implied
from inpaint_ops.models.windows import Fill
from inpaint_ops.ops import tensors
from inpaint_ops.progress import Part

_ENERGIES = ("paper", "released", "none")


class MSNPS(InpaintingModel):
    """High-resolution inpainting by multi-scale neural patch synthesis.

    The content network, a Context Encoder with ELU, predicts each hole in a square around it as
    `ContextEncoder`'s centre network does. Then its texture is synthesised in a region around the
    hole, of twice the hole's size (at least 128 pixels, inside the picture). The region
    is resized to at most `size` pixels. L-BFGS optimises its pixels at `levels` scales, each twice
    as large as the one before, so that feature patches in the hole approach their nearest known
    ones. The result is resized back. Where the region has no known patch at all, the content
    prediction stays. Known pixels are put back; the released code's blending with a feathered mask,
    which would change them, is left out.

    The features are VGG-19's, whose file the user gives: `load_features`. Without them `complete`
    raises, unless energy is "none".

    Args:
        base_channels: filters of the content network's first layer.
        bottleneck: length of its code.
        elu_alpha: of its ELU; 0.2 in the port of ZhanzhouFeng, not known of the paper.
        energy: "paper": distance of the hole's pixels from the content prediction, at finer scales
            from the result of the scale before; distance of 3x3 patches at relu3_1 and relu4_1;
            squared variation of the region (`PaperEnergy`). "released": the energy of the authors'
            code (`ReleasedEnergy`), over the whole region, with unit steps. "none": content network
            alone.
        size: longer side of the finest scale.
        levels: number of scales; fewer where the coarsest would be below 32 pixels.
        iterations: of L-BFGS at each scale; the paper's number is not known, the code's is 100.
        texture_weight, variation_weight: alpha and beta of the paper's energy. They belong to what
            a network fed with 0 ... 255 sees: features are counted as its, and the variation as of
            its input, as in the released code; the content's pixels are in [0, 1] (ours: the paper
            does not say).
        rematch: search the nearest patches at every evaluation of the paper's energy, else only at
            the first of each scale. (The released energy always keeps the first.)
        detach_keys: take no gradient of the known patches (the paper does not say).
        margin: cells of features around the hole that do not count as known, because their
            receptive fields reach into the hole.
        channel_order: of the pictures the content network was trained on.

    Source: Yang et al., CVPR 2017 (arXiv 1611.09969); leehomyc/Faster-High-Res-Neural-Inpainting.
    """

    multiple = 1
    minimum = 1
    networks = ("content_network", "discriminator")
    completion_networks = ("content_network",)
    # Attributes that `RegionRecipe` reads; see `ContextEncoder`.
    central = True
    overlap = 4
    adversary = "log"
    layouts = LAYOUTS
    needs_all = True

    def __init__(  # noqa: PLR0913 - the options of the method
        self,
        *,
        base_channels: int = 64,
        bottleneck: int = 4000,
        elu_alpha: float = 1.0,
        energy: str = "paper",
        size: int = 512,
        levels: int = 3,
        iterations: int = 100,
        texture_weight: float = 5e-6,
        variation_weight: float = 5e-6,
        rematch: bool = True,
        detach_keys: bool = True,
        margin: int = 0,
        channel_order: str = "rgb",
    ) -> None:
        super().__init__(channel_order=channel_order)
        for label, count, least in (
            ("base_channels", base_channels, 1),
            ("bottleneck", bottleneck, 1),
            ("size", size, 32),
            ("levels", levels, 1),
            ("iterations", iterations, 1),
            ("margin", margin, 0),
        ):
            checks.check_int(self.name, label, count, least)
        for label, number in (
            ("elu_alpha", elu_alpha),
            ("texture_weight", texture_weight),
            ("variation_weight", variation_weight),
        ):
            checks.check_finite(self.name, label, number)
        checks.check_choice(self.name, "energy", energy, _ENERGIES)
        self.base_channels = base_channels
        self.bottleneck = bottleneck
        self.elu_alpha = elu_alpha
        self.energy = energy
        self.size = self.trained_size = size
        self.hole_share = largest_share(self.overlap)
        self.levels = levels
        self.iterations = iterations
        self.texture_weight = texture_weight
        self.variation_weight = variation_weight
        self.rematch = rematch
        self.detach_keys = detach_keys
        self.margin = margin
        self.content_network = ContentNetwork(
            base_channels=base_channels, bottleneck=bottleneck, elu_alpha=elu_alpha
        )
        self.discriminator = ContentDiscriminator(base_channels=base_channels)
        initialise(self, 0.02, norms=True)
        # In a list: the feature network is no part of the method's weights.
        self._features: list[FeatureNetwork] = []

    def as_trained(self) -> MSNPS:
        """Return a view that completes without the synthesis of texture."""
        view = copy.copy(self)
        view.energy = "none"
        return view

    def load_features(
        self,
        features: FeatureNetwork | str | os.PathLike[str] | Mapping[str, Any],
        *,
        rule: str = "imagenet",
    ) -> None:
        """Give the method its VGG-19.

        Args:
            features: a file or state dict with torchvision's keys, or a network with the layers of
                the energy: relu3_1 and relu4_1 ("paper"), relu4_1 and relu4_2 ("released").
            rule: the range of the file's network, see `FeatureNetwork`: "imagenet" for
                torchvision's weights, "caffe_256" for converted Caffe weights as in the released
                code.

        Raises:
            FileNotFoundError, TypeError, ValueError: as `FeatureNetwork`, or layers are missing.
        """
        needed = RELEASED_LAYERS if self.energy == "released" else PAPER_LAYERS
        # The synthesis takes derivatives, also where the caller takes none: inference tensors,
        # which autograd refuses, are copied.
        with torch.inference_mode(False):
            if not isinstance(features, FeatureNetwork):
                ceil = self.energy == "released"
                features = FeatureNetwork("vgg19", features, layers=needed, rule=rule, ceil=ceil)
            elif any(t.is_inference() for t in features.state_dict().values()):
                features = copy.deepcopy(features)
        if features.name != "vgg19" or not features.has("layers", needed):
            raise ValueError(
                f"{self.name}: features must have layers {', '.join(needed)} of vgg19, "
                f"got {', '.join(features.layers)} of {features.name}"
            )
        self._features = [features]

    @classmethod
    def read_options(cls, state: State) -> Implied:
        """As `InpaintingModel.read_options`."""
        facts: dict[str, Any] = {}
        if "content_network.encoder.0.conv.weight" in state:
            found = encoder_decoder_options(state, "content_network")
            facts = {name: found[name] for name in ("base_channels", "bottleneck")}
        elif "discriminator.layers.0.conv.weight" in state:
            facts["base_channels"] = state["discriminator.layers.0.conv.weight"].shape[0]
        return Implied(facts, ("elu_alpha", "channel_order"))

    def colour(self, like: Tensor) -> Tensor:
        """Return the colour of missing pixels, (3, 1, 1) in [-1, 1]."""
        return fill_colour(like, self.channel_order)

    def _separated(self, fill: Fill) -> Fill:
        # Texture is taken from the whole picture.
        beyond = self.energy != "none"
        return hole_by_hole(fill, f"{self.name}.complete", self.overlap, looks_beyond=beyond)

    def _fill_with(
        self,
        image: Tensor,
        hole: Tensor,
        hints: tuple[Tensor, ...],
        *,
        wanted: Tensor | None,
        seed: int,
    ) -> Tensor:
        if self.energy != "none" and not self._features:
            raise ValueError(
                f"{self.name}.complete: features must be a VGG-19 given by load_features(file), "
                "got none; with energy='none' the content network completes alone"
            )
        colour = self.colour(image)
        # Other holes have the colour that they have for the content network.
        blank = composite(image, unsigned(colour), hole)
        options: dict[str, Any] = {"colour": colour, "overlap": self.overlap}
        content = fill_centre(self.content_network, blank, hole, wanted=wanted, **options)
        if self.energy == "none":
            return content
        content = needed.computed(content)
        own = hole if wanted is None else wanted.to(hole.dtype)
        made = []
        for number, sample in enumerate(zip(content, own, hole)):
            with Part(number / len(hole), (number + 1) / len(hole)):
                made.append(self._synthesise(*sample))
        return torch.stack(made)

    def for_export(self) -> Graph:
        """As `InpaintingModel.for_export`; what is exported is the content network's completion.

        Raises:
            ValueError: energy is not "none".
        """
        if self.energy != "none":
            raise ValueError(
                f"{self.name}: energy must be 'none' to be exported, got {self.energy!r}: the "
                "synthesis is an optimisation that no graph holds; with 'none' the content "
                "network completes alone"
            )
        return super().for_export()

    def _synthesise(self, picture: Tensor, hole: Tensor, missing: Tensor) -> Tensor:
        """Synthesise the texture of one hole of a sample.

        Args:
            picture: (3, H, W) with the prediction.
            hole: (1, H, W), 1 = to be synthesised.
            missing: (1, H, W), 1 = not known; other holes too.
        """
        if not hole.any():
            return picture
        rows, columns = region(hole)
        result = picture.clone()
        part, own, unknown = (x[None, :, rows, columns] for x in (picture, hole, missing))
        try:
            result[:, rows, columns] = self.synthesise(part, own, unknown=unknown)[0]
        except NoKnownPatch:
            return picture
        return result

    def synthesise(
        self,
        image: Tensor,
        hole: Tensor,
        trace: Trace | None = None,
        *,
        unknown: Tensor | None = None,
    ) -> Tensor:
        """Synthesise texture in a picture whose hole holds a prediction; see `texture_synthesis`.

        L-BFGS runs in float32 at least, under autocast or not: its steps are smaller than half
        precision tells apart.

        Args:
            image: (1, 3, H, W) in [0, 1], channels in `channel_order`.
            hole: (1, 1, H, W) float, 1 = missing.
            trace: gets the energies of all evaluations.
            unknown: (1, 1, H, W) float, 1 = no texture is taken from there; None: the hole.

        Returns:
            (1, 3, H, W) in [0, 1]; use its missing pixels.

        Raises:
            NoKnownPatch: the hole leaves no known patch of features.
        """
        settings = Settings(
            energy=self.energy,
            size=self.size,
            levels=self.levels,
            iterations=self.iterations,
            texture_weight=self.texture_weight,
            variation_weight=self.variation_weight,
            rematch=self.rematch,
            detach_keys=self.detach_keys,
            margin=self.margin,
        )
        rgb = image if self.channel_order == "rgb" else image.flip(1)
        features = self._features[0].to(image.device)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            torch.autocast(image.device.type, enabled=False),
        ):
            picture, missing, closed = (
                tensors.compute_dtype(t.clone() if t.is_inference() else t)
                for t in (rgb, hole, hole if unknown is None else unknown)
            )
            made = synthesise(features, picture, missing, settings, trace, unknown=closed)
            result = made.to(image.dtype)
        return result if self.channel_order == "rgb" else result.flip(1)
