"""One page for each configuration file: every TOML key with type, default, unit and description."""

from __future__ import annotations

import ast
import importlib
import inspect
import itertools
import json
import re
import textwrap
import types
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from ptychostream.config import Setting


@dataclass(frozen=True)
class File:
    """A configuration file, and the settings class that reads it.

    Attributes
    ----------
    page, title, intro
        The page's name, heading and first paragraph.
    kind
        "module:Class".
    inner
        Settings classes of tables that the file's own class takes as they come, by dotted key.
    """

    page: str
    title: str
    intro: str
    kind: str
    inner: dict[str, str] = field(default_factory=dict)


FILES = (
    File(
        "ioc",
        "Configuration of the IOC",
        "`ptychostream ioc --config ioc.toml`. Options of the command line override the file. A record "
        "changes its setting while the IOC runs, in a unit of its own; one that ends in `_RBV` only shows it.",
        "ptychostream.ioc.config.settings:IocSettings",
    ),
    File(
        "agent",
        "Configuration of the agent",
        "`ptychostream agent --config agent.toml`. Options of the command line override the file.",
        "ptychostream.hpc_agent.settings:AgentSettings",
        {
            "steps.reconstruct": "ptychostream.reconstruct.options:ReconstructOptions",
            "steps.label": "ptychostream.hpc_agent.steps.label_step:LabelOptions",
            "steps.train": "ptychostream.hpc_agent.training.training:TrainingOptions",
            "steps.judge": "ptychostream.hpc_agent.steps.judge_step:JudgeOptions",
        },
    ),
    File(
        "cluster",
        "Configuration of a cluster",
        "`ptychostream cluster cluster.toml`. The same file serves every host. The table `[ioc]` takes the keys of "
        "[the IOC](ioc.md). The table `[only.N]` takes the keys of `[consumer]` and holds for consumer N alone.",
        "ptychostream.cluster.settings:ClusterSettings",
        {"consumer": "ptychostream.plugins.consumer.consumer_settings:ConsumerSettings"},
    ),
    File(
        "web",
        "Configuration of the page for browsers",
        "`ptychostream web --config web.toml`. Options of the command line override the file.",
        "ptychostream.web.settings:WebSettings",
    ),
    File(
        "beamline",
        "Configuration of the simulated beamline",
        "`ptychostream beamline --config beamline.toml`. Options of the command line override the file.",
        "ptychostream.sim.beamline:BeamlineSettings",
    ),
)
_UNITS = {
    "_m_s": "m/s", "_per_s": "1/s", "_s": "s", "_ms": "ms", "_hz": "Hz", "_m": "m", "_nm": "nm", "_ev": "eV",
    "_px": "pixels", "_bytes": "bytes", "_mib": "MiB", "_mb": "MB", "_gb": "GB", "_rad": "rad",
}  # fmt: skip
_LIMITS = {"ge": "≥ {}", "gt": "> {}", "le": "≤ {}", "lt": "< {}", "min_length": "at least {} of them"}


def pages() -> dict[str, str]:
    """configuration/index.md and a page for each file."""
    rows = "\n".join(f"| [{file.page}.toml]({file.page}.md) | {file.intro.split('. ')[0]} |" for file in FILES)
    entries = "\n".join(file.page for file in FILES)
    index = f"""# Configuration files

Each process reads one TOML file. An unknown key, or a value of the wrong kind, is an error that names the file, the
key and the remedy. All lengths are in metres, all times in seconds, unless the unit says otherwise.

| file | read by |
|---|---|
{rows}

`ptychostream record` and `ptychostream replay` take no file: their options are in the
[list of commands](../commands/index.md).

```{{toctree}}
:hidden:

{entries}
```
"""
    return {"configuration/index.md": index, **{f"configuration/{file.page}.md": page(file) for file in FILES}}


def page(file: File) -> str:
    """The Markdown of one file's page."""
    tables = [_table(key, kind) for key, kind in sections(file)]
    return "\n".join([f"# {file.title}\n\n{file.intro}\n", *tables])


def sections(file: File) -> list[tuple[str, type[BaseModel]]]:
    """Dotted key and settings class of every table of the file, the top one first, in the file's order."""
    found: list[tuple[str, type[BaseModel]]] = []

    def walk(key: str, kind: type[BaseModel]) -> None:
        found.append((key, kind))
        for name, info in kind.model_fields.items():
            inner = f"{key}.{name}".lstrip(".")
            nested = file.inner.get(inner) or _model_in(info.annotation)
            if nested is not None:
                walk(inner, _load(nested) if isinstance(nested, str) else nested)

    walk("", _load(file.kind))
    return found


