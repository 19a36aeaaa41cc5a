"""What a mutation is."""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """`before` occurs once in csrc/`file`; `after` takes its place."""

    name: str
    file: str
    before: str
    after: str
    fault: str
