"""Typed configuration: one YAML file, ``key=value`` overrides, and errors that name the nearest valid key."""

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


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is not UTF-8, is not YAML or is not a mapping.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        siblings = sorted(str(p) for p in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise ConfigError(f"config file {path} does not exist{nearest(str(path), siblings)}") from None
    except (yaml.YAMLError, UnicodeDecodeError, IsADirectoryError) as error:
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
            node[last] = yaml.safe_load(raw)
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
        return f"unknown key {key!r}{nearest(location[-1], _keys(model, location[:-1]))}"
    if problem["type"] == "missing":
        return f"key {key!r} is required"
    return f"key {key!r}: {problem['msg']} (got {problem['input']!r})"


def _keys(model: type[BaseModel], parents: Sequence[str]) -> list[str]:
    """Return the valid keys of the section reached through ``parents``."""
    current: Any = model
    for parent in parents:
        field = getattr(current, "model_fields", {}).get(parent)
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(getattr(current, "model_fields", {}))
