"""The reference is made from the code and leaves nothing out; the pages themselves are built by `make docs`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from folders import ROOT

sys.path.insert(0, str(ROOT / "docs/_ext"))

import api_pages
import architecture_picture
import command_pages
import config_pages
import record_pages

from ptychostream.cli.main import COMMANDS


@pytest.mark.slow
def test_every_record_is_in_the_reference() -> None:
    command = [sys.executable, "-m", "ptychostream.ioc.records.record_table", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    (text,) = record_pages.pages().values()
    groups = json.loads(done.stdout)
    assert sum(len(group) for group in groups.values()) > 200
    for group in groups.values():
        for record in group:
            assert f"| `{record['name'].removeprefix('P:')}` | {record['type']}" in text


@pytest.mark.slow
@pytest.mark.parametrize("file", config_pages.FILES, ids=lambda file: file.page)
def test_every_key_of_a_configuration_file_is_described(file: config_pages.File) -> None:
    page = config_pages.page(file)
    tables = config_pages.sections(file)
    assert tables
    for key, kind in tables:
        table = page.partition(f"## `[{key}]`" if key else "## At the top")[2].partition("\n## ")[0]
        for name, info in config_pages.fields(kind).items():
            row = next(line for line in table.splitlines() if line.startswith(f"| `{name}` |"))
            assert config_pages.default_text(info) in row
            assert config_pages.description(kind, name), f"{key}.{name} has no description"


def test_types_limits_units_and_texts_of_settings_are_told() -> None:
    file = next(file for file in config_pages.FILES if file.page == "ioc")
    page = config_pages.page(file)
    assert re.search(r"\| `queue_size` \| [^|]+ \| integer, ≥ 1 \| `2000` \|", page)
    assert re.search(r'\| `late` \| [^|]+ \| `"stitch"` or `"drop"` \| `"stitch"` \|', page)
    assert re.search(r"\| `timeout_s` \| [^|]+ \| number, ≥ 2 \| `10` \| s \|", page)
    assert re.search(r"\| `directory` \| [^|]+ \| path \| none \|", page)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_and_option_of_a_command_is_in_the_reference(command: str) -> None:
    page = command_pages.page(command)
    seen = 0
    for words, parser in command_pages.parsers(command):
        part = page.partition(f"## {command} {' '.join(words)}\n")[2] if words else page
        for option in command_pages.options(parser):
            assert f"| `{option}` |" in part
            seen += 1
    assert seen > 0
    assert "%(" not in page


@pytest.mark.slow
def test_every_module_of_the_rooms_is_in_the_reference() -> None:
    texts = api_pages.pages()
    names = api_pages.modules()
    assert len(names) > 200 and "ptychostream.imaging.stitching" in names
    for name in names:
        assert f".. automodule:: {name}\n" in texts[f"api/{name.rpartition('.')[0]}.md"]


def test_the_picture_of_the_architecture_is_the_one_that_its_script_draws() -> None:
    assert architecture_picture.TARGET.read_text(encoding="utf-8") == architecture_picture.draw()


@pytest.mark.slow
def test_pages_that_are_no_longer_made_go_away(tmp_path: Path) -> None:
    import reference_pages

    reference_pages.write(tmp_path, {"api/a.md": "a", "b.md": "b"})
    before = (tmp_path / "b.md").stat().st_mtime_ns
    reference_pages.write(tmp_path, {"b.md": "b", "c.md": "c"})
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == ["b.md", "c.md"]
    assert (tmp_path / "b.md").stat().st_mtime_ns == before
