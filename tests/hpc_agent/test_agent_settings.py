"""The agent's configuration, the command's flags, and what scans are called."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT

from ptychostream.cli.main import main
from ptychostream.hpc_agent.folder import agent_name
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.keys import ScanKeys
from ptychostream.hpc_agent.scans.collect import ScanEvent

PVS = 'complete_pv = "s:Complete"\nid_pv = "s:ID"\n'


def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str], toml: str, *flags: str) -> tuple[int, str]:
    path = tmp_path / "agent.toml"
    path.write_text(toml)
    status = main(["agent", "--config", str(path), "--check", *flags])
    said = capsys.readouterr()
    return status, said.out + said.err


def test_flags_override_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = f'prefix = "a:"\n[watch]\n{PVS}[steps.train]\nepochs = 7\n'
    flags = ("--prefix", "b:", "--complete-edge", "falling", "--file-pv", "s:File", "--work", "there", "--threads", "2")
    status, said = checked(tmp_path, capsys, toml, *flags)
    assert status == 0
    found: dict[str, Any] = json.loads(said)
    assert (found["prefix"], found["work"], found["runner"]["threads"]) == ("b:", "there", 2)
    assert found["watch"] | {"edge": "falling", "file_pv": "s:File", "id_pv": "s:ID"} == found["watch"]
    assert found["steps"]["train"] == {"epochs": 7}


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("", "no scans will come: give watch.complete_pv (--complete-pv) or folder.files (--files)"),
        (
            '[folder]\nfiles = "/data/{scan}.h5"',
            "without watch.complete_pv the folder must be looked at",
        ),
        ('[watch]\ncomplete_pv = "s:C"', "complete_pv needs id_pv, file_pv or both"),
        (f'[watch]\n{PVS}[record]\nchannel = "det:Image"', "the stream is recorded, but not to where"),
        (f'[watch]\n{PVS}[push]\nprefix = "x:"', "the edge is the prefix at the top of the file: remove push.prefix"),
        (f"[watch]\n{PVS}[steps.train]\nepochz = 7", "steps.train: epochz = 7"),
        (f"[watch]\n{PVS}[steps.reconstruct]\niterations = 0", "steps.reconstruct: iterations = 0"),
        (
            f'[watch]\n{PVS}[runner.parsl]\nprovider = "slurm"\nqueue = "q"',
            "runner.parsl: queue is for",
        ),
        (f'[watch]\n{PVS}edge = "both"', "watch.edge = 'both'"),
    ],
)
def test_what_is_wrong_is_named(toml: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, said = checked(tmp_path, capsys, toml)
    assert status == 2 and message in said
    assert "Traceback" not in said


def test_the_examples_in_the_documentation_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "docs/how-to/run-the-agent.md").read_text(encoding="utf-8")
    examples = [block.partition("```")[0] for block in text.split("```toml\n")[1:]]
    assert len(examples) == 4
    for example in examples:
        status, said = checked(tmp_path, capsys, example)
        assert status == 0, (example, said)


def test_scans_have_one_name_each(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.sqlite")
    keys = ScanKeys(journal, {"Z:/": "/data"})

    def enter(scan_id: str, file: str = "") -> str:
        event = ScanEvent(scan_id, file)
        key = keys(event)
        journal.enter(key, asdict(event), 0.0)
        return key

    assert enter("1", "/data/may/1.h5") == enter("1", "/data/may/1.h5") == "1"
    assert enter("1", "Z:\\may\\1.h5") == "1"  # as the detector names it
    assert enter("1") == "1" and enter("", "/data/may/1.h5") == "1"  # as far as they say
    assert enter("1", "/data/june/1.h5") == "1-2"  # a sequencer that counts from the start again
    assert enter("1", "/data/june/1.h5") == "1-2"
    assert enter("", "/data/june/7.h5") == "7"
    assert enter("a/b") == "a_b" and enter("a_b") == "a_b-2"  # folders of their own
    assert [scan.key for scan in journal.scans()] == ["1", "1-2", "7", "a_b", "a_b-2"]


def test_the_agents_name_fits_the_lease_and_stays(tmp_path: Path) -> None:
    long = tmp_path / ("w" * 40)
    name = agent_name(long)
    assert name == agent_name(long) != agent_name(tmp_path) and len(name) <= 38
