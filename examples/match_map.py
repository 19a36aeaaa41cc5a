"""Contextual attention on features, with a picture of where each cell was copied from.

    pip install 'inpaint-ops[image]'
    python examples/match_map.py match_map.png

The features are a small pattern that repeats every 16 cells. A hole is cut into it. Attention
should rebuild each missing cell from one that is a whole number of periods away, and the map shows
that: the hue of a cell says in which direction its source lies, the saturation how far. Cells
outside the hole are grey.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from inpaint_ops import contextual_attention
from inpaint_ops.visualize import match_map


def main(arguments: Sequence[str]) -> float:
    """Write the map; return the share of missing cells whose source is a period away."""
    out = Path(arguments[0] if arguments else "match_map.png")
    torch.manual_seed(0)
    # 64 x 64 features, 2 x 2 of them a cell: a grid of 32 x 32 cells.
    pattern = torch.randn(1, 32, 32, 32)
    features = pattern.repeat(1, 1, 2, 2)
    hole = torch.zeros(1, 1, 32, 32)
    hole[..., 12:20, 12:20] = 1

    # The queries know the pattern only roughly in the hole, as a decoder does.
    missing = hole.repeat_interleave(2, 2).repeat_interleave(2, 3)
    queries = features + 0.3 * missing * torch.randn_like(features)
    rebuilt, index = contextual_attention(queries, features, hole, return_index=True)

    row, column = torch.div(index, 32, rounding_mode="floor"), index % 32
    down = row - torch.arange(32)[:, None]
    right = column - torch.arange(32)
    periods = (down % 16 == 0) & (right % 16 == 0)
    share = float(periods[hole[:, 0] > 0].float().mean())
    error = float(((rebuilt - features) * missing).abs().mean() / missing.mean())
    print(f"{share:.0%} of the missing cells come from one a period away; mean error {error:.3f}")

    match_map(index, hole=hole).save(out)
    print(out)
    return share


if __name__ == "__main__":
    main(sys.argv[1:])
