"""Typed configuration: one YAML file, ``key=value`` overrides, and errors that name the nearest valid key."""

import re
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from aftersales.core.errors import ConfigError, nearest


class Config(BaseModel):
    """Base of every configuration: unknown keys are refused, values are checked, instances do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False, protected_namespaces=())


C = TypeVar("C", bound=Config)


class _Loader(yaml.SafeLoader):
    """YAML 1.2: only true and false are booleans, so that a label may be called ``no`` or ``on``."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|True|false|False)$"), list("tTfF"))


def parse_yaml(text: str) -> Any:
    """Parse YAML 1.2 as far as scalars go; raises ``yaml.YAMLError``."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not UTF-8, is not YAML or is not a mapping.
    """
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"config file {path} does not exist{nearest(str(path), siblings)}") from None
    except (yaml.YAMLError, ValueError, OSError) as error:  # ValueError: not UTF-8, or a 13th month
        raise ConfigError(f"config file {path} cannot be read as UTF-8 YAML: {error}") from None
    if not isinstance(value, dict):
        raise ConfigError(f"config file {path} must hold `key: value` lines, not {type(value).__name__}")
    return value


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return ``values`` with dotted ``key=value`` overrides put in; values are parsed as YAML.

    Raises:
        ConfigError: an override has no ``=`` or descends into something that is not a mapping.
    """
    merged = dict(values)
    for override in overrides:
        key, equals, raw = override.partition("=")
        if not equals or not key:
            raise ConfigError(f"override {override!r} is not of the form key=value")
        *parents, last = key.split(".")
        node = merged
        for parent in parents:
            child = node.get(parent)
            if child is not None and not isinstance(child, dict):
                raise ConfigError(f"override {override!r}: {parent!r} is a value, not a section")
            node[parent] = dict(child or {})
            node = node[parent]
        try:
            node[last] = parse_yaml(raw)
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"override {override!r}: the value is not YAML: {error}") from None
    return merged


def build(model: type[C], values: dict[str, Any], origin: str) -> C:
    """Check ``values`` against ``model``.

    Raises:
        ConfigError: names every wrong key with its nearest valid one, and every wrong value with its reason.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_explain(model, problem) for problem in error.errors(include_url=False)]
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from None


def load(model: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read ``path``, apply ``overrides`` and check the result against ``model``."""
    return build(model, apply_overrides(read_yaml(path), overrides), str(path))


def _explain(model: type[BaseModel], problem: Any) -> str:
    location = [str(part) for part in problem["loc"]]
    key = ".".join(location)
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest_key(model, location)}"
    if problem["type"] == "missing":
        return f"key {key!r} is required"
    reason = problem["msg"].removeprefix("Value error, ")
    if isinstance(problem["input"], (dict, list)):  # a rule over several keys: it names them itself
        return f"key {key!r}: {reason}" if key else reason
    return f"key {key!r}: {reason} (got {reprlib.repr(problem['input'])})"


def _nearest_key(model: type[BaseModel], location: list[str]) -> str:
    """Say which key was meant: one of another section that bears the name, else the nearest of the same section."""
    elsewhere = [key for key in _keys(model) if key.rpartition(".")[2] == location[-1]]
    if elsewhere:
        return f"; did you mean {elsewhere[0]!r}?"
    section = "".join(f"{parent}." for parent in location[:-1])
    here = [key for key in _keys(model) if key.startswith(section) and "." not in key.removeprefix(section)]
    return nearest(".".join(location), here)


def _keys(model: type[BaseModel], section: str = "") -> list[str]:
    """Return the dotted valid keys of a configuration and its sections."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(section + name)
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        inner = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
        keys += _keys(inner, f"{section}{name}.") if inner else []
    return keys
