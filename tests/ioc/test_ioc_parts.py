"""The IOC's small parts: autosave text, starting values, display fill, texts, ports, the graphics processor."""

from __future__ import annotations

import math
import re
import socket
from pathlib import Path
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import model_validator

from ptychostream.config import Setting, changed, declared, load_settings
from ptychostream.errors import ConfigError, StreamError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.pixel_box import PixelBox
from ptychostream.ioc.config.setpoints import setpoints
from ptychostream.ioc.config.settings import IocSettings, PositionSettings
from ptychostream.ioc.config.start import begin
from ptychostream.ioc.gpu import parse_smi, read_sysfs
from ptychostream.ioc.images.served_area import displayed
from ptychostream.ioc.records.autosave import format_values, parse_values, read_values
from ptychostream.ioc.records.preflight import IMAGES, check_ports
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.processes.loopback import free_ports

texts = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=60).map(str.strip)
values = st.one_of(st.integers(-(2**31), 2**31), st.floats(allow_nan=False, allow_infinity=False), texts)


@pytest.mark.slow
@given(st.dictionaries(st.from_regex(r"[A-Za-z0-9:_]{1,30}", fullmatch=True), values, max_size=20))
def test_autosaved_values_come_back(saved: dict[str, float | int | str]) -> None:
    back = parse_values(format_values(saved), "file")
    assert back.keys() == saved.keys()
    for name, value in saved.items():
        if isinstance(value, str):
            assert back[name] == value.replace("\x85", " ")
        else:
            assert float(back[name]) == value


@given(st.integers(0, 200))
def test_an_autosave_file_that_was_cut_is_refused(at: int) -> None:
    whole = format_values({"a": 1.5, "b": "text", "c": 3})
    if at < len(whole) - len("\n"):
        with pytest.raises(ConfigError, match="<END>"):
            parse_values(whole[:at], "file")


def test_a_damaged_autosave_file_gives_way_to_its_backup(tmp_path: Path) -> None:
    path = tmp_path / "s.sav"
    assert read_values(path) == {}
    path.write_text(format_values({"a": 1}), encoding="utf-8")
    assert read_values(path) == {"a": "1"}
    path.write_text("a 2\n", encoding="utf-8")
    assert read_values(path) == {"a": "1"}
    path.with_name("s.sav.bak").unlink()
    with pytest.raises(ConfigError, match="remove it"):
        read_values(path)


def test_command_line_wins_over_autosave_and_autosave_over_configuration() -> None:
    settings = IocSettings(dose_scale=5.0, phase_rate_hz=3.0)
    saved = {"DoseScale": "2.0", "PhaseRate": "4.0", "ScanFrames": "7", "EnableCallbacks": "0"}
    in_force, texts, passed_over = begin(settings, saved, {"dose_scale"})
    assert not passed_over
    assert (in_force.dose_scale, in_force.phase_rate_hz, in_force.scan.frames) == (5.0, 4.0, 7)
    assert (texts["DoseScale"], texts["PhaseRate"], texts["EnableCallbacks"]) == ("5.0", "4.0", "0")
    live = {name for name, one in setpoints(IocSettings).items() if one.setting.live}
    assert texts.keys() == live | {"EnableCallbacks"}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ({"DoseScale": "x"}, "DoseScale = 'x'.*give a finite number"),
        ({"DoseScale": "NaN"}, "DoseScale = 'NaN'.*give a finite number"),
        ({"BatchSize": "inf"}, "BatchSize = 'inf'.*give a finite number"),
        ({"DoseScale": "-1"}, "DoseScale: dose_scale = -1.0 must be greater than 0 .*correct or remove that line"),
        ({"AutoSaveCanvas": "2"}, "AutoSaveCanvas = '2'.*give a state from 0 to 1"),
        ({"YAttribute": "A" * 40}, "YAttribute: a text of 40 bytes .*at most 39"),
        ({"Engine": "9"}, "Engine = '9'.*give a state from 0 to 6"),
        ({"Engine": "-1"}, "Engine = '-1'.*give a state"),
    ],
)
def test_what_autosave_kept_and_cannot_be_used_is_named(saved: dict[str, str], message: str) -> None:
    begun = begin(IocSettings(), {**saved, "PhaseRate": "4.0"}, set())
    (told,) = begun.passed_over
    assert re.match(f"autosave file.*{message}", told)
    assert begun.settings == IocSettings(phase_rate_hz=4.0)
    name = next(iter(saved))
    one = setpoints(IocSettings)[name]
    assert begun.texts[name] == str(one.shown(one.declared.value(IocSettings())))


def test_saved_settings_that_allow_one_another_are_restored_together() -> None:
    class Pair(IocSettings):
        low: Annotated[float, Setting("PairLow", "low", group="plugin", high=10)] = 1.0
        high: Annotated[float, Setting("PairHigh", "high", group="plugin", high=10)] = 2.0

        @model_validator(mode="after")
        def _ordered(self) -> Pair:
            if self.low >= self.high:
                raise ValueError("low is not below high")
            return self

    begun = begin(Pair(), {"PairLow": "5", "PairHigh": "7", "DropPolicy": "9"}, set())
    assert (begun.settings.low, begun.settings.high, len(begun.passed_over)) == (5.0, 7.0, 1)  # type: ignore[attr-defined]
    begun = begin(Pair(), {"PairLow": "5"}, set())
    assert (begun.settings.low, len(begun.passed_over)) == (1.0, 1)  # type: ignore[attr-defined]
    begun = begin(Pair(), {"PairLow": "5", "PairHigh": "7", "QueueSize": "0"}, set())
    assert (begun.settings.low, begun.settings.high) == (5.0, 7.0)  # type: ignore[attr-defined]
    assert "queue_size = 0 must be at least 1" in begun.passed_over[0]


