"""A scan beside the contract of a model: both statements are named where they do not agree."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_model import write_tiny

from ptychostream.cli.main import main
from ptychostream.errors import ContradictionError
from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.quality.contract_check import check_contract, contradictions, region_of
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_writer import write_scan
from ptychostream.statements.description import Description

SIZE = 16
SCAN = Scan("s7", np.ones((4, SIZE, SIZE), np.uint16), np.eye(4, 2) * 1e-6, 12_400.0, 1.8, 55e-6)


def contract(**values: Any) -> ModelContract:
    fields: dict[str, Any] = {
        "name": "m3",
        "input_shape": (SIZE, SIZE),
        "output_shape": (SIZE, SIZE),
        "object_pixel_m": object_pixel_m(12_400.0, 1.8, 55e-6, SIZE),
        "energy_ev": 12_400.0,
        "distance_m": 1.8,
        "detector_pixel_m": 55e-6,
    }
    return ModelContract(**{**fields, **values})


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"energy_ev": 10_000.0}, ("12400 eV", "model m3: energy_ev says 10000 eV")),
        ({"distance_m": 0.9}, ("1.8 m", "model m3: distance_m says 0.9 m")),
        ({"detector_pixel_m": 75e-6}, ("5.5e-05 m", "model m3: detector_pixel_m says 7.5e-05 m")),
        ({"energy_ev": None, "object_pixel_m": 1e-9}, ("energy, distance and pixel", "object_pixel_m says 1e-09 m")),
    ],
)
def test_a_scan_of_another_geometry(values: dict[str, Any], named: tuple[str, str]) -> None:
    with pytest.raises(ContradictionError) as caught:
        check_contract(SCAN, contract(**values))
    for text in named:
        assert text in str(caught.value)
    assert "--other-geometry" in caught.value.remedy


def test_a_scan_of_the_same_geometry() -> None:
    assert contradictions(SCAN, contract()) == []
    assert contradictions(replace(SCAN, energy_ev=12_450.0), contract()) == []  # within 1 %
    assert contradictions(SCAN, contract(energy_ev=None, distance_m=None, detector_pixel_m=None)) == []
    cropped = Preprocessing(crop=(2, 2, 8, 8))
    for pixels in (8, SIZE):
        pixel_m = object_pixel_m(12_400.0, 1.8, 55e-6, pixels)
        assert contradictions(SCAN, contract(energy_ev=None, object_pixel_m=pixel_m, preprocessing=cropped)) == []


def test_the_region_of_the_sensor() -> None:
    said = Description("scan.h5")
    for quantity, value in (("offset_x", 128), ("offset_y", 0), ("reverse_x", False)):
        said.state(quantity, value, f"@{quantity}")
    scan = replace(SCAN, said=said)
    region = region_of(scan)
    assert region == {"offset_y": 0, "offset_x": 128, "reverse_x": False}
    assert contradictions(scan, contract(region=region)) == []
    assert contradictions(scan, contract()) == []
    found = contradictions(scan, contract(region={"offset_x": 134, "reverse_x": True}))
    assert [one.quantity for one in found] == ["offset_x", "reverse_x"]
    assert "@offset_x says 128 px, but model m3: region.offset_x says 134 px" in str(found[0])
    assert ModelContract.from_json(contract(region=region).to_json()).region == region


@pytest.mark.slow
def test_infer_and_inspect_refuse_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The tiny model's object pixel is 10 nm."""
    write_scan(tmp_path / "scan.h5", SCAN)
    write_tiny(tmp_path / "m.onnx", SIZE)
    words = [str(tmp_path / "scan.h5"), str(tmp_path / "m.onnx"), "-o", str(tmp_path / "out.h5"), "--engine", "ONNX"]
    assert main(["infer", *words]) == 2
    said = capsys.readouterr().err
    assert "m.onnx: object_pixel_m says 1e-08 m" in said
    assert not (tmp_path / "out.h5").exists()
    assert main(["inspect", words[0], "--model", words[1], "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["contradictions"][0]["quantity"] == "object_pixel"


def test_a_scan_that_is_opened_names_the_place_of_its_energy(tmp_path: Path) -> None:
    write_scan(tmp_path / "scan.h5", SCAN)
    with open_scan(tmp_path / "scan.h5") as scan, pytest.raises(ContradictionError) as caught:
        check_contract(scan, contract(energy_ev=8_000.0))
    assert "/entry/instrument/beam/incident_energy says 12400 eV" in str(caught.value)
