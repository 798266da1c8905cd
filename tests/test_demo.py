"""`ptychostream demo --quick`, whole: every process real, the image the one that a PVA client received."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ptychostream.demo.processes import Child, DemoError


def test_quick_demo_stitches_every_frame_and_reports_it(tmp_path: Path) -> None:
    words = ["demo", "--quick", "--json", "-o", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "ptychostream", *words], capture_output=True, text=True, timeout=480, check=False
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((tmp_path / "report.json").read_text())

    frames = report["frames"]
    assert frames["sent"] == frames["received"] == frames["stitched"] == 963
    assert frames["pending"] == frames["missed"] == sum(frames["dropped"].values()) == 0
    assert report["heldout_frames"] + report["training_frames"] < 963
    assert report["pearson_heldout"] > 0.5
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"] <= report["latency_ms"]["p99"]
    assert report["engine"] and report["model_version"] and report["versions"]["ptychostream"]

    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert "963 of 963" in page and "data:image/png;base64," in page
    for line in ("caproto-monitor ptycho:NN1:FramesStitched_RBV", "p4p.client.cli monitor ptycho:NN1:ArrayRate_RBV"):
        assert line in done.stderr, "the client lines were not printed"


def test_a_child_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        Child("ptychostream", ["replay", str(tmp_path / "absent.h5")], tmp_path / "replay.log") as child,
        pytest.raises(DemoError, match=r"replay.*absent\.h5"),
    ):
        child.wait(60)


def test_leaving_ends_a_child(tmp_path: Path) -> None:
    with Child("http.server", ["0", "--bind", "127.0.0.1"], tmp_path / "server.log") as child:
        assert child.running()
    assert not child.running()
