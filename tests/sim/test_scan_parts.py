"""A simulated scan that is taken in parts, at points that a client chooses."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until

from ptychostream.errors import ConfigError
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan_files import open_scan
from ptychostream.sim.diffraction import Simulation, set_up, simulate_scan
from ptychostream.sim.scan_parts import Part, ScanParts, points_m

POINTS_M = np.array([[0.0, 0.0], [2e-7, 0.0], [0.0, 3e-7], [-4e-7, 1e-7]])


def part(points: np.ndarray, seed: int, like: Part | None = None, streamed: int | None = None) -> Part:
    settings = Simulation(frames=len(points), dead_pixels=3, position_error_m=5e-9, seed=seed)
    bench = set_up(settings, points, None if like is None else like.bench)
    scan, truth = simulate_scan(settings, "s_0001", bench=bench)
    return Part(bench, scan, truth, np.arange(len(points) if streamed is None else streamed, dtype=float), 7)


def test_points_replace_the_trajectory() -> None:
    made = part(POINTS_M, 0)
    np.testing.assert_array_equal(made.scan.positions_m, POINTS_M)
    errors = np.hypot(*(made.truth.positions_m - POINTS_M).T)
    assert 0 < errors.max() < 30e-9


def test_parts_are_joined_to_one_scan_with_one_truth_and_one_detector() -> None:
    first = part(POINTS_M[:2], 1)
    parts = ScanParts("s_0001", [first, part(POINTS_M[2:], 2, first, streamed=1)])
    assert parts.frames == 3
    whole = parts.joined()
    np.testing.assert_array_equal(whole.scan.positions_m, POINTS_M[:3])
    np.testing.assert_array_equal(whole.scan.counts[:2], first.scan.counts)
    np.testing.assert_array_equal(whole.scan.counts[:, first.scan.bad_pixels], np.iinfo(np.uint16).max)
    np.testing.assert_array_equal(whole.truth.positions_m[:2], first.truth.positions_m)
    assert (len(whole.times_s), whole.first_id, whole.scan.scan_id) == (3, 7, "s_0001")
    ys, xs = (axis * whole.truth.pixel_m for axis in whole.truth.object.shape)
    assert xs > 2e-7 + 64 * whole.truth.pixel_m
    assert ys > 3e-7 + 64 * whole.truth.pixel_m


def test_points_must_be_pairs_of_numbers() -> None:
    assert points_m([], []) is None
    np.testing.assert_allclose(points_m([1.0, 2.0], [3.0, 4.0]), [[1e-6, 3e-6], [2e-6, 4e-6]])
    with pytest.raises(ConfigError, match="2 values in PointsX and 1 in PointsY"):
        points_m([1.0, 2.0], [3.0])
    with pytest.raises(ConfigError, match="not finite"):
        points_m([1.0], [np.nan])


# ---------------------------------------------------------------- the running beamline


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scans")


@pytest.fixture(scope="module")
def env(folder: Path) -> Iterator[EpicsEnv]:
    command = (sys.executable, "-m", "ptychostream", "beamline", "--prefix", "parts:", "--frames", "6", "--rate", "300")
    command = (*command, "--save", str(folder), "--no-adcore")
    with EpicsEnv() as env, env.start(*command, env=env.server_env()) as process:
        wait_until(lambda: "serving" in process.output, 60, lambda: process.output)
        yield env


def take(env: EpicsEnv, points: np.ndarray, more: int) -> str:
    """Take frames at these points, and return the state afterwards."""
    for name, values in zip(("PointsX", "PointsY"), points.T * 1e6, strict=True):
        env.pva.put(f"parts:{name}", values.tolist(), timeout=10)
    env.pva.put("parts:MorePoints", more, timeout=10)
    env.pva.put("parts:Start", 1, timeout=10)
    wait_until(lambda: env.pvget("parts:Busy_RBV").value.index == 1, 20, "the start")
    wait_until(lambda: env.pvget("parts:Busy_RBV").value.index == 0, 60, "the end")
    state = env.pvget("parts:State_RBV").value
    return str(state.choices[state.index])


@pytest.mark.server
def test_no_record_is_undefined_before_the_first_scan(env: EpicsEnv) -> None:
    """A screen draws the border of an undefined value around it."""
    names = re.findall(
        r'^record\(\w+, "\$\(P\)(\w+)"\)', (files("ptychostream.db") / "beamline.db").read_text(), re.MULTILINE
    )
    answers = env.pva.get([f"parts:{name}" for name in names], timeout=20)
    assert [name for name, answer in zip(names, answers, strict=True) if answer.alarm.severity] == []


@pytest.mark.server
def test_a_scan_stays_open_for_more_points_and_is_one_file(env: EpicsEnv, folder: Path) -> None:
    assert take(env, POINTS_M[:3], 1) == "Open"
    name = env.pvget("parts:ScanID_RBV").value
    assert env.pvget("parts:Complete_RBV").value.index == 0
    assert list(folder.glob("*.h5")) == []
    assert take(env, POINTS_M[3:], 0) == "Idle"
    assert env.pvget("parts:ScanID_RBV").value == name
    assert env.pvget("parts:FramesSent_RBV").value == 4
    assert env.pvget("parts:Complete_RBV").value.index == 1
    with open_scan(folder / f"{name}.h5") as scan:
        np.testing.assert_allclose(scan.positions_m, POINTS_M, atol=1e-12)
        assert scan.frame_ids is not None
        assert np.diff(scan.frame_ids).tolist() == [1, 1, 1]
    truth = read_reconstruction(folder / f"{name}_truth.h5")
    np.testing.assert_allclose(truth.positions_m, POINTS_M, atol=1e-12)


@pytest.mark.server
def test_the_next_scan_has_another_sample_unless_told(env: EpicsEnv, folder: Path) -> None:
    def objects(same: int) -> np.ndarray:
        env.pva.put("parts:SameSample", same, timeout=10)
        assert take(env, POINTS_M, 0) == "Idle"
        return read_reconstruction(folder / f"{env.pvget('parts:ScanID_RBV').value}_truth.h5").object

    first, other, again = objects(0), objects(0), objects(1)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(other, again)


@pytest.mark.server
def test_points_that_do_not_fit_fail_and_say_why(env: EpicsEnv) -> None:
    env.pva.put("parts:PointsY", [1.0], timeout=10)
    env.pva.put("parts:PointsX", [1.0, 2.0], timeout=10)
    env.pva.put("parts:Start", 1, timeout=10)
    wait_until(lambda: env.pvget("parts:State_RBV").value.index == 6, 30, "Failed")
    assert "2 values in PointsX and 1 in PointsY" in env.pvget("parts:Message_RBV").value
    wait_until(lambda: env.pvget("parts:Busy_RBV").value.index == 0, 30, "the end")
    assert take(env, POINTS_M[:1], 0) == "Idle"
