"""What the options of ``evaluate`` choose: models by their texts, pictures and their holes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from inpaint_ops.data import Samples
    from inpaint_ops.evaluation import Fill


@dataclass(frozen=True)
class ModelChoice:
    """What ``--model`` and ``--option`` say of one model.

    `label` is its name in the tables, `name` that of the method, `weights` are its files and
    `options` "name=value" texts.
    """

    label: str
    name: str
    weights: tuple[Path, ...] = ()
    options: tuple[str, ...] = ()

    def build(self, features: Path | None, window: int | str | None, device: torch.device) -> Fill:
        """Build the filler.

        Args:
            features: VGG file, for methods that take one.
            window: of `InpaintingModel.complete`.
            device: that fills; baselines always fill on the CPU.

        Raises:
            ImportError: the library of a baseline is not installed; the extra is named.
            OSError, ValueError: unknown model, weights or options where they do not belong, or that
                do not fit.
        """
        from inpaint_ops.cli.fillers import FILLERS, FillerChoice
        from inpaint_ops.evaluation import BASELINES, baseline
        from inpaint_ops.models import list_models, model_class

        known = (*FILLERS, *BASELINES, *list_models())
        if self.name not in known:
            raise ValueError(f"unknown model {self.name!r}, known: {', '.join(known)}")
        learned = self.name in list_models()
        if not learned and (self.weights or self.options):
            raise ValueError(f"{self.name} takes no {'weights' if self.weights else 'options'}")
        if learned and not self.weights:
            raise ValueError(f"{self.name} needs weights: --model {self.name}=FILE")
        if self.name in BASELINES:
            return baseline(self.name)
        takes = learned and hasattr(model_class(self.name), "load_features")
        filler = FillerChoice(
            *(self.name, self.weights),
            features=features if takes else None,
            options=self.options,
        )
        return filler.build(window, device=device)

    def facts(self) -> dict[str, Any]:
        """Return what the results say of it: name, options, files with their digests."""
        files = [hashed(path) for path in self.weights]
        return {"name": self.name, "weights": files, "options": list(self.options)}


def parse_models(texts: Sequence[str], options: Sequence[str] = ()) -> list[ModelChoice]:
    """Return the models of ``--model`` with their options of ``--option``.

    Args:
        texts: "[LABEL:]NAME[=FILE[,FILE...]]". What follows "=" is one file if there is one of that
            name; else commas part it.
        options: "LABEL.NAME=VALUE".

    Raises:
        ValueError: a text that says something else, or two models of one label.
    """
    found: list[ModelChoice] = []
    for text in texts:
        head, separator, tail = text.partition("=")
        label, colon, name = head.rpartition(":")
        label = label if colon else name
        if not name or not label or (separator and not tail):
            raise ValueError(f"--model must be [LABEL:]NAME[=FILE], got {text!r}")
        files = [] if not tail else [tail] if Path(tail).exists() else tail.split(",")
        if label in {one.label for one in found}:
            raise ValueError(f"--model: two are named {label!r}; write LABEL:{head}=... for one")
        found.append(ModelChoice(label, name, tuple(map(Path, files))))
    given = _options(options, [one.label for one in found])
    return [replace(one, options=tuple(given[one.label])) for one in found]


def _options(texts: Sequence[str], labels: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {label: [] for label in labels}
    for text in texts:
        head, separator, value = text.partition("=")
        label, _, name = head.rpartition(".")
        if label not in found or not name or not separator:
            raise ValueError(
                f"--option must be LABEL.NAME=VALUE, LABEL of {', '.join(labels)}, got {text!r}"
            )
        found[label].append(f"{name}={value}")
    return found


@dataclass(frozen=True)
class DataChoice:
    """Choice of pictures and holes; the fields are options of ``evaluate``."""

    data: Path
    root: Path | None = None
    split: str = "val"
    size: tuple[int, int] | None = (256, 256)
    holes: Path | None = None
    polarity: str | None = None
    pair: bool = False
    kind: str | None = None
    ratio: tuple[float, float] | None = None
    border: int | None = None
    seed: int = 0

    def check(self) -> None:
        """Check the choice without reading a file.

        Raises:
            ValueError: options that do not go together.
        """
        drawn = {"--kind": self.kind, "--ratio": self.ratio, "--border": self.border}
        surplus = [name for name, value in drawn.items() if value is not None]
        if self.holes is not None and surplus:
            raise ValueError(f"{surplus[0]} is for drawn holes, not for --holes")
        if self.holes is not None and self.polarity is None:
            raise ValueError("--hole is missing: what marks a missing pixel in --holes")
        if self.holes is None and (self.polarity is not None or self.pair):
            raise ValueError("--hole and --pair go with --holes")
        if self.kind == "center" and surplus != ["--kind"]:
            raise ValueError("--kind center takes neither --ratio nor --border")

    def samples(self) -> Samples:
        """Find the pictures and the holes.

        Raises:
            OSError, ValueError: errors of `check`, or as `inpaint_ops.data.find_pictures`.
        """
        from inpaint_ops.data import (
            DrawnHoles,
            Framing,
            HoleFiles,
            Holes,
            Samples,
            Whole,
            find_pictures,
        )

        self.check()
        pictures = find_pictures(self.data, split=self.split, root=self.root)
        holes: Holes = DrawnHoles(self.kind or "irregular", self.ratio, self.border or 0)
        if self.holes is not None and self.polarity is not None:
            holes = HoleFiles(self.holes, self.polarity)
        framing = Whole() if self.size is None else Framing(self.size, crop="center", flip=False)
        return Samples(pictures, framing, holes, seed=self.seed, paired=self.pair)


def hashed(path: Path) -> dict[str, str]:
    """Return the name of a file and the SHA-256 of its content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return {"file": str(path), "sha256": digest.hexdigest()}
