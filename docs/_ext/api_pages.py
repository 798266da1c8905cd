"""One page for each room: its modules, with their public classes and functions, from the docstrings."""

from __future__ import annotations

import ast
import contextlib
from collections import defaultdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

OMITTED = ("ptychostream.cli", "ptychostream.benchmarks", "ptychostream.opi", "ptychostream.db")
"""Documented by their commands and records."""
ROOMS = ("ptychostream", "ptychostream.plugins", "ptychostream.ioc", "ptychostream.hpc_agent", "ptychostream.sim")


def load() -> None:
    """Import every module that is described, before autodoc does.

    Autodoc replaces absent modules by mocks while it imports, and pydantic refuses annotations that were made so.
    """
    import_module("ptychostream.ioc")  # first, for the order of the EPICS libraries
    for name in modules():
        with contextlib.suppress(ModuleNotFoundError):
            import_module(name)


def pages() -> dict[str, str]:
    """api/index.md, and api/<package>.md for each package that has modules."""
    load()
    packages: dict[str, list[str]] = defaultdict(list)
    for name in modules():
        packages[name.rpartition(".")[0]].append(name)
    texts = {f"api/{package}.md": _page(package, names) for package, names in packages.items()}
    return {"api/index.md": _index(sorted(packages)), **texts}


def modules() -> list[str]:
    """Dotted names of the modules that the reference describes; packages and `__main__` are not among them."""
    found = []
    for room in ROOMS:
        folder = folder_of(room)
        for path in sorted(folder.rglob("*.py")):
            name = ".".join((room, *path.relative_to(folder).with_suffix("").parts))
            if not path.name.startswith("__") and not name.startswith(tuple(f"{omitted}." for omitted in OMITTED)):
                found.append(name)
    return found


def folder_of(package: str) -> Path:
    """Folder of a package, which setup.cfg maps."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise LookupError(f"{package} is not installed: run make install")
    return Path(spec.origin).parent


def summary(package: str) -> str:
    """First line of a package's docstring."""
    text = (folder_of(package) / "__init__.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ")


def _index(packages: list[str]) -> str:
    rows = "\n".join(f"| [`{package}`]({package}.md) | {summary(package)} |" for package in packages)
    entries = "\n".join(packages)
    return f"""# Python interfaces

Start with [ptychostream](ptychostream.md): the names that a script wants. The other pages describe the modules of each
room, for those who work on them. All pages are made from the docstrings.

| package | what lives there |
|---|---|
{rows}

```{{toctree}}
:hidden:

{entries}
```
"""


def _page(package: str, names: list[str]) -> str:
    parts = [f"# {package}\n\n{summary(package)}\n"]
    if package == "ptychostream":
        parts.append(_directive("automodule", package, "members", "imported-members", "no-index"))
    for name in names:
        parts.append(f"## {name.rpartition('.')[2]}\n\n`{name}`\n\n{_directive('automodule', name, 'members')}")
    return "\n".join(parts)


def _directive(kind: str, name: str, *options: str) -> str:
    lines = [f".. {kind}:: {name}", *(f"   :{option}:" for option in options)]
    return "```{eval-rst}\n" + "\n".join(lines) + "\n```\n"
