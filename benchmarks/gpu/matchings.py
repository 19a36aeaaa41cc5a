"""The comparisons of positions that `roofline` predicts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Matching:
    """A comparison of `queries` positions with `keys` positions of `channels` numbers.

    Operations and bytes are those of a pair of positions; the lists are for eager, compiled and our
    kernels. Scores are float32 in all three.
    """

    method: str
    name: str
    queries: int
    keys: int
    channels: int
    products: tuple[float, float, float]
    moved: tuple[float, float, float]
    launches: tuple[int, int, int]


# Contextual attention: eager compares 3x3 patches and pastes 4x4 ones, with 17 passes over the
# matrix of scores (11 when compiled); ours multiplies rows of patches, 5 passes. The shift: eager
# stores the scores and a one-hot matrix. ID-MRF: forward and backward, 8 and 5 passes, ours keeps
# strips.
MATCHINGS = (
    *(
        Matching(
            method,
            f"contextual_attention-c{c}-{n}x{n}",
            n * n,
            n * n,
            c,
            (25, 25, 7),
            (68, 44, 20),
            (40, 20, 30),
        )
        for method, c, n in (("deepfill_v1", 128, 32), ("deepfill_v2", 96, 64))
    ),
    Matching(
        "shift_net",
        "shift_connection-c256-32x32",
        256,
        768,
        256,
        (2, 2, 1),
        (24, 16, 0),
        (25, 12, 5),
    ),
    *(
        Matching(
            "gmcnn",
            f"id_mrf_loss-c{c}-{n}x{n}-forward-backward",
            n * n,
            n * n,
            c,
            (3, 3, 4),
            (64, 40, 36),
            (40, 16, 14),
        )
        for c, n in ((256, 64), (512, 32))
    ),
)
