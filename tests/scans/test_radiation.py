"""Photons and electrons: what a file or a user says of the beam, in any of its forms, gives one pixel."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ptychostream.cli.main import main
from ptychostream.cli.parts.scan_arguments import add_scan_arguments, scan_options
from ptychostream.errors import ConfigError, ScanFileError
from ptychostream.hpc_agent.scans.collect import CollectSettings, ScanEvent, options_of
from ptychostream.imaging.bright_disk import bright_disk
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.model.contract import ModelContract
from ptychostream.quality.contract_check import contradictions
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_writer import write_scan
from ptychostream.statements.units import length_in_words

SIZE, FRAMES, RADIUS = 64, 12, 11
KV, MRAD = 300, 0.0662
PIXEL_M = 1.9687e-12 / (SIZE * MRAD * 1e-3)
"""λ / (width · angle): 4.647 Å."""


def disks() -> np.ndarray[Any, Any]:
    """Patterns with a bright disk of `RADIUS` pixels, 3 rows and −2 columns off the middle."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE // 2
    disk = np.hypot(y - 3, x + 2) <= RADIUS
    return np.random.default_rng(4).poisson(np.where(disk, 6.0, 0.05), (FRAMES, SIZE, SIZE)).astype(np.uint16)


def places() -> np.ndarray[Any, Any]:
    return np.stack(np.meshgrid(np.arange(4) * 2e-9, np.arange(3) * 2e-9), -1).reshape(-1, 2)


@pytest.fixture
def silent(tmp_path: Path) -> Path:
    """A file that says nothing of the beam."""
    np.savez(tmp_path / "scan.npz", counts=disks(), positions_m=places())
    return tmp_path / "scan.npz"


def given(*words: str) -> ScanOptions:
    parser = argparse.ArgumentParser()
    add_scan_arguments(parser)
    return scan_options(parser.parse_args(words))


def pixel(scan: Scan) -> float:
    return object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, SIZE, scan.radiation)


@pytest.mark.parametrize(
    "words",
    [
        ("--mrad-per-pixel", str(MRAD)),
        ("--object-pixel-m", str(PIXEL_M)),
        ("--distance-m", "0.5", "--detector-pixel-m", str(0.5 * MRAD * 1e-3)),
        ("--distance-m", "0.5", "--mrad-per-pixel", str(MRAD)),
        ("--detector-pixel-m", "5e-5", "--mrad-per-pixel", str(MRAD)),
    ],
)
def test_each_form_of_the_geometry_gives_the_same_pixel(silent: Path, words: tuple[str, ...]) -> None:
    with open_scan(silent, given("--kv", str(KV), *words)) as scan:
        assert (scan.radiation, scan.energy_ev) == ("electron", 300e3)
        assert pixel(scan) == pytest.approx(PIXEL_M, rel=1e-4)


def test_the_semi_angle_is_the_radius_of_the_bright_disk(silent: Path) -> None:
    with open_scan(silent, given("--kv", str(KV), "--semi-angle-mrad", str(MRAD * RADIUS))) as scan:
        assert pixel(scan) == pytest.approx(PIXEL_M, rel=0.03)


