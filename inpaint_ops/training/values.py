"""Configurations as TOML: reading, checks of names and types, writing."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import json
import os
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Union


def _toml() -> Any:
    """Return the reader: Python's own, or before 3.11 the package that became it."""
    try:
        return importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    except ImportError as exc:
        raise ImportError(
            "configurations need tomli, which is not installed: pip install 'inpaint-ops[train]'"
        ) from exc


def read_toml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the content of a TOML file; ValueError if it is none."""
    path = Path(file)
    try:
        content: dict[str, Any] = _toml().loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ValueError(f"{path}: is no TOML: {exc}") from exc
    return content


def parse_setting(text: str) -> tuple[str, Any]:
    """Return name and value of a "name=value"; what is no TOML value is taken as text."""
    name, separator, value = text.partition("=")
    name = name.strip()
    if not separator or not all(part.isidentifier() for part in name.split(".")):
        raise ValueError(f"--set must be NAME=VALUE, got {text!r}")
    try:
        content = _toml().loads(f"value = {value}")
    except ValueError:
        return name, value
    return name, content["value"] if set(content) == {"value"} else value


def merged(values: Mapping[str, Any], name: str, value: Any) -> dict[str, Any]:
    """Return nested dicts with the value of a dotted name replaced."""
    key, _, rest = name.partition(".")
    if rest:
        inner = values.get(key, {})
        if not isinstance(inner, Mapping):
            raise ValueError(f"{name}: {key} must be a table, got {inner!r}")
        value = merged(inner, rest, value)
    return {**values, key: value}


def unknown(what: str, name: str, known: Iterable[str]) -> ValueError:
    """Return the error for a name that does not exist, with the nearest one that does."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names) or 'none'}"
    return ValueError(f"{what} {name!r} does not exist; {hint}")


def built(cls: Any, values: Mapping[str, Any], prefix: str = "") -> Any:
    """Return a dataclass of nested dicts.

    Raises:
        ValueError: unknown name, or a value of another type.
    """
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise unknown("configuration: key", prefix + name, [prefix + one for one in hints])
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            if not isinstance(value, Mapping):
                raise ValueError(f"configuration: {prefix}{name} must be a table, got {value!r}")
            arguments[name] = built(hint, value, f"{prefix}{name}.")
            continue
        fitted = _fitted(value, hint)
        if fitted is None:
            kind = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
            raise ValueError(f"configuration: {prefix}{name} must be {kind}, got {value!r}")
        arguments[name] = fitted
    return cls(**arguments)


def _fitted(value: Any, hint: Any) -> Any:
    """Return a value as a type has it; None if it does not fit."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        found = (_fitted(value, one) for one in inner)
        return next((one for one in found if one is not None), None)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return None
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        parts = [_fitted(one, kind) for one, kind in zip(value, kinds)]
        return None if len(kinds) != len(value) or None in parts else tuple(parts)
    if origin is dict:
        if not isinstance(value, Mapping):
            return None
        items = {key: _fitted(one, inner[1]) for key, one in value.items()}
        return None if None in items.values() else items
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value if type(value) is hint else None


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of nested dicts."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def toml_text(values: Mapping[str, Any], table: str = "") -> str:
    """Return nested dicts of texts, numbers, flags and lists as TOML."""
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping)}
    lines = [f"{key} = {_toml_value(value)}" for key, value in plain.items()]
    text = "".join(f"{line}\n" for line in lines)
    if table and (plain or not values):
        text = f"\n[{table}]\n{text}"
    for key, value in values.items():
        if isinstance(value, Mapping):
            text += toml_text(value, f"{table}.{key}" if table else key)
    return text


def _toml_value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml_value, value))}]"
    if isinstance(value, str):
        # JSON's escapes are TOML's; what a text holds beyond ASCII stays as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, float):
        # JSON writes 1e-05, inf and nan as TOML does, but for the names.
        return json.dumps(value).replace("Infinity", "inf").replace("NaN", "nan")
    return json.dumps(value)
