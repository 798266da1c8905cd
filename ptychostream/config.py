"""One TOML file per process, validated at start; command-line flags override it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any, TypeVar, get_args

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
            known = sorted(_model_at(kind, first["loc"][:-1]).model_fields)
            remedy = f"correct or remove it; known there are {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r}", where=where, remedy=remedy) from error
        given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"  # a table: the text says which key
        what = f"{key}{given}: ".lstrip(": ") + first["msg"].removeprefix("Value error, ")
        raise ConfigError(what, where=where, remedy="correct that key") from error


def _model_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> type[BaseModel]:
    """The model whose fields stand at `place`: that of the innermost section on the way that is one."""
    for part in place:
        field = kind.model_fields.get(str(part))
        inner = None if field is None else _model_in(field.annotation)
        kind = inner or kind
    return kind


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """`Model` of `Model`, `Model | None` or `dict[str, Model]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def _set(values: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        values = values.setdefault(key, {})
    values[keys[-1]] = value


def load_object(place: str) -> Any:
    """The object that a text such as "package.module:name" names: an engine or a position source of the user's own.

    Raises
    ------
    ValueError
        The text is of another form, the module cannot be imported, or it has no such name. A settings class calls this
        from a validator, so that the error of `load_settings` names the file and the key.
    """
    module, _, name = place.partition(":")
    if not (module and name):
        raise ValueError('is not of the form "module:name"')
    try:
        found = importlib.import_module(module)
    except Exception as error:  # code of the user's own may raise anything
        what = f"module {module} cannot be imported: {type(error).__name__}: {error}"
        raise ValueError(f"{what}; make `python -c 'import {module}'` work first") from error
    if not hasattr(found, name):
        raise ValueError(f"module {module} has no {name!r}")
    return getattr(found, name)


def check_place(place: str) -> str:
    """Validator of a key that holds a text for `load_object`; the empty text names nothing."""
    if place:
        load_object(place)
    return place
