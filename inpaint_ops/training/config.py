"""What a user may choose of a training, with its defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from inpaint_ops import checks
from inpaint_ops.training.values import built, merged, parse_setting, read_toml

PRECISIONS = ("no", "bf16", "fp16")
DEVICES = ("auto", "cpu")
# What may change when a run goes on: where things are, and what is told and kept of them.
FREE = (
    *("data.path", "data.root", "data.workers", "holes.path", "device", "weights", "layout"),
    *("keep", "checkpoint_every", "log_every", "sample_every", "samples"),
)


@dataclass(frozen=True)
class DataOptions:
    """Pictures; see `inpaint_ops.data.find_pictures`, `Framing` and `Samples`.

    Attributes:
        size: side, or height and width, in pixels; None is what the method was trained on.
        workers: processes that read; None is one a core, at most 4.
    """

    path: str = ""
    root: str | None = None
    split: str = "train"
    size: int | tuple[int, int] | None = None
    resize: str = "shorter"
    scale: tuple[float, float] = (1.0, 1.0)
    crop: str = "random"
    flip: bool = True
    recolour: bool = False
    on_error: str = "stop"
    workers: int | None = None


@dataclass(frozen=True)
class HoleOptions:
    """What is missing: drawn, or with `path` of files, whose `polarity` must be given.

    `kind` None is that of the method's source; of several, each sample has one.
    """

    kind: str | tuple[str, ...] | None = None
    ratio: tuple[float, float] | None = None
    border: int = 0
    path: str | None = None
    polarity: str | None = None


@dataclass(frozen=True)
class Config:
    """A training.

    Attributes:
        method: a name of `inpaint_ops.models.list_models`.
        seed: of everything that is drawn.
        sequence: names of the phases, one after the other; None is the recipe's.
        iterations: of each phase; None is the source's number.
        batch: samples of a step, of all processes together; None is the source's number.
        accumulate: equal parts that a process does of its share of a batch, to spare memory.
        precision: "no", "bf16" or "fp16": autocast around each step.
        ema: decay of the mean of the weights that is kept beside them; 0 keeps none.
        sync_batch_norm: statistics of the whole batch, in several processes with GPUs.
        weights: files to start from; `layout` is theirs.
        features: VGG weights in torchvision's layout, for losses that need them.
        device: "auto" or "cpu".
        checkpoint_every: steps; one is written at the end of each phase, too.
        keep: number of checkpoints.
        log_every: steps between points of the curves.
        sample_every: steps between pictures; 0 draws none.
        samples: number of pictures that are drawn.
        model: options of the method's class.
        data, holes: pictures, and what is missing of them.
        phases: name of a phase to its `iterations`, its `batch` and numbers of the recipe.
    """

    method: str
    seed: int = 0
    sequence: tuple[str, ...] | None = None
    iterations: int | None = None
    batch: int | None = None
    accumulate: int = 1
    precision: str = "no"
    ema: float = 0.999
    sync_batch_norm: bool = False
    weights: tuple[str, ...] = ()
    layout: str = "auto"
    features: str | None = None
    device: str = "auto"
    checkpoint_every: int = 1000
    keep: int = 3
    log_every: int = 50
    sample_every: int = 1000
    samples: int = 4
    model: dict[str, Any] = field(default_factory=dict)
    data: DataOptions = field(default_factory=DataOptions)
    holes: HoleOptions = field(default_factory=HoleOptions)
    phases: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        op = "train"
        checks.check_choice(op, "precision", self.precision, PRECISIONS)
        checks.check_choice(op, "device", self.device, DEVICES)
        for name in ("accumulate", "checkpoint_every", "keep", "log_every"):
            checks.check_int(op, name, getattr(self, name), 1)
        for name in ("seed", "sample_every", "samples"):
            checks.check_int(op, name, getattr(self, name), 0)
        if not 0 <= self.ema < 1:
            raise ValueError(f"{op}: ema must be in [0, 1), got {self.ema}")
        if self.holes.path is not None and (self.holes.kind, self.holes.ratio) != (None, None):
            raise ValueError(f"{op}: holes must have either path or kind and ratio, got both")
        if (self.holes.path is None) != (self.holes.polarity is None):
            raise ValueError(
                f"{op}: holes.path and holes.polarity must be given together: masks of files are "
                "white, black, alpha or painted where pixels are missing, which is not guessed"
            )

    def values(self) -> dict[str, Any]:
        """Return all choices as nested dicts of what TOML holds, without those that are None."""
        return _plain(asdict(self))


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            plain[key] = _plain(value)
        elif value is not None:
            plain[key] = list(value) if isinstance(value, tuple) else value
    return plain


def read_config(
    method: str,
    file: str | os.PathLike[str] | None = None,
    settings: Sequence[str] = (),
    **given: Any,
) -> Config:
    """Return the configuration of a file with changes.

    Args:
        method: name of the method; a file may name it, too, and then must agree.
        file: TOML with the names of `Config`, those of its parts in tables.
        settings: "name=value" texts such as "phases.joint.batch=8"; they replace what the file
            says.
        given: values by dotted name, which replace both.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no TOML, or a name or a value is wrong; the nearest name is given.
    """
    values: dict[str, Any] = {} if file is None else read_toml(file)
    for name, value in (*map(parse_setting, settings), *given.items()):
        values = merged(values, name, value)
    if values.setdefault("method", method) != method:
        raise ValueError(f"{file}: is for {values['method']}, but {method} is to be trained")
    config: Config = built(Config, values)
    return config
