"""What a frame's attributes say of its scan, for the IOC, the consumers and the recorder alike."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychostream.errors import DropCause
from ptychostream.frames.intake import Intake
from ptychostream.frames.stream_watch import PLAIN, Region, Said
from ptychostream.statements.units import EnergyUnit, energy_ev

COUNTS = np.ones((2, 2), np.uint8)


class Raw(NamedTuple):
    raw_id: int
    time: float
    array: NDArray[np.integer]
    attributes: dict[str, float | int | str]
    region: Region = PLAIN
    codec: str = ""


def test_a_frame_is_named_by_its_attribute_or_by_what_was_told() -> None:
    intake = Intake("ScanID", "End", ("X", "Y"))
    assert intake.wanted == {"ScanID", "End", "X", "Y"}
    assert intake.scan_of({"ScanID": 7}) == "7"
    assert intake.scan_of({"ScanID": ""}) == ""
    assert intake.scan_of({}) == ""
    intake.unnamed = "told"
    assert intake.scan_of({"X": 1.0}) == "told"
    frame = intake.frame(Raw(3, 0.0, COUNTS, {"X": 1.0}), 12.5)
    assert (frame.scan, frame.id, frame.time, frame.received, frame.attributes) == ("told", 3, 12.5, 12.5, {"X": 1.0})
    assert intake.frame(Raw(3, 11.0, COUNTS, {}), 12.5).time == 11.0
    intake.want(("Z",))
    assert intake.wanted == {"ScanID", "End", "Z"}


def test_a_stream_without_names_and_ends() -> None:
    intake = Intake("")
    assert intake.wanted == frozenset()
    assert intake.scan_of({"": "x", "ScanID": "a"}) in ("", "x")
    assert intake.flag({"End": 1}) is None


@pytest.mark.parametrize(("value", "flag"), [(0, False), (1, True), ("true", True), ("no", False), (None, None)])
def test_the_end_attribute_of_a_frame(value: int | str | None, flag: bool | None) -> None:
    attributes = {} if value is None else {"End": value}
    intake = Intake("ScanID", "End")
    assert intake.flag(attributes) is flag
    assert intake.frame(Raw(3, 1.0, COUNTS, attributes), 2.0).flag is flag


@pytest.mark.parametrize(("value", "fault"), [(1, None), (1.0, None), ("1", None), (0, DropCause.UNSELECTED)])
def test_frames_of_another_threshold_are_not_wanted(value: float | str, fault: DropCause | None) -> None:
    intake = Intake("ScanID", select=("Threshold", "1"))
    assert "Threshold" in intake.wanted
    assert intake.frame(Raw(3, 1.0, COUNTS, {"Threshold": value}), 2.0).fault is fault
    assert intake.frame(Raw(3, 1.0, COUNTS, {}), 2.0).fault is DropCause.UNSELECTED


@pytest.mark.parametrize(
    ("value", "unit", "found"),
    [
        (9.1, "keV", 9_100.0), (9100, "eV", 9_100.0), (0, "eV", None), (-1.0, "keV", None), (math.nan, "eV", None),
        (math.inf, "keV", None), ("9.1", "keV", None), (True, "keV", None), (None, "eV", None),
    ],
)  # fmt: skip
def test_what_is_an_energy(value: object, unit: EnergyUnit, found: float | None) -> None:
    assert energy_ev(value, unit) == (None if found is None else pytest.approx(found))
    intake = Intake("ScanID", energy=("E", unit))
    assert intake.wanted == {"ScanID", "E"}
    attributes: Any = {"E": value}
    assert intake.fault("s", Said(PLAIN, (4, 4), np.dtype("u2")), attributes, 1.0, 1.0) is None
    assert intake.watch.description.value("energy") == (None if found is None else pytest.approx(found))


@pytest.mark.parametrize(("sent", "bits"), [(12, 12), (12.0, 12), ("16", 16), ("deep", None), (0, None), (1.5, None)])
def test_the_bit_depth_of_an_attribute(sent: float | str, bits: int | None) -> None:
    intake = Intake("ScanID", bit_depth="BitDepth")
    assert "BitDepth" in intake.wanted
    intake.fault("s", Said(PLAIN, (4, 4), np.dtype("u2")), {"BitDepth": sent}, 1.0, 1.0)
    assert intake.watch.description.value("bit_depth") == bits
