"""`ptychostream reproduce` at the tiny scale: what a run leaves, what it does not make again, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from epics_env import wait_until
from PIL import Image

from ptychostream.benchmarks.paper import resources, speed, table1, table2
from ptychostream.benchmarks.paper.curves import area_factor, least_overlap
from ptychostream.benchmarks.paper.result import Result, Row
from ptychostream.benchmarks.paper.scale import SCALES
from ptychostream.cli.main import main

TINY = ["reproduce", "--scale", "tiny", "--out"]


def files_of(folder: Path) -> dict[str, int]:
    """The pieces of a run and when each was written."""
    kept = {"images", "models", "points", "training"}
    return {
        str(path.relative_to(folder)): path.stat().st_mtime_ns
        for name in kept
        for path in (folder / name).rglob("*")
        if path.is_file()
    }


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as image:
        return image.size


@pytest.mark.slow
def test_a_run_is_killed_and_continued_and_leaves_figures_plots_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "ptychostream", *TINY, str(folder), "fig2"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"}) as process:
        wait_until(lambda: (folder / "models/base.pt").exists() or process.poll() is not None, 200, "no network")
        process.send_signal(signal.SIGKILL)
    before = files_of(folder)
    assert "models/base.pt" in before and not (folder / "fig2.json").exists()

    assert main([*TINY, str(folder), "fig2"]) == 0
    assert main([*TINY, str(folder), "fig3"]) == 0
    said = capsys.readouterr().err
    assert "epoch" not in said and "training/scan" not in said  # done before the kill
    after = files_of(folder)
    assert {name: after[name] for name in before} == before
    fig3 = json.loads((folder / "fig3.json").read_text())
    assert [point["overlap"] for point in fig3["points"]] == [0.7, 0.0]
    assert fig3["points"][0]["epie"]["ssim"] > fig3["points"][1]["epie"]["ssim"]  # without overlap ePIE fails
    fig2 = json.loads((folder / "fig2.json").read_text())
    assert fig2["patterns"]["letters"]["against_truth"]["epie"]["ssim"] > 0.5
    for name in ("fig2", "fig3"):
        assert min(size_of(folder / f"{name}.png")) > 600
        assert f"]({name}.png)" in (folder / "report.md").read_text()

    assert main([*TINY, str(folder), "fig3"]) == 0  # told again, not made again
    assert "fig3: SSIM at overlap 0" in capsys.readouterr().err
    assert files_of(folder) == after
    assert main([*TINY, str(folder), "fig3", "--seed", "2"]) == 2
    assert "holds another run: seed 1 there, 2 here" in capsys.readouterr().err
    assert main(["reproduce", "--out", str(folder), "fig3"]) == 2
    assert "scale tiny there, quick here" in capsys.readouterr().err


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose network is trained by the first test that needs it."""
    return tmp_path_factory.mktemp("reproduce") / "run"


def made(folder: Path, name: str) -> dict[str, Any]:
    """A result at the tiny scale, with its plot."""
    assert main([*TINY, str(folder), name]) == 0
    assert min(size_of(folder / f"{name}.png")) > 400
    assert f"## {name}: " in (folder / "report.md").read_text()
    result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return result


@pytest.mark.slow
def test_a_tenth_of_the_exposure_is_compared_with_the_whole(shared: Path) -> None:
    ssim = made(shared, "fig4")["against_truth"]
    assert set(ssim) == {"scaled", "unscaled", "whole", "epie"}
    assert ssim["epie"] > 0.3


@pytest.mark.slow
def test_a_network_is_trained_for_each_dose(shared: Path) -> None:
    whole, few = made(shared, "s1")["points"]
    assert (whole["factor"], few["factor"]) == (1.0, pytest.approx(1 / 300))
    assert 300 * few["photons"] == pytest.approx(whole["photons"], rel=0.05)
    assert 1 < few["peak"] < 20 < 500 < whole["peak"]
    assert few["epie"] < whole["epie"]
    assert (shared / "models/dose-0.003333.pt").exists()


