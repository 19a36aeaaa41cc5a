"""Checks of constructor arguments: a word in the place of a number raises."""

from typing import Any

from torch import nn

from inpaint_ops import checks


def check_counts(layer: str, **counts: Any) -> None:
    """Check ints of at least 1.

    Raises:
        TypeError: no int.
        ValueError: too small.
    """
    for name, value in counts.items():
        checks.check_int(layer, name, value)


def check_sizes(layer: str, minimum: int, **sizes: Any) -> None:
    """Check ints, or pairs of ints, of at least `minimum`.

    Raises:
        TypeError: neither an int nor a pair of ints.
        ValueError: too small, or not two of them.
    """
    for name, value in sizes.items():
        pair = value if isinstance(value, (tuple, list)) else (value,)
        if not 1 <= len(pair) <= 2:
            raise ValueError(f"{layer}: {name} must be an int or a pair, got {value}")
        for number in pair:
            checks.check_int(layer, name, number, minimum)


def check_word(layer: str, name: str, value: Any, words: tuple[str, ...]) -> None:
    """Check one of a few words.

    Raises:
        TypeError: no word.
        ValueError: another word.
    """
    if not isinstance(value, str):
        raise TypeError(f"{layer}: {name} must be a str, got {type(value).__name__}")
    checks.check_choice(layer, name, value, words)


def check_activation(layer: str, value: Any, *, needed: bool) -> None:
    """Check a module or function of one tensor; None only where nothing `needed` it.

    Raises:
        TypeError: neither.
    """
    if value is None and not needed:
        return
    if not callable(value) or isinstance(value, type):
        kind = value.__name__ if isinstance(value, type) else type(value).__name__
        raise TypeError(f"{layer}: activation must be a module such as nn.ELU(), got {kind}")


def check_module(layer: str, name: str, value: Any) -> None:
    """Check a module.

    Raises:
        TypeError: no module.
    """
    if not isinstance(value, nn.Module):
        raise TypeError(f"{layer}: {name} must be an nn.Module, got {type(value).__name__}")
