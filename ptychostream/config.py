"""One TOML file per process, validated at start; command-line flags override it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ptychostream.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Settings(BaseModel):
    """Base of every process's configuration: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def load_settings(kind: type[S], path: Path | None, overrides: dict[str, Any]) -> S:
    """Read `path` (TOML; None means defaults), lay `overrides` over it, validate.

    `overrides` maps dotted keys ("pipeline.batch") to values; None means not given.

    Raises
    ------
    ConfigError
        Naming the file, the key and the remedy.
    """
    values: dict[str, Any] = {}
    where = "command line"
    if path is not None:
        where = str(path)
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                error.strerror or str(error), where=where, remedy="give --config an existing file"
            ) from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"not TOML: {error}", where=where, remedy="correct that line") from error
    for dotted, value in overrides.items():
        if value is not None:
            _set(values, dotted.split("."), value)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            remedy = f"remove it; known keys are {', '.join(sorted(kind.model_fields))}"
            raise ConfigError(f"unknown key {key!r}", where=where, remedy=remedy) from error
        given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"  # a table: the text says which key
        what = f"{key}{given}: ".lstrip(": ") + first["msg"].removeprefix("Value error, ")
        raise ConfigError(what, where=where, remedy="correct that key") from error


def _set(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value