def test_a_disk_is_found_where_it_lies() -> None:
    found = bright_disk(disks().mean(axis=0))
    assert found.row == pytest.approx(SIZE // 2 + 3, abs=0.3)
    assert found.column == pytest.approx(SIZE // 2 - 2, abs=0.3)
    assert found.radius == pytest.approx(RADIUS, rel=0.03)


def test_patterns_without_a_disk_have_no_semi_angle(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    np.savez(tmp_path / "scan.npz", counts=rng.poisson(0.2, (FRAMES, SIZE, SIZE)), positions_m=places())
    with (
        pytest.raises(ScanFileError, match=r"reaches its edge.*--mrad-per-pixel"),
        open_scan(tmp_path / "scan.npz", given("--kv", "300", "--semi-angle-mrad", "1")),
    ):
        pass


def test_what_is_given_replaces_the_files_distance(tmp_path: Path) -> None:
    scan = Scan("s", disks(), places(), 300e3, 0.7, 1e-4, "electron")
    write_scan(tmp_path / "scan.h5", scan)
    with open_scan(tmp_path / "scan.h5", given("--object-pixel-m", str(PIXEL_M))) as found:
        assert pixel(found) == pytest.approx(PIXEL_M, rel=1e-4)
        assert found.detector_pixel_m == 1e-4


def test_three_values_that_do_not_agree_are_refused(silent: Path) -> None:
    words = ("--kv", "300", "--distance-m", "1", "--detector-pixel-m", "1e-4", "--object-pixel-m", "1e-9")
    with pytest.raises(ScanFileError, match="--object-pixel-m"), open_scan(silent, given(*words)):
        pass


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--radiation", "electron", "--energy-ev", "300"), r"300 eV.*electron.*--kv"),
        (("--kv", "0.3"), r"300 eV.*electron.*--kv"),
        (("--energy-ev", "300e3"), r"300000 eV.*photons.*--radiation electron"),
        (("--radiation", "photon", "--energy-ev", "200e3"), r"--radiation says photon"),
    ],
)
def test_an_implausible_energy_is_refused_with_the_remedy(silent: Path, words: tuple[str, ...], said: str) -> None:
    with pytest.raises(ScanFileError, match=said), open_scan(silent, given(*words, "--mrad-per-pixel", "0.07")):
        pass


def test_a_file_of_electrons_in_another_unit_is_refused(tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.h5", Scan("s", disks(), places(), 300.0, 0.7, 1e-4, "electron"))
    with pytest.raises(ScanFileError, match=r"incident_energy.*source/probe"), open_scan(tmp_path / "scan.h5"):
        pass


@pytest.mark.parametrize("words", [("--kv", "300", "--energy-ev", "3e5"), ("--kv", "300", "--radiation", "photon")])
def test_kv_beside_what_it_contradicts(words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="--kv"):
        given(*words)


@pytest.mark.parametrize("option", ["--mrad-per-pixel", "--semi-angle-mrad"])
def test_an_angle_of_nothing(silent: Path, option: str) -> None:
    with pytest.raises(ScanFileError, match=option), open_scan(silent, given("--kv", "300", option, "0")):
        pass


def test_inspect_says_beam_wavelength_and_pixel_in_units_that_suit(
    silent: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(silent), "--kv", "300", "--mrad-per-pixel", str(MRAD)]) == 0
    told = capsys.readouterr().out
    assert "300 kV electrons, wavelength 1.969 pm, object pixel 4.647 Å" in told
    assert "positions over 6 nm × 4 nm" in told
    assert "photon" not in told


def test_a_model_of_electrons_refuses_photons(tmp_path: Path) -> None:
    scan = Scan("s", disks(), places(), 300e3, 0.7, 1e-4, "photon")
    contract = ModelContract(
        name="m", input_shape=(64, 64), output_shape=(64, 64), object_pixel_m=1e-10, radiation="electron",
        energy_ev=300e3, distance_m=0.7, detector_pixel_m=1e-4,
    )  # fmt: skip
    found = contradictions(scan, contract)
    assert [one.quantity for one in found] == ["radiation"]
    scan.radiation = "electron"
    assert contradictions(scan, contract) == []
    assert "radiation" not in contract.model_copy(update={"radiation": None}).to_json()


def test_the_agents_unit_of_the_energy_says_electrons() -> None:
    settings = CollectSettings(scan={"distance_m": 0.7})
    assert options_of(ScanEvent("s", energy_ev=3e5, radiation="electron"), settings).radiation == "electron"
    assert options_of(ScanEvent("s", energy_ev=9e3), settings).radiation is None
    assert options_of(ScanEvent("s", radiation="electron"), settings) == settings.scan


@pytest.mark.parametrize(
    ("length", "words"),
    [(1.9687e-12, "1.969 pm"), (4.649e-11, "0.4649 Å"), (9.9999e-10, "1 nm"), (9.2e-8, "92 nm"), (0.0, "0 pm"),
     (-1.24e-5, "-12.4 µm"), (0.5, "0.5 m"), (0.05, "50 mm")],
)  # fmt: skip
def test_a_length_in_the_unit_that_suits_it(length: float, words: str) -> None:
    assert length_in_words(length) == words
