"""The table of rooms in docs/architecture.md: which folder may import what; and the limits that every room keeps."""

from __future__ import annotations

import ast
import configparser
import graphlib
import itertools
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
from folders import ROOT

TABLE = ROOT / "docs/architecture.md"
PACKAGE = "ptychostream"
LONGEST_MODULE = 400
MOST_MODULES = 20
ENTRY_POINTS = {"__main__.py", f"{PACKAGE}/__init__.py"}
"""What a process begins with, and the public names: they import from anywhere and nothing imports them."""
RAW_USERS = {f"{PACKAGE}/rawpva", f"{PACKAGE}/recording", f"{PACKAGE}/doctor", "sim/replay"}


@dataclass(frozen=True)
class Room:
    """A row of the table: what may be imported besides the room itself and the root; None is anything."""

    rooms: frozenset[str] | None
    packages: frozenset[str] | None


def quoted(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"`([^`]+)`", text))


@cache
def table() -> dict[str, Room]:
    """Every row, by the room's folder."""
    text = TABLE.read_text(encoding="utf-8")
    library, shared = (
        quoted(re.search(rf"^- {begin}:(.*?)\.( |\n)", text, re.MULTILINE | re.DOTALL)[1])  # type: ignore[index]
        for begin in ("The library is these rooms", "Every room may import these packages")
    )
    rows = {}
    for row in re.findall(r"^\| `[^\n]*\|$", text, re.MULTILINE):
        room, _, rooms, packages = (cell.strip() for cell in row.strip("|").split("|"))
        rows[room.strip("`")] = Room(
            None if rooms == "any" else quoted(rooms) | (library if "the library" in rooms else set()),
            None if packages == "any" else quoted(packages) | shared,
        )
    return rows


