"""Run by `make wheel` with the Python of a clean environment that has the built wheel and the edge extra alone.

Not collected by pytest: it checks an installation, from another folder than the repository's root.
"""

from __future__ import annotations

import importlib
import importlib.resources
import importlib.util
import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    package = Path(importlib.import_module("ptychostream").__file__ or "")
    assert "site-packages" in package.parts, f"not the installed package: {package}"
    for name in ("ioc", "plugins", "plugins.engines", "pva", "sim", "db", "opi", "demo", "cli.main"):
        importlib.import_module(f"ptychostream.{name}")
    assert importlib.util.find_spec("torch") is None, "the edge must install without torch"
    templates = [p.name for p in importlib.resources.files("ptychostream.db").iterdir() if p.name.endswith(".template")]
    assert templates, "no record templates in the wheel"
    command = [str(Path(sys.executable).parent / "ptychostream")]
    shown = subprocess.run([*command, "doctor", "--json"], check=True, capture_output=True, text=True).stdout
    engines = {engine["name"]: engine["available"] for engine in json.loads(shown)["engines"]}
    assert engines["ONNXRuntime"], engines
    for words in (["--help"], ["ioc", "--help"], ["demo", "--help"], ["replay", "--help"]):
        subprocess.run([*command, *words], check=True, capture_output=True)
    print(f"wheel ok: {len(templates)} templates, engines {engines}")


if __name__ == "__main__":
    main()
