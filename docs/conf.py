"""Sphinx configuration: `make docs` writes the site to build/docs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import pvaccess  # noqa: F401 - before every other EPICS library: else the process dies at its exit

from ptychostream import __version__

project = "ptychostream"
author = "the ptychostream authors"
copyright = "the ptychostream authors"
release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "reference_pages",
]
exclude_patterns = ["_ext", "results/2026-*"]
source_suffix = {".md": "markdown"}

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# A name in single backquotes is code in our docstrings, as in numpy's.
default_role = "code"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_attr_annotations = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_class_signature = "separated"
# Packages that the environment may lack; the modules that use them are documented all the same.
autodoc_mock_imports = [
    name
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings", "pycuda", "ptychi", "bluesky", "ophyd_async")
    if importlib.util.find_spec(name) is None
]
# One class may be named the same in two rooms (Replay, Report): a type in a signature then links to none of them.
suppress_warnings = ["ref.python"]

html_theme = "furo"
html_title = f"ptychostream {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sphinx = False
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True


def escape_bars(_app: object, _what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
    """Our docstrings write |x| for the absolute value; reStructuredText would take it for a substitution."""
    for number, line in enumerate(lines):
        if "|" in line:
            parts = line.split("`")
            lines[number] = "`".join(part if odd % 2 else part.replace("|", r"\|") for odd, part in enumerate(parts))


def setup(app: object) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", escape_bars, priority=900)  # type: ignore[attr-defined]
