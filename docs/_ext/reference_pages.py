"""Sphinx extension: writes the pages of the reference that come from the code, before Sphinx reads the sources.

The pages lie in docs/reference/generated, which git ignores, so that no copy can differ from the code.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import api_pages
import command_pages
import config_pages
import record_pages
from sphinx.application import Sphinx


def pages() -> dict[str, str]:
    """Every generated page: its path below docs/reference/generated, and its Markdown."""
    return {**api_pages.pages(), **config_pages.pages(), **command_pages.pages(), **record_pages.pages()}


def write(folder: Path, texts: dict[str, str]) -> None:
    """Make `folder` hold these pages alone. A page that did not change keeps its time, so that Sphinx skips it."""
    wanted = {folder / name for name in texts}
    for path in folder.rglob("*.md") if folder.exists() else ():
        if path not in wanted:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            shutil.rmtree(path)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "reference" / "generated", pages()))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
