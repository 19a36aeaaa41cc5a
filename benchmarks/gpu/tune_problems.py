"""Trials of the fused convolution's rows, by the public operators."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from inpaint_ops.kernels.convolution import fused
from inpaint_ops.kernels.convolution.fused_kernel import CONV

Call = Callable[[], Any]

# Of the tables: architecture -> kernel -> key -> name.
Table = dict[str, dict[str, dict[str, str]]]
# Stands among the kernels; "fused" or "library" by the keys of the fused kernel.
CHOICE = "conv_choice"


@contextmanager
def tuned_by(table: Mapping[str, Any]) -> Iterator[None]:
    """Let `launch.tuned` read a table inside the block."""
    before = os.environ.get("INPAINT_OPS_TUNED")
    with tempfile.TemporaryDirectory() as folder:
        # A name of its own: what a file says is remembered by its name.
        path = Path(folder) / "trial.json"
        path.write_text(json.dumps(table), encoding="utf-8")
        os.environ["INPAINT_OPS_TUNED"] = str(path)
        try:
            yield
        finally:
            if before is None:
                os.environ.pop("INPAINT_OPS_TUNED")
            else:
                os.environ["INPAINT_OPS_TUNED"] = before


def key_and_row(call: Call) -> tuple[str, str, int] | None:
    """Key under which a call of a fused layer looks its row up, the row, and the outputs a pixel.

    None where the fused kernel is not launched.
    """
    keys: list[str] = []
    rows: list[tuple[str, int]] = []
    plain_key, plain_row = fused.tuning_key, fused.pick_row

    def key(*given: Any) -> str:
        keys.append(plain_key(*given))
        return keys[-1]

    def row(*given: Any) -> str:
        rows.append((plain_row(*given), given[3]))
        return rows[-1][0]

    with (
        tuned_by({}),
        mock.patch.object(fused, "tuning_key", key),
        mock.patch.object(fused, "pick_row", row),
    ):
        call()
    return (keys[0], *rows[0]) if keys and rows else None


def rivals(row: str, outputs: int, arch: str) -> list[str]:
    """Rows that compute the same as a row, for so many outputs a pixel."""
    own = CONV.row(row, arch)
    same = ("GATED", "MASKED", "PRECISION")
    return [
        one.name
        for one in CONV.rows
        if arch in one.archs
        and one.dtype == own.dtype
        and all(one.constexprs[name] == own.constexprs[name] for name in same)
        and outputs % one.constexprs["UNIT"] == 0
    ]
