"""constraints.txt: one line for what all Pythons agree about, markers for the rest, and every difference is named."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from typing import Any

import pytest
from folders import ROOT


@pytest.fixture(scope="module")
def constraints() -> Any:
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        return importlib.import_module("constraints")
    finally:
        sys.path.remove(str(ROOT / ".ci"))


def test_a_report_gives_names_and_public_versions(constraints: Any) -> None:
    names = {"Torch": "2.13.0+cpu", "ml_dtypes": "0.6.0", "nvidia-cublas": "13.1", "triton": "3", "ptychostream": "1"}
    report = {"install": [{"metadata": {"name": name, "version": version}} for name, version in names.items()]}
    assert constraints.from_report(json.dumps(report)) == {"torch": "2.13.0", "ml-dtypes": "0.6.0"}


def test_versions_that_differ_between_pythons_get_markers(constraints: Any) -> None:
    resolved: dict[int, dict[str, str]] = {
        10: {"same": "1", "numpy": "2.2", "only-old": "1", "middle": "1"},
        11: {"same": "1", "numpy": "2.4", "middle": "2"},
        12: {"same": "1", "numpy": "2.5", "middle": "2"},
        13: {"same": "1", "numpy": "2.5", "middle": "3", "only-new": "4"},
    }
    assert constraints.constraint_lines(resolved) == [
        'middle==1; python_version < "3.11"',
        'middle==2; python_version >= "3.11" and python_version < "3.13"',
        'middle==3; python_version >= "3.13"',
        'numpy==2.2; python_version < "3.11"',
        'numpy==2.4; python_version == "3.11"',
        'numpy==2.5; python_version >= "3.12"',
        'only-new==4; python_version >= "3.13"',
        'only-old==1; python_version < "3.11"',
        "same==1",
    ]


def test_only_the_lines_for_this_python_apply(constraints: Any) -> None:
    text = '# a comment\na==1; python_version < "3.0"\na==2; python_version >= "3.0"\nB_c==3\n'
    assert constraints.parse(text) == {"a": "2", "b-c": "3"}


def test_every_difference_is_named(constraints: Any) -> None:
    named = {"a": "1", "b": "2", "c": "3", "extra": "1", "torch": "2.13.0"}
    installed = {"a": "1", "b": "2.1", "d": "4", "torch": "2.13.0+cpu"}
    assert constraints.differences(named, installed, {"extra"}) == [
        "d 4 is installed and not named",
        "c is named and not installed",
        "b 2.1 is installed, 2 is named",
    ]
    assert constraints.differences({"a": "1.0"}, {"a": "1"}, set()) == []


NOT_OURS = {"tensorrt", "pycuda", "bluesky", "ophyd-async"}
"""Packages of extras that none of the project's own environments has."""


def test_the_file_names_a_version_of_every_requirement_for_every_python(constraints: Any) -> None:
    """No requirement of setup.cfg is left without a version, whichever Python runs."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    named = [constraints.Requirement(line) for line in lines]
    ours = [constraints.Requirement(line) for line in importlib.metadata.requires("ptychostream") or []]
    names = {constraints.canonicalize_name(requirement.name) for requirement in ours} - NOT_OURS
    for minor in constraints.MINORS:
        here = {"python_version": f"3.{minor}", "python_full_version": f"3.{minor}.0"}
        applying = {r.name for r in named if r.marker is None or r.marker.evaluate(here)}
        unnamed = names - applying - ({"tomli"} if minor > 10 else set())
        assert not unnamed, f"Python 3.{minor}: `make constraints`"
    assert all(len(list(requirement.specifier)) == 1 for requirement in named)