@pytest.mark.slow
def test_training_goes_on_with_more_scans(shared: Path) -> None:
    curves = made(shared, "fig5")["curves"]
    assert {way: [point["pairs"] for point in points] for way, points in curves.items()} == {
        "measured": [60],
        "simulated": [60],
    }
    assert all(0 < points[0]["like"]["error_rad"] < 1 for points in curves.values())


@pytest.mark.slow
def test_the_tables_have_the_engines_that_are_here(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "BATCHES", (1, 8))
    monkeypatch.setattr(table1, "BATCHES", (1, 8))
    monkeypatch.setattr(table1, "PAPER_US", {"RTX A6000": (370, 90), "AGX Xavier": (2300, 850)})
    monkeypatch.setattr(table2, "NAMES", {"ptychonn2": "PtychoNN 2.0"})  # PtychoNN takes half a minute
    first = made(shared, "table1")
    assert [row["paper"] for row in first["rows"]][:4] == ["370 µs / 2300 µs"] * 2 + ["90 µs / 850 µs"] * 2
    assert all(row["ours"] > 0 for row in first["rows"])
    assert "Torch float32" in first["ratios"]
    times = made(shared, "table2")["times"]["ptychonn2"]
    assert 0 < times["engine_ms"] <= times["torch_ms"]


def test_when_the_time_is_over_nothing_is_begun(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, str(tmp_path / "run"), "fig2", "--minutes", "1e-9"]) == 3
    assert "The same command continues with it" in capsys.readouterr().err
    assert files_of(tmp_path / "run") == {}


def test_a_folder_of_something_else_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "scan.h5").touch()
    assert main([*TINY, str(tmp_path), "fig2"]) == 2
    assert "holds no run of reproduce, but scan.h5 (give a new or empty folder)" in capsys.readouterr().err
    (tmp_path / "manifest.json").write_text("[]")
    assert main([*TINY, str(tmp_path), "fig2"]) == 2
    assert "manifest.json is not that of a run" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["manifest.json", "scan.h5"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
def test_cuda_without_a_device_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*TINY, str(tmp_path / "run"), "fig2", "--device", "cuda"]) == 2
    assert "device 'cuda'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_too_little_disk_or_memory_says_how_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = resources.memory_bytes(SCALES["tiny"])
    monkeypatch.setattr(resources, "available_memory", lambda: wanted - 500_000_000)
    assert main([*TINY, str(tmp_path / "run"), "fig2"]) == 2
    assert "0.5 GB are missing" in capsys.readouterr().err
    usage = resources.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _path: usage._replace(free=10**8))
    assert main([*TINY, str(tmp_path / "run"), "fig2"]) == 2
    assert "the disk has 0.1 GB free, and this run needs 0.2 GB more" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_what_a_curve_gains() -> None:
    """The paper's own curves give the paper's own factors."""
    overlaps = [0.9, 0.8, 0.6, 0.3, 0.0]
    epie, network = [0.95, 0.90, 0.80, 0.40, 0.1], [0.97, 0.96, 0.95, 0.93, 0.90]
    at = {level: least_overlap(overlaps, epie, level) for level in (0.80, 0.90)}
    assert at == {0.80: pytest.approx(0.6), 0.90: pytest.approx(0.8)}
    assert least_overlap(overlaps[::-1], network[::-1], 0.90) == 0.0
    assert area_factor(0.0, at[0.80]) == pytest.approx(6.25)
    assert area_factor(0.0, at[0.90]) == pytest.approx(25)
    assert least_overlap(overlaps, epie, 0.96) is None and area_factor(None, 0.5) is None
    assert least_overlap([0.9, 0.5, 0.1], [0.9, 0.7, 0.95], 0.8) == pytest.approx(0.7)  # down to the first fall


def test_a_result_passes_only_with_all_its_lines() -> None:
    good, none = Row("a", "0.9", 0.91, least=0.9), Row("b", "–", 0.1)
    assert good.passed and none.passed is None
    assert Result("x", "", (good, none)).passed
    for ours in (0.89, None, float("nan")):
        assert not Result("x", "", (good, dataclasses.replace(good, ours=ours))).passed
    assert Result("x", "", (good,)).lines() == ["x: a: 0.91; paper: 0.9; pass (line 0.9)"]
