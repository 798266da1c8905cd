"""Files for those who take part: hooks, issue forms, and links within the documentation."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import yaml
from folders import ROOT

sys.path.insert(0, str(ROOT / ".ci"))

import whitespace

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "examples/README.md"]


@pytest.mark.slow
def test_the_issue_form_asks_for_the_doctor_as_json_which_the_command_prints() -> None:
    form = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/fault.yml").read_text(encoding="utf-8"))
    asked = {part["id"]: part for part in form["body"]}
    assert "ptychostream doctor --json" in asked["doctor"]["attributes"]["label"]
    assert asked["doctor"]["validations"]["required"]
    command = [sys.executable, "-m", "ptychostream", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert {"machine", "packages", "engines"} <= yaml.safe_load(done.stdout).keys()  # JSON is YAML


def test_the_hooks_run_tools_of_the_environment() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = {hook["id"]: hook for repository in config["repos"] for hook in repository["hooks"]}
    assert {"ruff", "ruff-format", "mypy", "whitespace"} <= hooks.keys()
    (target,) = re.findall(r"^make (\w+)$", hooks["mypy"]["entry"])
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert (ROOT / hooks["whitespace"]["entry"].split()[-1]).is_file()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"a  \nb\t\n", b"a\nb\n"),
        (b"a", b"a\n"),
        (b"a\n\n\n", b"a\n"),
        (b"", b""),
        (b"  a\n\n  b\n", b"  a\n\n  b\n"),
        (b"a \r\nb\r\n", b"a\r\nb\n"),
    ],
)
def test_blanks_at_the_ends_go(before: bytes, after: bytes) -> None:
    assert whitespace.clean(before) == after


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_outside_the_site_leads_to_a_file(page: object) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    assert links
    for link in links:
        assert (page.parent / link).exists(), link  # type: ignore[attr-defined]


def test_the_list_of_examples_names_every_one() -> None:
    text = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    assert len(names) >= 8
    assert set(re.findall(r"^\| \[(\w+\.py)\]", text, re.MULTILINE)) == names