NUMBERS = [one.key for one in declared(IocSettings) if one.type in (int, float)]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_of_the_configuration_may_be_nan_or_infinite(key: str, value: float, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{key} = {value!r} must be a finite number"):
        changed(IocSettings(), {key: value}, "here", "")
    *sections, name = key.split(".")
    file = tmp_path / "ioc.toml"
    file.write_text(f"[{'.'.join(sections)}]\n{name} = {value}\n" if sections else f"{name} = {value}\n")
    with pytest.raises(ConfigError, match=f"{name} = {value!r} must be a finite number"):
        load_settings(IocSettings, file, {})


@pytest.mark.parametrize("key", ["autosave", "positions.route_file", "model.key_file", "ssim_reference"])
def test_an_empty_text_is_no_path(key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key} = '': no path; give one, or leave the setting out"):
        load_settings(IocSettings, None, {key: ""})


def test_a_refusal_is_a_plain_sentence() -> None:
    cases = {
        "pipeline.batch": (0, "pipeline.batch = 0 must be at least 1"),
        "pipeline.queue_size": (1.5, "pipeline.queue_size = 1.5 must be a whole number"),
        "phase_rate_hz": (60, "phase_rate_hz = 60 must be at most 50"),
        "dose_scale": ("much", "dose_scale = 'much' must be a number"),
        "positions.x_attribute": ("", "positions.x_attribute = '' must not be shorter than 1 character(s)"),
        "save.automatic": ("perhaps", "save.automatic = 'perhaps' must be true or false"),
        "pipeline": (3, "pipeline = 3 must be a table of settings"),
    }
    for key, (value, sentence) in cases.items():
        with pytest.raises(ConfigError) as raised:
            load_settings(IocSettings, None, {key: value})
        assert raised.value.what == sentence


def test_a_setpoint_reads_what_it_shows() -> None:
    settings = IocSettings()
    for name, one in setpoints(IocSettings).items():
        value = one.declared.value(settings)
        assert one.value(one.shown(value)) == value, name
        assert one.value(str(one.shown(value))) == value, name


def test_no_two_settings_have_one_flag() -> None:
    flags = [one.setting.flag for one in declared(IocSettings) if one.setting.flag]
    assert len(flags) == len(set(flags)) > 40


def test_unmeasured_pixels_are_filled_with_the_mean() -> None:
    phase = np.array([[1.0, np.nan], [3.0, np.nan]], np.float32)
    weight = np.array([[1, 0], [2, 0]], np.float32)
    shown, fill = displayed(PhaseImage(phase, weight, (3e-8, -1e-8), 1e-8), PixelBox(-2, 2, 1, 5))
    assert fill == 2.0
    np.testing.assert_array_equal(shown.phase, [[2, 2, 2], [2, 1, 2], [2, 3, 2]])
    np.testing.assert_array_equal(shown.weight, [[0, 0, 0], [0, 1, 0], [0, 2, 0]])
    assert shown.origin_m == (2e-8, -2e-8)
    nothing = np.empty((0, 0), np.float32)
    shown, fill = displayed(PhaseImage(nothing, nothing, (0.0, 0.0), 1e-8), PixelBox(0, 0, 2, 2))
    assert (shown.phase.tolist(), shown.weight.tolist(), fill) == ([[0, 0], [0, 0]], [[0, 0], [0, 0]], 0)


def test_a_port_that_was_asked_for_and_is_taken_is_refused() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        environment = {
            "EPICS_CA_SERVER_PORT": str(taken.getsockname()[1]),
            "EPICS_CAS_INTF_ADDR_LIST": "127.0.0.1",
        }
        with pytest.raises(StreamError, match="EPICS_CA_SERVER_PORT"):
            check_ports(environment)
    check_ports(environment)
    check_ports({})
    own = free_ports(1)[0]
    check_ports({"EPICS_PVAS_SERVER_PORT": "0", IMAGES: str(own), "EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1"})
    for clash in ({"EPICS_PVAS_SERVER_PORT": str(own), IMAGES: str(own)}, {IMAGES: "5075"}):
        with pytest.raises(StreamError, match="the images' PV Access port") as raised:
            check_ports({"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", **clash})
        assert raised.value.where == IMAGES
    with pytest.raises(StreamError, match="number"):
        check_ports({"EPICS_CAS_SERVER_PORT": "often"})


def test_an_x_that_begins_anew_forgets_the_old_y() -> None:
    desk = PositionSources(PositionSettings(source="waveform"))
    desk.write(x=np.arange(3.0))
    desk.write(y=np.arange(3.0))
    desk.write(x=np.arange(5.0))  # goes on
    assert desk.count == 3
    desk.write(x=np.arange(5.0) + 1)  # another scan
    assert desk.count == 0
    desk.write(y=np.arange(4.0))
    assert desk.count == 4


def test_the_graphics_processor_is_read_where_there_is_one(tmp_path: Path) -> None:
    assert parse_smi("45, 71.20\n50, 80\n") == (45.0, 71.2)
    assert parse_smi("no devices were found\n") is None
    assert parse_smi("") is None
    assert read_sysfs(tmp_path) is None
    zone, monitor = tmp_path / "class/thermal/thermal_zone1", tmp_path / "class/hwmon/hwmon3"
    zone.mkdir(parents=True)
    monitor.mkdir(parents=True)
    for path, text in {
        zone / "type": "gpu-thermal", zone / "temp": "43500", monitor / "in2_label": "VDD_GPU_SOC",
        monitor / "in2_input": "5000", monitor / "curr2_input": "900",
    }.items():  # fmt: skip
        path.write_text(text + "\n", encoding="ascii")
    assert read_sysfs(tmp_path) == (43.5, 4.5)
