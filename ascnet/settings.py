"""Plain mappings into checked dataclasses: types, ranges, and the nearest right name for a wrong key.

A section is a dataclass whose fields are made with `key`. Nothing here knows what the keys mean; `ascnet.config` does.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ascnet.errors import ConfigError

T = TypeVar("T")


def key(
    default: Any,
    doc: str,
    *,
    unit: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
) -> Any:
    """A documented field of a section.

    Args:
        default: Value used when the key is not given; a mutable one is copied for every instance.
        doc: What the key means, one sentence.
        unit: Unit of the value, for the documentation.
        at_least: Smallest allowed value; for a tuple it holds for every element.
        above: Bound that the value must exceed.
        at_most: Largest allowed value.
    """
    metadata = {"doc": doc, "unit": unit, "at_least": at_least, "above": above, "at_most": at_most}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=lambda: dict(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def section(cls: type, doc: str) -> Any:
    """A field that holds another section, all of whose keys have defaults."""
    return dataclasses.field(default_factory=cls, metadata={"doc": doc})


def nearest(name: str, known: list[str]) -> str:
    """`"; did you mean 'x'?"` for the known name closest to `name`, else the list of known names."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"


def build(cls: type[T], values: Mapping[str, Any], *, source: str, prefix: str = "") -> T:
    """An instance of the section `cls` from a mapping, every key known and every value checked.

    Args:
        cls: A dataclass whose fields were made with `key` and `section`.
        values: Keys and values as a YAML parser gives them.
        source: Where they came from, for the error message.
        prefix: Dotted path of this section, with a trailing dot.

    Raises:
        ConfigError: For an unknown key, a value of the wrong type, or one out of range.
    """
    hints = get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if name not in fields:
            known = [prefix + other for other in fields]
            raise ConfigError(f"{source}: unknown key {path!r}{nearest(path, known)}")
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{source}: {path} is a section of keys, not the value {value!r}")
            arguments[name] = build(hints[name], value, source=source, prefix=path + ".")
            continue
        converted = convert(value, hints[name], path, source)
        check_range(converted, fields[name].metadata, path, source)
        arguments[name] = converted
    return cls(**arguments)


def convert(value: Any, hint: Any, path: str, source: str) -> Any:
    """`value` as the type `hint`, where that loses nothing; else a `ConfigError` naming the key.

    YAML 1.1 reads `1e-4` as text and a command line has no lists, so text that spells a number or `a,b` is accepted
    where a number or a tuple is wanted.
    """
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None or (isinstance(value, str) and value.lower() in ("none", "null")):
            return None
        return convert(value, next(arg for arg in args if arg is not type(None)), path, source)
    if origin is Literal:
        if value in args:
            return value
        allowed = ", ".join(str(arg) for arg in args)
        raise ConfigError(f"{source}: {path} is {value!r}; allowed: {allowed}")
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if isinstance(items, (int, float)):
            items = [items]
        if not isinstance(items, (list, tuple)):
            raise ConfigError(f"{source}: {path} is {value!r}; expected a list such as [1, 2]")
        if args[-1] is not Ellipsis and len(items) != len(args):
            raise ConfigError(f"{source}: {path} is {value!r}; expected {len(args)} values, got {len(items)}")
        return tuple(convert(item, args[0], path, source) for item in items)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{source}: {path} is {value!r}; expected keys and values such as {{a: 1}}")
        return dict(value)
    return _scalar(value, hint, path, source)


def _scalar(value: Any, hint: type, path: str, source: str) -> Any:
    if isinstance(value, hint) and not (hint is not bool and isinstance(value, bool)):
        return value
    if hint is str and isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    if hint in (int, float) and not isinstance(value, bool) and isinstance(value, (int, float, str)):
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if hint is float and not math.isnan(number):
            return number
        if hint is int and number.is_integer():
            return int(number)
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    raise ConfigError(f"{source}: {path} is {value!r}; expected {names.get(hint, hint.__name__)}")


def check_range(value: Any, metadata: Mapping[str, Any], path: str, source: str) -> None:
    """Raises a `ConfigError` where a number, or any number of a tuple, lies outside the bounds of its key."""
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        low, above, high = metadata["at_least"], metadata["above"], metadata["at_most"]
        if low is not None and number < low:
            raise ConfigError(f"{source}: {path} is {value!r}; it must be at least {low:g}")
        if above is not None and number <= above:
            raise ConfigError(f"{source}: {path} is {value!r}; it must be above {above:g}")
        if high is not None and number > high:
            raise ConfigError(f"{source}: {path} is {value!r}; it must be at most {high:g}")


def plain(value: Any) -> Any:
    """A section as nested dictionaries and lists, as YAML, JSON and `torch.load(weights_only=True)` hold them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (tuple, list)) else value


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`, the form that overrides and messages use."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` laid on top, section by section."""
    result = dict(base)
    for name, value in over.items():
        below = result.get(name)
        result[name] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def tables(cls: type, prefix: str = "") -> str:
    """The keys of a section and of the sections below it as Markdown tables: key, default, range and unit, meaning."""
    hints = get_type_hints(cls)
    rows, below = [], []
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            title = f"\n## {prefix}{field.name}\n\n{field.metadata['doc']}\n\n"
            below.append(title + tables(hint, f"{prefix}{field.name}."))  # type: ignore[arg-type]
            continue
        made = field.default_factory() if callable(field.default_factory) else field.default
        cells = (f"`{prefix}{field.name}`", f"`{_shown(made)}`", _values(hint, field.metadata), field.metadata["doc"])
        rows.append(f"| {' | '.join(cells)} |")
    head = "| Key | Default | Values | Meaning |\n|---|---|---|---|\n"
    return (head + "\n".join(rows) + "\n" if rows else "") + "".join(below)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, tuple):
        return f"[{', '.join(f'{item:.4g}' for item in value)}]"
    return str(value) if value != "" else '""'


def _values(hint: Any, metadata: Mapping[str, Any]) -> str:
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _values(next(arg for arg in args if arg is not type(None)), metadata) + ", or null"
    if origin is Literal:
        return " \\| ".join(str(arg) for arg in args)
    names = {int: "whole number", float: "number", bool: "true or false", str: "text"}
    if origin is tuple:
        text = f"list of {names[args[0]]}s" if args[-1] is Ellipsis else f"{len(args)} {names[args[0]]}s"
    else:
        text = "keys and values" if origin is dict else names[hint]
    bounds = (("at_least", ">= "), ("above", "> "), ("at_most", "<= "))
    limits = [f"{sign}{metadata[name]:g}" for name, sign in bounds if metadata[name] is not None]
    return ", ".join([text, *limits]) + (f" ({metadata['unit']})" if metadata["unit"] else "")
