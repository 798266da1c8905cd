"""The simulated stage and its stream: what it says is where the frames were taken."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest
from epics_env import EpicsEnv

from ptychostream.frames.frames import Frame
from ptychostream.plugins.position_receiver import PositionReceiver, PositionReceiverSettings
from ptychostream.positions.position_stream import StreamPositions, StreamPositionSettings
from ptychostream.positions.positions import NeverPlaced
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan
from ptychostream.sim.replay.position_stream import PositionStream, PositionStreamSettings, StageSampler
from ptychostream.sim.scans import trajectory

NO_COUNTS = np.zeros((1, 1), np.uint16)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rate_hz"), [("fly", 100.0), ("fly", 1000.0), ("spiral", 50.0)])
def test_frames_of_a_scan_are_placed_where_they_were_taken(name: str, rate_hz: float) -> None:
    positions_m = trajectory(name, 400, 50e-9).positions_m
    times = 1.7e9 + np.arange(400) / rate_hz + np.random.default_rng(0).uniform(0, 0.2 / rate_hz, 400)
    sampler, source = StageSampler(positions_m, 10_000.0), StreamPositions(StreamPositionSettings())
    for number, time_s in enumerate(times):
        source.update(*sampler.until(number, time_s))
    source.update(*sampler.rest())
    placed = np.array([source.lookup(Frame("s", n, t, NO_COUNTS)) for n, t in enumerate(times)], np.float64)
    error_m = np.hypot(*(placed - positions_m).T)
    # At every frame the stage turns a corner; between two samples that is cut off by at most the way between them.
    way_m = np.hypot(*np.diff(positions_m, axis=0).T) / np.diff(times) / 10_000
    assert error_m.max() <= way_m.max()
    assert np.median(error_m) < 0.2 * np.median(way_m)


def test_samples_lie_on_a_grid_of_their_own_and_begin_and_end_at_rest() -> None:
    positions_m = np.array([[0.0, 0.0], [1e-6, 2e-6]])
    sampler = StageSampler(positions_m, 1000.0)
    assert sampler.rest().shape == (3, 0)
    blocks = [sampler.until(0, 100.0), sampler.until(1, 100.0505), sampler.rest()]
    times, x, y = np.concatenate(blocks, axis=1)
    np.testing.assert_allclose(np.diff(times), 0.001, atol=1e-9)
    assert (times[0], times[-1]) == (pytest.approx(99.9), pytest.approx(100.15, abs=1e-6))
    np.testing.assert_array_equal(x[times < 100.0], 0.0)
    np.testing.assert_array_equal(x[times > 100.0505], 1e-6)
    np.testing.assert_allclose(y, 2 * x, atol=1e-18)


def sent(frames: int = 100, **values: object) -> list[np.ndarray]:
    """The blocks of a scan at 1 kHz, as [3, n]."""
    blocks: list[np.ndarray] = []
    settings = PositionStreamSettings.model_validate({"layout": "structure", **values})
    stream = PositionStream(
        settings, 1e-6, lambda update: blocks.append(np.array([update[name] for name in ("time", "x", "y")]))
    )
    stream.begin(np.stack([np.arange(frames) * 1e-6, np.zeros(frames)], axis=1))
    start = time.time()
    for number in range(frames):
        stream.frame(number, start + number * 0.001)
    stream.end()
    stream.stop()
    return blocks


def test_every_sample_is_sent_once_in_order_in_bulk_with_the_clock_ahead() -> None:
    began = time.time()
    blocks = sent(bulk=25, clock_offset_s=1000.0, delay_s=0.01, jitter_s=0.02)
    times, x, _ = np.concatenate(blocks, axis=1)
    np.testing.assert_allclose(np.diff(times), 0.001, atol=1e-6)
    assert times[0] == pytest.approx(began + 1000 - 0.1, abs=0.5)
    assert x.max() == pytest.approx(99.0)
    assert all(block.shape[1] >= 25 for block in blocks[:-1])


def test_blocks_are_lost_or_doubled_as_asked() -> None:
    whole, some = len(sent(bulk=1)), len(sent(bulk=1, dropout=0.5))
    assert 0.25 * whole < some < 0.75 * whole
    twice = np.concatenate(sent(bulk=1, twice=1.0), axis=1)[0]
    assert len(twice) == 2 * len(set(twice.tolist()))
    assert not sent(dropout=1.0)


def test_a_lost_block_leaves_a_hole_that_no_frame_is_placed_in() -> None:
    blocks = sent(bulk=10)
    source = StreamPositions(StreamPositionSettings(tolerance_s=0.005))
    for block in (*blocks[:5], *blocks[6:]):
        source.update(*block)
    lost = float(np.mean(blocks[5][0]))
    with pytest.raises(NeverPlaced, match="no position for"):
        source.lookup(Frame("s", 0, lost, NO_COUNTS))
    assert source.lookup(Frame("s", 0, lost + 0.02, NO_COUNTS)) is not None


@pytest.mark.server
def test_replay_sends_a_files_positions_as_a_stream(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    positions_m = random.normal(0, 1e-6, (40, 2))
    scan = Scan("s1", random.poisson(3, (40, 16, 16)).astype(np.uint16), positions_m, 10e3, 0.9, 75e-6)
    write_scan(tmp_path / "scan.h5", scan)
    got: list[np.ndarray] = []
    words = (
        "replay", str(tmp_path / "scan.h5"), "--pv", "t:Image", "--positions", "stream", "--position-unit", "nm",
        "--rate", "100", "--wait-for-client",
    )  # fmt: skip
    with EpicsEnv() as env, env.active():
        receiver = PositionReceiver(
            PositionReceiverSettings(channel="t:Positions"), lambda samples, _: got.append(samples), pytest.fail
        )
        receiver.start()
        with env.start(sys.executable, "-m", "ptychostream", *words, env=env.server_env()) as replay:
            assert replay.wait(60) == 0, replay.output
            assert "on t:Positions" in replay.output
        receiver.stop()
    times, x, y = np.concatenate(got, axis=1)
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose((x[0], y[0]), positions_m[0] * 1e9, rtol=1e-6)
    np.testing.assert_allclose((x[-1], y[-1]), positions_m[-1] * 1e9, rtol=1e-6)
