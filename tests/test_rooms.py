"""The table of rooms in docs/architecture.md, held: which folder may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT

LIBRARY = {
    "numpy", "scipy", "h5py", "hdf5plugin", "skimage", "numba", "pydantic", "onnx", "google", "rich", "matplotlib",
    "lz4", "blosc", "PIL", "tomli",
}  # fmt: skip
CORE = "ptychostream"
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    # folder: (third-party packages, our own packages besides the core library)
    "ptychostream": (LIBRARY, set()),
    "ptychostream/demo": (LIBRARY | {"p4p"}, set()),
    "ptychostream/pva": (LIBRARY | {"pvaccess", "p4p"}, {"pva"}),
    "plugins": (
        LIBRARY
        | {"pvaccess", "p4p"}
        | {"openvino", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx_bindings", "pycuda"},
        {"pva", "plugins"},
    ),
    "ioc": (LIBRARY | {"pvaccess", "p4p", "softioc", "epicscorelibs", "pvxslibs"}, {"pva", "plugins", "ioc", "db"}),
    "hpc_agent": (LIBRARY | {"torch", "onnxruntime", "caproto", "p4p", "parsl", "ptychi"}, {"hpc_agent"}),
    "ptychostream/rawpva": (LIBRARY | {"pvaccess", "p4p"}, {"pva", "rawpva"}),
    "ptychostream/recording": (LIBRARY | {"pvaccess", "p4p"}, {"pva", "rawpva", "recording"}),
    "sim": (LIBRARY | {"pvaccess", "p4p"}, {"pva", "sim"}),
    "sim/replay": (LIBRARY | {"pvaccess", "p4p"}, {"pva", "rawpva", "sim"}),
    "db": (set(), set()),
    "opi": (set(), set()),
}
OURS = {"cli", "demo", "pva", "rawpva", "recording", "plugins", "ioc", "hpc_agent", "sim", "benchmarks", "db", "opi"}


def modules() -> list[tuple[str, Path]]:
    found = []
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            relative = path.relative_to(ROOT)
            nearest = max((r for r in ROOMS if relative.is_relative_to(r)), key=len)
            command_line = relative.is_relative_to("ptychostream/cli") or path.name == "__main__.py"
            if nearest == room and not command_line:
                found.append((room, path))
    return found


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            if node.module == CORE:
                names |= {f"{CORE}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(("room", "path"), modules(), ids=lambda value: str(value).removeprefix(str(ROOT)))
def test_room_imports_only_what_it_may(room: str, path: Path) -> None:
    packages, own = ROOMS[room]
    for name in imported(path):
        top, _, rest = name.partition(".")
        if top == CORE:
            inner = rest.split(".")[0]
            assert inner not in OURS or inner in own or inner == room.rpartition("/")[2], f"{path} imports {name}"
        else:
            assert top in packages or top in sys.stdlib_module_names, f"{path} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "ptychostream/cli").glob("*.py")), ids=lambda path: path.stem)
def test_command_modules_import_the_process_lazily(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(CORE):
            inner = node.module.split(".")[1] if "." in node.module else ""
            assert inner not in OURS - {"cli"}, f"{path} imports {node.module} at its top"
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] in sys.stdlib_module_names | {CORE} for alias in node.names)


def test_the_agent_never_loads_epics_base_nor_the_library_torch() -> None:
    code = (
        "import sys, pkgutil, importlib, ptychostream\n"
        "for m in pkgutil.iter_modules(ptychostream.__path__):\n"
        f"    if m.name not in {sorted(OURS | {'__main__'})}:\n"
        "        importlib.import_module('ptychostream.' + m.name)\n"
        "bad = {'torch','pvaccess','softioc','epicscorelibs','p4p','caproto'} & set(sys.modules)\n"
        "assert not bad, bad\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_no_module_is_longer_than_400_lines() -> None:
    long = {str(path): lines for _, path in modules() if (lines := len(path.read_text().splitlines())) > 400}
    assert not long
