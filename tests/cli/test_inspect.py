"""`ptychostream inspect`: what is found, assumed and contradicted; exit status 2 for what no command would take."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ptychostream.cli.main import main
from ptychostream.scans.inspection import inspect_scan
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.scans.scan_writer import write_scan


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    random = np.random.default_rng(2)
    scan = Scan(
        "s12",
        random.poisson(5, (20, 24, 32)).astype(np.uint16),
        random.uniform(-3e-6, 3e-6, (20, 2)),
        9_100.0,
        1.1,
        75e-6,
        bad_pixels=random.random((24, 32)) < 0.02,
        frame_ids=np.arange(1, 21),
    )
    write_scan(tmp_path / "scan.h5", scan)
    return tmp_path / "scan.h5"


def inspected(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    status = main(["inspect", *words, "--json"])
    return status, json.loads(capsys.readouterr().out)


def test_what_a_sound_file_says(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = inspected(capsys, str(scan_file))
    assert (status, found["sound"], found["contradictions"], found["error"]) == (0, True, [], None)
    scan = found["scan"]
    assert (scan["scan_id"], scan["frames"], scan["height"], scan["width"]) == ("s12", 20, 24, 32)
    assert (scan["pixel_type"], scan["first_id"], scan["last_id"]) == ("uint16", 1, 20)
    assert 0 < scan["bad_share"] < 0.1
    assert 3e-6 < scan["extent_m"][0] < 6e-6
    said = {(row["quantity"], row["origin"]): row for row in found["statements"]}
    assert said["energy", "stated"]["value"] == 9_100.0
    assert said["energy", "stated"]["where"] == "/entry/instrument/beam/incident_energy"
    assert said["zero_frequency", "assumed"]["value"] == "centre"


def test_options_count_as_given(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = inspected(capsys, str(scan_file), "--energy-ev", "8800", "--flip-x")
    energies = {row["origin"]: row["value"] for row in found["statements"] if row["quantity"] == "energy"}
    assert energies == {"stated": 9_100.0, "given": 8_800.0}


@pytest.mark.slow
def test_every_contradiction_is_told_with_both_statements(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(scan_file, "r+") as file:
        file["entry/instrument/monochromator/energy"] = 9.9
        file["entry/instrument/monochromator/energy"].attrs["units"] = "keV"
        file["entry/instrument/detector/distance"][()] = 4e3
    status, found = inspected(capsys, str(scan_file))
    assert (status, found["sound"], found["scan"]) == (2, False, None)
    assert {one["quantity"] for one in found["contradictions"]} == {"energy", "distance"}
    places = [statement["where"] for one in found["contradictions"] for statement in one["statements"]]
    assert "/entry/instrument/monochromator/energy" in places
    assert main(["inspect", str(scan_file)]) == 2
    shown = capsys.readouterr().out
    assert "monochromator/energy says 9.9 keV" in shown
    assert "contradicts:" in shown


def test_a_file_that_cannot_be_used_for_another_reason(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(scan_file, "r+") as file:
        file["entry/instrument/NDAttributes/PositionY"].resize((11,))
    status, found = inspected(capsys, str(scan_file))
    assert status == 2
    assert "20 values but PositionY 11" in found["error"]["what"]
    assert main(["inspect", str(scan_file.with_name("none.h5"))]) == 2
    assert "there is no such file" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sound_file_is_shown_as_a_table(scan_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(scan_file)]) == 0
    shown = capsys.readouterr().out
    for text in ("found", "assumed", "20 frames of 24×32 uint16", "frame ids 1 to 20", "nothing contradicts"):
        assert text in shown


@pytest.mark.slow
def test_a_virtual_data_set_of_a_thousand_files_without_a_count_read(tmp_path: Path) -> None:
    """100 GB by its shapes; the sources are empty files, so a count that was read would be an error."""
    files, each, size = 1000, 50, 1024
    layout = h5py.VirtualLayout((files * each, size, size), np.uint16)
    for index in range(files):
        (tmp_path / f"part_{index:04}.h5").touch()
        layout[index * each : (index + 1) * each] = h5py.VirtualSource(
            f"part_{index:04}.h5", "data", (each, size, size)
        )
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file.create_group("entry/data").create_virtual_dataset("data", layout)
        file["entry/positions"] = np.random.default_rng(0).uniform(0, 1e-5, (files * each, 2))
        file["entry/instrument/beam/incident_energy"] = 1e4
        for name, value in (("distance", 1.0), ("x_pixel_size", 75e-6), ("y_pixel_size", 75e-6)):
            file[f"entry/instrument/detector/{name}"] = value
    began = time.monotonic()
    found = inspect_scan(tmp_path / "master.h5")
    print(f"{time.monotonic() - began:.2f} s")
    assert found.sound, found.error
    assert found.scan is not None
    assert (found.scan.frames, found.scan.scan_id) == (files * each, "master")
    (tmp_path / "part_0700.h5").unlink()
    assert "part_0700.h5 is not there" in str(inspect_scan(tmp_path / "master.h5").error)


def test_a_reconstruction_names_frames_that_are_explained_badly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, residuals = tmp_path / "epie.h5", np.full(30, 0.02, np.float32)
    residuals[[4, 7]], residuals[20] = (0.05, 0.09), np.nan
    made = Reconstruction(
        object=np.ones((40, 50), np.complex64),
        probe=np.ones((2, 16, 16), np.complex64),
        origin_m=(0.0, 0.0),
        pixel_m=1e-8,
        positions_m=np.column_stack([np.arange(30) * 1e-6, np.zeros(30)]),
        errors=np.array([0.1, 0.03]),
        coverage=np.ones((40, 50), np.float32),
        scan_id="s3",
        engine="epie",
        frames=np.arange(30) + 100,
        residuals=residuals,
    )
    write_reconstruction(path, made)
    status, found = inspected(capsys, str(path))
    assert (status, found["sound"], found["scan"]) == (0, True, None)
    told = found["reconstruction"]["residuals"]
    assert (told["known"], told["bad"]) == (29, 2) and told["median"] == pytest.approx(0.02)
    assert [(one["frame"], round(one["times_median"], 2)) for one in told["worst"]] == [(107, 4.5), (104, 2.5)]
    assert main(["inspect", str(path)]) == 0
    words = capsys.readouterr().out
    assert "reconstruction of scan s3 by epie: R 0.0300 after 2 iterations with 30 frames" in words
    assert "doubtful: 2 of 29 frames" in words and "frame 107, x 7.000 µm, y 0.000 µm: 4.5 times" in words
    write_reconstruction(path, replace(made, residuals=None))
    assert main(["inspect", str(path)]) == 0 and "does not say how well each frame" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-3000])
    assert main(["inspect", str(path)]) == 2
