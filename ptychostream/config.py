"""One TOML file per process, validated at start; command-line flags override it.

A field of a `Settings` class is the only declaration of a setting. Its key in the file, type, limits and default are
pydantic's; what else follows from it (record, flag) stands beside them as a `Setting`:

    batch: Annotated[int, Field(ge=1), Setting("BatchSize", "Frames inferred at once", flag="--batch")] = 8
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import reduce
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from ptychostream.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class Settings(BaseModel):
    """Base of every process's configuration. Unknown keys are errors, and values cannot change.

    A number must be finite: comparisons with NaN are always false, so that it would switch limits and tolerances off.
    An empty text is no path: it would mean the working directory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_empty_path(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, str) and not value.strip() and _is_path(cls.model_fields[info.field_name or ""]):
            raise ValueError("no path; give one, or leave the setting out")
        return value


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True, eq=False)
class Shown:
    """How a value is shown as an EPICS record. The record's type follows from the value's type.

    Attributes
    ----------
    record
        Name of the record, without the prefix; for a setpoint `X` the readback is `X_RBV`. Empty: there is none.
    about
        Description, at most 40 characters.
    group
        Group of records that it is loaded and listed with.
    egu
        Unit of the record, at most 7 characters where it is new.
    prec
        Digits after the point.
    low, high
        Limits in the record's unit; those of the field's type where they are not given.
    states
        Names of a choice's states, where they are not the values themselves.
    length
        Bytes of a text. Up to 39: an EPICS string.
    kind
        Record type, where it is another than the usual one.
    fields
        Further EPICS fields, of the readback.
    """

    record: str = ""
    about: str = ""
    _: KW_ONLY
    group: str = ""
    egu: str = ""
    prec: int = 3
    low: float | None = None
    high: float | None = None
    states: tuple[str, ...] = ()
    length: int = 512
    kind: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Setting(Shown):
    """What a field of a `Settings` class declares besides its type, limits and default.

    Without a record the setting is in the file alone, and on the command line where it has a flag.

    Attributes
    ----------
    flag
        Option of the command line.
    help
        Text of the option, where it differs from `about`.
    scale
        The record's value is the setting's value times this.
    access
        Access security group of the setpoint.
    live
        Whether the setting can change while the process runs; else its record is `X_RBV` alone.
    slow
        A change may take seconds: it must not keep other puts waiting.
    readback
        Whether `X_RBV` shows the setting in force; else another part of the program writes it.
    readback_about
        Description of the readback, where it differs from `about`.
    """

    _: KW_ONLY
    flag: str = ""
    help: str = ""
    scale: float = 1.0
    access: str = "OPERATOR"
    live: bool = True
    slow: bool = False
    readback: bool = True
    readback_about: str = ""


class Declared(NamedTuple):
    """One setting of a `Settings` class: its dotted key, its field, and what was declared with it."""

    key: str
    field: FieldInfo
    setting: Setting

    @property
    def type(self) -> Any:
        """Type of the value; None is left out of an optional one."""
        parts = get_args(self.field.annotation)
        return next(one for one in parts if one is not NoneType) if NoneType in parts else self.field.annotation

    @property
    def choices(self) -> tuple[Any, ...]:
        """Values of a choice, in order; empty for other types."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    def value(self, settings: BaseModel) -> Any:
        """The setting's value in `settings`."""
        return reduce(getattr, self.key.split("."), settings)


def declared(kind: type[BaseModel], prefix: str = "") -> Iterator[Declared]:
    """Every setting of `kind`, sections included, in the order of their declaration."""
    for name, info in kind.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from declared(info.annotation, f"{prefix}{name}.")
        else:
            setting = next((one for one in info.metadata if isinstance(one, Setting)), Setting())
            yield Declared(f"{prefix}{name}", info, setting)


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
    return _validated(kind, values, where, "correct that key")


def changed(settings: S, changes: Mapping[str, Any], where: str, remedy: str) -> S:
    """`settings` with other values at some dotted keys.

    Raises
    ------
    ConfigError
        A value does not fit; it says `where` and `remedy`.
    """
    values = settings.model_dump()
    for dotted, value in changes.items():
        _set(values, dotted.split("."), value)
    return _validated(type(settings), values, where, remedy)


def _is_path(field: FieldInfo) -> bool:
    return Path in (field.annotation, *get_args(field.annotation))


def explain(error: ValidationError) -> str:
    """The first fault that pydantic found, as one plain sentence: "batch = 0 must be at least 1"."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    shown = repr(first["input"])
    shown = shown if len(shown) <= _LONGEST_SHOWN else f"{shown[:_LONGEST_SHOWN]}…"
    given = "" if isinstance(first["input"], dict) else f" = {shown}"  # a table: the text says which key
    kind, limits = first["type"], first.get("ctx", {})
    if kind in _SENTENCES:
        return f"{key}{given} {_SENTENCES[kind].format(**limits)}".strip()
    text = first["msg"].removeprefix("Value error, ")
    return f"{key}{given}: {text}".removeprefix(": ")


_LONGEST_SHOWN = 80
_SENTENCES = {
    "finite_number": "must be a finite number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "string_too_short": "must not be shorter than {min_length} character(s)",
    "string_too_long": "must not be longer than {max_length} character(s)",
    "string_type": "must be a text",
    "path_type": "must be a path",
    "missing": "is missing",
    "model_type": "must be a table of settings",
    "dict_type": "must be a table of settings",
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
}
"""What a value must be, by pydantic's name of the fault."""


def _validated(kind: type[S], values: Mapping[str, Any], where: str, remedy: str) -> S:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            key = ".".join(str(part) for part in first["loc"])
            known = sorted(_model_at(kind, first["loc"][:-1]).model_fields)
            remedy = f"correct or remove it; known there are {', '.join(known)}"
            raise ConfigError(f"unknown key {key!r}", where=where, remedy=remedy) from error
        raise ConfigError(explain(error), where=where, remedy=remedy) from error


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