def fields(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The keys of a table that are values, without the tables within it."""
    return {name: info for name, info in kind.model_fields.items() if _model_in(info.annotation) is None}


def description(kind: type[BaseModel], name: str) -> str:
    """What a key means: the text below the field, its entry under "Attributes", or what its `Setting` says."""
    info = kind.model_fields[name]
    declaring = (base for base in kind.__mro__ if issubclass(base, BaseModel) and name in base.__annotations__)
    text = _texts(next(declaring)).get(name, "")
    setting = next((one for one in info.metadata if isinstance(one, Setting)), Setting())
    return text or setting.about or setting.help


def unit(name: str, info: FieldInfo) -> str:
    """From the field's metadata, or by the end of its name."""
    extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
    if extra.get("unit"):
        return str(extra["unit"])
    numeric = any(kind in (int, float) for kind in _kinds(info.annotation))
    return next((text for end, text in _UNITS.items() if name.endswith(end)), "") if numeric else ""


def option(info: FieldInfo) -> str:
    """The option of the command line that sets the key."""
    setting = next((one for one in info.metadata if isinstance(one, Setting)), Setting())
    return setting.flag and f"`{setting.flag}`"


def record(info: FieldInfo) -> str:
    """The record that changes the setting while the IOC runs; `X_RBV` where it only shows it."""
    setting = next((one for one in info.metadata if isinstance(one, Setting)), Setting())
    return setting.record and f"`{setting.record}{'' if setting.live else '_RBV'}`"


def type_text(info: FieldInfo) -> str:
    """The type in words, with its limits."""
    limits = [
        text.format(getattr(rule, name))
        for rule in info.metadata
        for name, text in _LIMITS.items()
        if hasattr(rule, name)
    ]
    return ", ".join([_type(info.annotation), *limits])


def default_text(info: FieldInfo) -> str:
    """The default as TOML has it."""
    value = info.get_default(call_default_factory=True)  # type: ignore[call-arg]
    if value is PydanticUndefined:
        return "must be given"
    return "none" if value is None else f"`{_toml(value)}`"


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list | set | frozenset):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return (
        f"{value:g}"
        if isinstance(value, float)
        else json.dumps(value if isinstance(value, int) else str(value), ensure_ascii=False)
    )


def _type(annotation: Any) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(inner[0])
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type(part) for part in inner if part is not type(None)))
    if origin in (tuple, list, set, frozenset):
        parts = [part for part in inner if part is not Ellipsis]
        return f"list of {_type(parts[0])}" if len(set(parts)) == 1 else "list of " + ", ".join(map(_type, parts))
    if origin is dict or annotation is dict:
        return "table"
    names = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", Any: "any"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _kinds(annotation: Any) -> list[Any]:
    inner = get_args(annotation)
    return [kind for part in inner for kind in _kinds(part)] if inner else [annotation]


def _table(key: str, kind: type[BaseModel]) -> str:
    values = fields(kind)
    if not values:
        return ""
    intro = (inspect.getdoc(kind) or "").split("\n\n")[0].replace("\n", " ") if key else ""
    lines = [
        f"## `[{key}]`" if key else "## At the top of the file",
        "",
        intro,
        "",
    ]
    also = [column for column in (option, record) if any(column(info) for info in values.values())]
    columns = ["key", "description", "type", "default", "unit", *(column.__name__ for column in also)]
    lines += [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, info in values.items():
        cells = [f"`{name}`", description(kind, name), type_text(info), default_text(info), unit(name, info)]
        cells += [column(info) for column in also]
        lines.append("| " + " | ".join(cell.replace("\n", " ").replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType, Annotated) else ()
    return next((found for part in parts if (found := _model_in(part))), None)


def _load(place: str) -> type[BaseModel]:
    module, _, name = place.partition(":")
    kind: type[BaseModel] = getattr(importlib.import_module(module), name)
    return kind


@cache
def _texts(kind: type[BaseModel]) -> dict[str, str]:
    """Descriptions of the fields that a class itself declares."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
    texts = _attributes_section(inspect.getdoc(kind) or "")
    for statement, following in itertools.pairwise(body):
        declared = statement.target if isinstance(statement, ast.AnnAssign) else None
        text = following.value if isinstance(following, ast.Expr) else None
        if isinstance(declared, ast.Name) and isinstance(text, ast.Constant) and isinstance(text.value, str):
            texts[declared.id] = inspect.cleandoc(text.value)
    return texts


def _attributes_section(docstring: str) -> dict[str, str]:
    """The entries of a numpydoc section "Attributes" or "Parameters"; "a, b" describes both."""
    texts: dict[str, str] = {}
    found = re.search(
        r"^(?:Attributes|Parameters)\n-+\n(.*?)(?=\n\w[^\n]*\n-{3,}\n|\Z)", docstring, re.MULTILINE | re.DOTALL
    )
    names: list[str] = []
    for line in found.group(1).splitlines() if found else ():
        if line and not line[0].isspace():
            names = [name.strip() for name in line.partition(":")[0].split(",")]
        for name in names if line[:1].isspace() else ():
            texts[name] = f"{texts.get(name, '')} {line.strip()}".strip()
    return texts
