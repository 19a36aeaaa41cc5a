"""Folders of known data sets: which of their parts is for training and which for validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")

# Of the 70000 pictures of FFHQ, by number, the first are for training, the rest for validation.
_FFHQ_TRAINING = 60_000


def _ffhq(split: str, name: str) -> bool:
    number = Path(name).stem
    return number.isdecimal() and (int(number) < _FFHQ_TRAINING) == (split == "train")


@dataclass(frozen=True)
class Layout:
    """The parts of a data set.

    Attributes:
        name: of the data set.
        parts: split to the folders that may hold it, of which one is there.
        keeps: whether a file of a part belongs to a split, by the split and the file's name.
        together: it is recognised where several splits are there, as its names are everyday words.
    """

    name: str
    parts: Mapping[str, tuple[str, ...]]
    keeps: Callable[[str, str], bool] | None = None
    together: bool = False

    def found_in(self, folder: Path) -> bool:
        """Return whether a folder holds the data set."""
        there = [
            split
            for split, names in self.parts.items()
            if any((folder / name).is_dir() for name in names)
        ]
        return len(there) > (1 if self.together else 0)

    def part(self, folder: Path, split: str) -> str:
        """Return the name of the folder that holds a split.

        Raises:
            ValueError: there is none, or several.
        """
        names = self.parts.get(split, ())
        found = [name for name in names if (folder / name).is_dir()]
        if len(found) == 1:
            return found[0]
        have = ", ".join(found) or "none of " + ", ".join(names or ["its folders"])
        raise ValueError(
            f"{folder}: looks like {self.name}, of which {split} must be one folder, got {have};"
            " give that folder itself, or a list of files"
        )


LAYOUTS = (
    Layout(
        "Places2",
        {
            "train": ("data_large_standard", "data_256_standard", "data_large", "data_256"),
            "val": ("val_large", "val_256"),
            "test": ("test_large", "test_256"),
        },
    ),
    # Beside its pictures lie masks of eyes, hair and so on; its splits are lists.
    Layout("CelebAMask-HQ", {"train": ("CelebA-HQ-img",)}),
    # Beside its pictures lie small copies of them, and the photographs they were cut from.
    Layout("FFHQ", {"train": ("images1024x1024",), "val": ("images1024x1024",)}, _ffhq),
    # Beside the pictures for evaluation lie copies with a hole.
    Layout(
        "Paris StreetView",
        {"train": ("paris_train_original",), "val": ("paris_eval/paris_eval_gt",)},
    ),
    Layout(
        "a folder of splits",
        {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)},
        together=True,
    ),
)


def layout_of(folder: Path) -> Layout | None:
    """Return the layout that a folder has, None if it is no known one."""
    return next((layout for layout in LAYOUTS if layout.found_in(folder)), None)
