"""`bench gpu` on a processor: each step counts for itself, and what it gave is kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ptychostream.cli.main import main

pytestmark = pytest.mark.slow

SMALL = ("--device", "cpu", "--engine", "Torch", "--frames", "40", "--size", "64", "--iterations", "2", "--epochs", "1")


def test_a_step_that_fails_costs_itself_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps = "doctor,epie,train,infer,tensorrt"
    status = main(["bench", "gpu", *SMALL, "--out", str(tmp_path), "--steps", steps, "--json"])
    report: dict[str, Any] = json.loads((tmp_path / "report.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    found = report["steps"]
    states = {name: step["state"] for name, step in found.items()}
    assert states.pop("tensorrt") == "failed" and "no NVIDIA GPU" in found["tensorrt"]["why"]
    assert status == 1 and list(states) == ["doctor", "epie", "train", "infer"]
    assert set(states.values()) == {"done"}, {name: step.get("why") for name, step in found.items()}
    assert found["epie"]["gave"]["engine"] == "torch (cpu)" and found["epie"]["gave"]["iterations"] == 2
    assert found["infer"]["gave"]["stitched"] == 40
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.width > 1000


def test_what_needs_a_step_that_failed_is_passed_over(tmp_path: Path) -> None:
    assert main(["bench", "gpu", *SMALL, "--out", str(tmp_path), "--steps", "epie,train,infer", "--limit", "0.01"]) == 1
    found = json.loads((tmp_path / "report.json").read_text())["steps"]
    assert found["epie"]["why"] == "not done within 0.01 s"
    assert [found[name]["why"] for name in ("train", "infer")] == ["needs epie", "needs train"]


def test_an_unknown_step_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "gpu", "--steps", "epie,everything"]) == 2
    assert "no step everything" in capsys.readouterr().err
