"""Training of MSNPS: its content network, as Context Encoder's centre network."""

from __future__ import annotations

from inpaint_ops.models.context_encoder.recipe import RegionRecipe


class ContentRecipe(RegionRecipe):
    """Context Encoder's training of its centre network, here of the content network.

    The loss weights are the paper's. Optimiser and rates are Context Encoder's, as the paper's are
    not known.

    Source: Yang et al., CVPR 2017 (arXiv 1611.09969), section 3.2.
    """
