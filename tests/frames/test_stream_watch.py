"""What frames say of themselves, beside what the model expects: any one statement that differs is named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptychostream.errors import DropCause
from ptychostream.frames.frame_settings import FrameSettings
from ptychostream.frames.stream_watch import (
    PLAIN,
    UNSAID,
    Region,
    Said,
    StreamWatch,
    expected_of,
    region_of,
    state_region,
)
from ptychostream.model.contract import ModelContract
from ptychostream.statements.description import Description

TYPE = np.dtype(np.uint16)


def said(region: Region = PLAIN, energy: float | None = None, **more: Any) -> Said:
    return Said(region, (64, 64), more.pop("dtype", TYPE), energy, **more)


def contract(**values: Any) -> ModelContract:
    return ModelContract(name="m", input_shape=(64, 64), output_shape=(64, 64), object_pixel_m=1e-8, **values)


def watch(given: dict[str, Any] | None = None, **values: Any) -> StreamWatch:
    made = StreamWatch("det:Image")
    made.expect(expected_of(contract(**values).said(), given or {}))
    return made


REGION = {"offset_x": 10, "offset_y": 20, "binning_x": 2, "binning_y": 2, "reverse_x": True, "reverse_y": False}
ITS = (10, 20, 2, 2, True, False)


@pytest.mark.parametrize(
    ("values", "region", "words"),
    [
        ({}, PLAIN, ()),
        ({}, UNSAID, ()),
        ({}, (7, 9, 1, 1, False, False), ()),  # nobody said where the model's region lies
        ({}, (0, 0, 2, 2, False, False), ("dimension[0].binning says 2", "model m")),
        ({}, (0, 0, 1, 1, False, True), ("dimension[1].reverse says True",)),
        ({"region": REGION}, ITS, ()),
        (
            {"region": REGION},
            (16, 20, 2, 2, True, False),
            ("dimension[0].offset says 16 px", "region.offset_x says 10"),
        ),
        ({"region": REGION}, (10, 21, 2, 2, True, False), ("dimension[1].offset", "region.offset_y")),
        ({"region": REGION}, (10, 20, 1, 2, True, False), ("dimension[0].binning says 1", "region.binning_x says 2")),
        ({"region": REGION}, (10, 20, 2, 4, True, False), ("dimension[1].binning",)),
        ({"region": REGION}, (10, 20, 2, 2, False, False), ("dimension[0].reverse says False",)),
        ({"region": REGION}, (10, 20, 2, 2, True, True), ("dimension[1].reverse says True",)),
        ({"region": REGION}, UNSAID, ()),
    ],
)
def test_each_statement_of_the_region(values: dict[str, Any], region: Region, words: tuple[str, ...]) -> None:
    made = watch(**values)
    for number in range(2):
        fault = made.look(said(region), "s", 100.0 + number, 200.0 + number)
        assert fault is (DropCause.CONTRADICTION if words else None)
    assert bool(made.told) == bool(words)
    for word in words:
        assert word in made.told
    assert made.since == (200.0 if words else 0.0)
    assert made.look(said(ITS if values else PLAIN), "t", 103.0, 203.0) is None
    assert made.told == ""


def test_what_the_user_gives_takes_the_place_of_the_contracts() -> None:
    made = watch({"binning_x": 4, "binning_y": 4}, region=REGION)
    assert made.look(said(ITS), "s", 1.0, 1.0) is DropCause.CONTRADICTION
    assert "input.region.binning_x says 4" in made.told
    assert made.look(said((10, 20, 4, 4, True, False)), "t", 1.0, 1.0) is None


def test_a_region_that_changes_within_a_scan_is_refused_and_one_of_another_scan_is_not() -> None:
    made = watch()
    moved: Region = (6, 0, 1, 1, False, False)
    assert made.look(said(), "s", 1.0, 1.0) is None
    assert made.look(said(moved), "s", 1.1, 1.1) is DropCause.CONTRADICTION
    assert "dimension[0].offset says 6 px, but dimension[0].offset says 0 px" in made.told
    assert made.look(said(), "s", 1.2, 1.2) is None
    assert made.look(said(moved), "t", 1.3, 1.3) is None
    assert made.look(said(), "t", 30.0, 30.0) is None, "after a pause"
    assert made.look(said(moved), "t", 30.1, 30.1) is DropCause.CONTRADICTION
    made.begin()
    assert made.look(said(moved), "t", 30.2, 30.2) is None, "a scan begins"


@pytest.mark.parametrize(("energy", "refused"), [(12_400.0, True), (10_050.0, False), (10.0, True), (None, False)])
def test_the_energy_of_an_attribute_and_of_a_pv(energy: float | None, refused: bool) -> None:
    fault = DropCause.CONTRADICTION if refused else None
    made = watch(energy_ev=1e4)
    assert made.look(said(energy=energy), "s", 1.0, 1.0) is fault
    made = watch(energy_ev=1e4)
    assert made.look(said(), "s", 1.0, 1.0) is None
    made.measure("energy", energy, "bl:Energy")
    assert made.look(said(), "s", 1.1, 1.1) is fault
    assert ("bl:Energy says" in made.told) is refused
    made.measure("energy", None, "bl:Energy")
    assert made.look(said(), "s", 1.2, 1.2) is None, "it does not answer any more"


@pytest.mark.parametrize(
    ("values", "refused"),
    [({"radiation": "electron"}, False), ({"energy_unit": "kV"}, False), ({"radiation": "photon"}, True), ({}, False)],
)
def test_frames_of_another_radiation_than_the_models(values: dict[str, Any], refused: bool) -> None:
    made = FrameSettings(**values).intake("ScanID", "End", (), contract(radiation="electron").said())
    fault = made.watch.look(said(), "s", 1.0, 1.0)
    assert fault is (DropCause.CONTRADICTION if refused else None)
    assert ("input.radiation says photon, but model m: radiation says electron" in made.watch.told) is refused


def test_no_model_expects_nothing() -> None:
    made = StreamWatch("det:Image")
    assert made.look(said((0, 0, 2, 2, True, True)), "s", 1.0, 1.0) is None
    assert made.description.value("binning_x") == 2


def test_dimensions_of_other_emitters_say_nothing() -> None:
    full = [{"offset": 3, "binning": 2, "reverse": True}, {"offset": 4, "binning": 1, "reverse": False}]
    assert region_of(full) == (3, 4, 2, 1, True, False)
    assert region_of([{"size": 3}, {"size": 4}]) == UNSAID
    assert region_of([]) == UNSAID


@pytest.mark.parametrize(
    ("region", "found"),
    [
        (UNSAID, {}),
        ((7, 0, 0, 0, False, True), {"offset_x": 7, "reverse_y": True}),
        ((0, 0, 2, 0, False, False), {"offset_x": 0, "binning_x": 2, "reverse_x": False}),
    ],
)
def test_a_dimension_whose_binning_was_never_set_says_only_what_was_set(region: Region, found: dict[str, Any]) -> None:
    stated = Description("det:Image")
    state_region(stated, region)
    assert {one.quantity: one.value for one in stated} == found


def test_what_contradicts_is_handed_on() -> None:
    made, told = watch(), []
    made.on_contradiction = told.extend
    for number, region in enumerate((PLAIN, (0, 0, 2, 2, False, False), (0, 0, 2, 2, False, False), PLAIN)):
        made.look(said(region), "s", 1.0 + number, 1.0)
    assert {one.quantity for one in told} == {"binning_x", "binning_y"} and len(told) == 2


@pytest.mark.parametrize(
    ("change", "dropped", "text"),
    [
        ({"dtype": np.dtype(np.uint32)}, True, "value says uint32, but value says uint16"),
        ({"dtype": np.dtype(np.int16)}, True, "value says int16, but value says uint16"),
        ({"codec": "lz4"}, False, "codec.name says lz4, but codec.name says none"),
        ({"codec": "jpeg"}, True, "codec.name says jpeg, but codec.name says none"),
        ({"bit_depth": 12}, False, "the bit depth attribute says 12 bit, but the bit depth attribute says 16 bit"),
        ({"bit_depth": 16}, False, ""),
        ({}, False, ""),  # the attribute is missing: nothing is said
    ],
)
def test_type_codec_and_bit_depth_of_a_scan(change: dict[str, Any], dropped: bool, text: str) -> None:
    """Against the scan's first frame. What may make a picture wrong is dropped; all of it is told, and since when."""
    made = watch()
    assert made.look(said(bit_depth=16), "s", 1.0, 1.0) is None
    fault = DropCause.CONTRADICTION if dropped else None
    assert made.look(said(**change), "s", 1.1, 7.0) is fault
    assert (text in made.told) and bool(made.told) is bool(text)
    assert made.since == (7.0 if text else 0.0)
    assert ("the frames are used" in made.told) is bool(text and not dropped)
    assert made.look(said(bit_depth=16), "s", 1.2, 1.2) is None
    assert made.told == ""
    assert made.look(said(**change), "t", 1.3, 1.3) is None, "the first frame of another scan"
    assert made.told == ""


def test_the_bit_depth_beside_the_model_and_the_type() -> None:
    made = watch(bit_depth=16)
    assert made.look(said(bit_depth=12), "s", 1.0, 1.0) is None
    assert "the bit depth attribute says 12 bit, but model m: bit_depth says 16 bit" in made.told
    made.look(said(), "t", 2.0, 2.0)
    assert made.told == "", "the stream does not say it"
    made = watch()
    assert made.look(said(bit_depth=32), "s", 1.0, 1.0) is None
    assert "the bit depth attribute says 32 bit, but value says uint16" in made.told