@cache
def top_folders() -> dict[str, str]:
    """The folder of every import name: ptychostream.plugins is plugins/."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    pairs = (line.split("=") for line in config["options"]["package_dir"].strip().splitlines())
    return {name.strip(): folder.strip() for name, folder in pairs}


@cache
def modules() -> dict[str, Path]:
    """Every module of the package by its import name, its path from the repository."""
    found = {}
    for name, folder in top_folders().items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((name, *parts)).removesuffix(".__init__")] = path.relative_to(ROOT)
    return found


@cache
def imported(path: Path) -> frozenset[str]:
    """What a module imports, inside functions as well: `from a import b` gives a.b."""
    names = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: line {node.lineno} is a relative import; write the whole name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(names)


def room_of(path: Path) -> str:
    return path.parent.as_posix()


def room_behind(name: str) -> str:
    """The room that holds what is imported under this name."""
    while name not in modules():
        assert "." in name, f"{name} is no module"
        name = name.rpartition(".")[0]
    return room_of(modules()[name])


def entry_point(path: Path) -> bool:
    return path.name in ENTRY_POINTS or path.as_posix() in ENTRY_POINTS


@cache
def arrows() -> dict[str, dict[str, Path]]:
    """From every room to the rooms that it imports, each with a module that does."""
    found: dict[str, dict[str, Path]] = {room_of(path): {} for path in modules().values()}
    for path in modules().values():
        if not entry_point(path):
            behind = {room_behind(name) for name in imported(path) if name.split(".")[0] == PACKAGE}
            found[room_of(path)] |= {room: path for room in behind - {room_of(path)}}
    return found


def test_the_table_has_a_row_for_every_folder() -> None:
    assert sorted(table()) == sorted({room_of(path) for path in modules().values()})
    allowed = set().union(*(row.rooms for row in table().values() if row.rooms is not None))
    assert allowed <= set(table()), f"rows allow what is no room: {allowed - set(table())}"


@pytest.mark.parametrize("room", table())
def test_a_room_imports_only_what_its_row_allows(room: str) -> None:
    row = table()[room]
    wrong = []
    for path in (path for path in modules().values() if room_of(path) == room and not entry_point(path)):
        for name in imported(path):
            top = name.split(".")[0]
            if top == PACKAGE:
                behind = room_behind(name)
                allowed = row.rooms is None or behind in row.rooms | {room, PACKAGE}
            else:
                allowed = row.packages is None or top in row.packages | sys.stdlib_module_names
            if not allowed:
                wrong.append(f"{path} imports {name}, which the row of `{room}` in {TABLE.name} does not allow")
    assert wrong == []


def test_rooms_do_not_import_each_other_in_a_circle() -> None:
    try:
        graphlib.TopologicalSorter({room: found.keys() for room, found in arrows().items()}).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1][::-1]
        steps = (f"{arrows()[a][b]} imports from {b}" for a, b in itertools.pairwise(circle))
        pytest.fail("rooms import each other in a circle: " + "; ".join(steps))


def test_only_recordings_and_replays_use_the_bit_exact_protocol() -> None:
    users = {room: path for room, found in arrows().items() if (path := found.get(f"{PACKAGE}/rawpva"))}
    wrong = {room: str(path) for room, path in users.items() if room not in RAW_USERS}
    assert wrong == {}, f"only {sorted(RAW_USERS)} may import ptychostream.rawpva"


def test_command_modules_import_lazily() -> None:
    """At their top nothing but the root, the library and the standard library, so that every command starts quickly."""
    library = {room for room, row in table().items() if room.startswith(PACKAGE) and allows_no_epics(row)}
    wrong = []
    for path in (path for path in modules().values() if room_of(path) == f"{PACKAGE}/cli"):
        for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {f"{node.module}.{alias.name}" for alias in node.names}
            else:
                continue
            for name in names:
                if name.split(".")[0] == PACKAGE:
                    wrong += [f"{path}: {name}"] if room_behind(name) not in library else []
                elif isinstance(node, ast.Import) and name.split(".")[0] not in sys.stdlib_module_names:
                    wrong.append(f"{path}: {name}")
    assert wrong == [], "import these inside the function that needs them"


def allows_no_epics(row: Room) -> bool:
    return row.packages is not None and row.packages == table()[PACKAGE].packages


@pytest.mark.slow
def test_the_library_never_loads_epics_base_nor_torch() -> None:
    rooms = {room for room, row in table().items() if room.startswith(f"{PACKAGE}/") and allows_no_epics(row)}
    names = [name for name, path in modules().items() if room_of(path) in rooms - {f"{PACKAGE}/cli"}]
    assert len(names) > 60
    code = (
        f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\n"
        "bad = {'torch','pvaccess','softioc','epicscorelibs','p4p','caproto'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_module_is_too_long() -> None:
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules().values()}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_MODULE} == {}


def test_no_folder_has_too_many_modules_side_by_side() -> None:
    rooms = [room_of(path) for path in modules().values() if path.name != "__init__.py"]
    assert {room: rooms.count(room) for room in rooms if rooms.count(room) > MOST_MODULES} == {}


def test_setup_names_every_folder() -> None:
    """A folder that setup.cfg does not list is missing from the wheel."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    packages = {name.rpartition(".")[0] if path.name != "__init__.py" else name for name, path in modules().items()}
    assert sorted(config["options"]["packages"].split()) == sorted(packages)


def test_every_folder_says_what_is_in_it() -> None:
    silent = []
    for room in sorted({room_of(path) for path in modules().values()}):
        init = ROOT / room / "__init__.py"
        if not init.exists() or not ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))):
            silent.append(room)
    assert silent == [], "these folders need an __init__.py with a docstring"


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        "sim.beamline", "sim.replay.replay", "plugins.consumer.consumer", "plugins.consumer.consumer_worker",
        "benchmarks.soak.soak_client", "benchmarks.soak.soak_source", "benchmarks.stream_source",
    ],
)  # fmt: skip
def test_pvapy_is_imported_before_another_epics_library(module: str) -> None:
    code = (
        "import sys\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in {'pvaccess', 'softioc', 'epicscorelibs'}: order.append(name.split('.')[0])\n"
        "order = []\n"
        "sys.meta_path.insert(0, Watch())\n"
        f"import ptychostream.{module}\n"
        "assert order[0] == 'pvaccess', order\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
