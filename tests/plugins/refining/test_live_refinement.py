"""The refinement's own thread: it refines what the inference thread hands over, and holds nobody up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import wait_until
from refine_case import SIZE, Case, case

from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.model.contract import ModelContract, PackedArray
from ptychostream.plugins.flow.snapshot import Stitched
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.refining.live import LiveRefinement
from ptychostream.plugins.refining.settings import RefineSettings
from ptychostream.refine.status import PositionStatus
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction


def contract(one: Case, probe: np.ndarray | None) -> ModelContract:
    return ModelContract(
        name="m",
        input_shape=(SIZE, SIZE),
        output_shape=(SIZE, SIZE),
        object_pixel_m=one.truth.pixel_m,
        probe=None if probe is None else PackedArray.pack(probe),
    )


def batch(one: Case, frames: range, run: int = 1, shift_m: float = 0.0) -> Patches:
    placed = [
        PlacedFrame(Frame(f"s{run}", index, 0.0, one.scan.counts[index], run=run), x + shift_m, y)
        for index, (x, y) in zip(frames, one.scan.positions_m[frames.start : frames.stop].tolist(), strict=True)
    ]
    nothing = np.zeros((len(placed), SIZE, SIZE), np.float32)
    return Patches(placed, nothing, [], 0.0, 0.0, 0.0, nothing, 1.0)


@contextmanager
def running(one: Case, folder: Path | None = None, **settings: Any) -> Iterator[LiveRefinement]:
    values = {"enabled": True, "budget": 1.0, "rate_hz": 20.0, **settings}
    stitched = Stitched(one.network, "s", 1, 1, "m", 1.0)
    live = LiveRefinement(RefineSettings(**values), lambda _: stitched, lambda: folder)
    live.start()
    try:
        yield live
    finally:
        live.stop()


def passed(live: LiveRefinement, passes: float, frames: int) -> None:
    def there() -> bool:
        figures = live.state.figures
        return figures.frames == frames and (figures.passes >= passes or figures.converged)

    wait_until(there, 60, lambda: f"{passes} passes of {frames} frames: {live.state}")


def test_a_scan_is_refined_while_it_comes_and_after_its_end(tmp_path: Path) -> None:
    one = case()
    model = contract(one, one.probe)
    with running(one, tmp_path) as live:
        assert live.latest is None
        for first in range(0, 120, 40):
            live.note(model, batch(one, range(first, first + 40)))
            passed(live, 1, first + 40)
        field = live._refiner.field  # type: ignore[union-attr]
        seen = field.visits > 1
        assert (field.prior != 0).any(axis=0)[seen].mean() > 0.9, "the canvas was not followed as the field grew"
        passed(live, 20, 120)
        latest, state = live.latest, live.state
        assert latest is not None
        assert one.ssim(latest.phase) > one.ssim(one.network) + 0.1
        assert (latest.scan, latest.run, latest.model, latest.last_frame_id) == ("s1", 1, "m", 119)
        assert (state.not_taken, state.waiting, state.stopped, state.message) == (0, 0, False, "")
        assert state.probe_source == "contract of m"
        assert 0 < state.figures.r_factor < 0.1
        assert 0.3 < state.ssim < 1
    saved = list(tmp_path.glob("*.h5"))
    assert len(saved) == 1
    made = read_reconstruction(saved[0])
    assert made.scan_id == "s1" and one.ssim(made.phase_image()) > one.ssim(one.network) + 0.1
    assert made.residuals is not None and len(made.positions_m) == len(made.residuals) == 120


def test_the_next_scan_begins_with_the_last_ones_probe(tmp_path: Path) -> None:
    one = case()
    model = contract(one, one.probe)
    with running(one, tmp_path) as live:
        live.note(model, batch(one, range(120)))
        passed(live, 10, 120)
        live.note(model, batch(one, range(60), run=2))
        wait_until(lambda: live.state.scan == "s2", 20, "the second scan")
        passed(live, 2, 60)
        assert live.state.probe_source == "scan s1"
        assert live.state.saved == str(tmp_path / "s1_1.h5"), "the file of the last one is told"
        live.note(model, batch(one, range(60, 70)))  # late ones of the first
        wait_until(lambda: live.state.not_taken == 10, 20, "late frames counted")
        assert live.state.figures.frames == 60


def test_off_it_takes_nothing() -> None:
    one = case()
    with running(one, enabled=False) as live:
        live.note(contract(one, one.probe), batch(one, range(20)))
        assert (live.state.waiting, live.state.figures.frames) == (0, 0)


def test_a_full_queue_keeps_nobody_waiting() -> None:
    one = case()
    stitched = Stitched(one.network, "s", 1, 1, "m", 1.0)
    live = LiveRefinement(RefineSettings(enabled=True, queue_size=30), lambda _: stitched)
    live.note(contract(one, one.probe), batch(one, range(50)))  # its thread does not run
    assert (live.state.waiting, live.state.not_taken) == (30, 20)


@pytest.mark.parametrize(
    ("probe", "settings", "why"),
    [
        (None, {}, "no probe"),
        (np.ones((1, 64, 64), np.complex64), {}, "a probe of 64"),
        (np.zeros((1, SIZE, SIZE), np.complex64), {}, "zero"),
        (np.ones((1, SIZE, SIZE), np.complex64), {"probe": "file"}, "no file"),
        (np.ones((1, SIZE, SIZE), np.complex64), {"probe": "file", "probe_file": "other.h5"}, "its pixel is"),
        (np.ones((1, SIZE, SIZE), np.complex64), {"probe": "file", "probe_file": "none.h5"}, "no such file"),
    ],
)
def test_without_a_probe_that_fits_a_scan_is_not_refined(
    probe: np.ndarray | None, settings: dict[str, Any], why: str, tmp_path: Path
) -> None:
    one = case()
    write_reconstruction(tmp_path / "other.h5", replace(one.truth, pixel_m=1.1 * one.truth.pixel_m, errors=np.ones(1)))
    if "probe_file" in settings:
        settings = {**settings, "probe_file": tmp_path / settings["probe_file"]}
    with running(one, **settings) as live:
        live.note(contract(one, probe), batch(one, range(20)))
        wait_until(lambda: live.state.stopped, 20, lambda: f"stopped: {live.state}")
        assert why in live.state.message
        assert live.latest is None
        live.configure(probe="last")
        live.note(contract(one, one.probe), batch(one, range(40), run=2))  # the next scan is refined again
        passed(live, 1, 40)
        assert not live.state.stopped


def test_a_position_that_jumps_costs_its_frame_alone() -> None:
    one = case()
    with running(one) as live:
        live.note(contract(one, one.probe), batch(one, range(40)))
        live.note(contract(one, one.probe), batch(one, range(40, 42), shift_m=1.0))
        live.note(contract(one, one.probe), batch(one, range(42, 60)))
        passed(live, 3, 58)
        assert live.state.not_taken == 2 and "position" in live.state.message and not live.state.stopped
        assert live.latest is not None and one.ssim(live.latest.phase) > 0.3


def test_full_memory_is_told() -> None:
    one = case()
    with running(one, memory_mb=1) as live:  # 512 frames of this size
        for run_ in range(5):
            live.note(contract(one, one.probe), batch(one, range(120), shift_m=run_ * 1e-9))
            wait_until(lambda: live.state.waiting == 0, 20, "taken")

        def counted() -> bool:
            figures = live.state.figures
            return figures.left_out > 0 and figures.left_out + figures.frames == 600

        wait_until(counted, 20, lambda: f"every frame kept or left out: {live.state}")


def test_what_diverges_is_stopped_the_last_good_image_stays_and_nothing_of_it_is_saved(tmp_path: Path) -> None:
    one = case()
    with running(one, tmp_path) as live:
        live.note(contract(one, one.probe), batch(one, range(120)))
        passed(live, 5, 120)
        refiner = live._refiner
        assert refiner is not None
        refiner.store.amplitudes[5:40] = 60000  # 3.5 million counts in each pixel, of frames that had 1000 in all
        refiner.converged = False
        live.note(contract(one, one.probe), batch(one, range(119, 120)))
        wait_until(lambda: live.state.stopped, 20, lambda: f"stopped: {live.state}")
        assert "diverged" in live.state.message and "last good" in live.state.message
        latest = live.latest
        assert latest is not None and np.isfinite(latest.phase.phase).any()
        assert one.ssim(latest.phase) > one.ssim(one.network), "the last good image is not what is shown"
        live.note(contract(one, one.probe), batch(one, range(40), run=2))  # the next scan is refined
        passed(live, 1, 40)
        assert not live.state.stopped and live.state.message == ""
    for path in tmp_path.glob("s1_*.h5"):  # of before
        assert read_reconstruction(path).r_factor < 1


def test_no_memory_stops_this_scan_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from ptychostream.refine.field import RefinedField

    one = case()
    with running(one) as live:
        live.note(contract(one, one.probe), batch(one, range(40)))
        passed(live, 1, 40)
        shown = live.latest

        def full(*_: Any) -> None:
            raise MemoryError

        with monkeypatch.context() as patched:
            patched.setattr(RefinedField, "guide", full)
            patched.setattr(RefinedField, "reserve", full)
            live.note(contract(one, one.probe), batch(one, range(40, 60)))
            wait_until(lambda: live.state.stopped, 20, lambda: f"stopped: {live.state}")
        assert "lower Refine:Memory" in live.state.message
        assert live.latest is not None and shown is not None and live.latest.number >= shown.number
        live.note(contract(one, one.probe), batch(one, range(40), run=2))
        passed(live, 1, 40)


@pytest.mark.slow
def test_positions_are_corrected_once_the_scan_is_over_and_saved(tmp_path: Path) -> None:
    one = case(100e-9, 140)
    error_m = np.random.default_rng(3).normal(0, 1.5 * one.truth.pixel_m, (140, 2))
    wrong = replace(one, scan=replace(one.scan, positions_m=one.scan.positions_m + error_m))
    with running(wrong, tmp_path, correct_positions="each") as live:
        live.note(contract(one, one.truth.probe), batch(wrong, range(140)))
        passed(live, 12, 140)
        assert live.state.figures.positions.status == PositionStatus.WAITS and not live.state.figures.converged
        live.finished(1)
        wait_until(lambda: live.state.figures.converged, 90, lambda: f"converged: {live.state}")
        told = live.state.figures.positions
        assert told.status == PositionStatus.CORRECTED and told.message == ""
        assert one.truth.pixel_m < told.rms_m < 4 * one.truth.pixel_m
        made = read_reconstruction(tmp_path / "s1_1.h5")
        assert made.given_m is not None and made.provenance["converged"] is True
        np.testing.assert_array_equal(made.given_m, wrong.scan.positions_m)
        away = (made.positions_m - one.truth.positions_m) / made.pixel_m
        assert np.sqrt(np.square(away - away.mean(axis=0)).sum(axis=1).mean()) < 1.2
        assert live.latest is not None
        np.testing.assert_allclose(live.latest.residuals[:2].T, made.positions_m, atol=1e-3 * made.pixel_m)
        live.configure(correct_positions="none")
        wait_until(lambda: live.state.figures.positions.status == PositionStatus.OFF, 30, "back at the given positions")
        live.note(contract(one, one.truth.probe), batch(wrong, range(60), run=2))
        passed(live, 2, 60)
        assert live.state.figures.positions.status == PositionStatus.OFF


def test_the_next_scan_ends_a_correction(tmp_path: Path) -> None:
    one = case(100e-9, 140)
    with running(one, tmp_path, correct_positions="each") as live:
        live.note(contract(one, one.probe), batch(one, range(140)))
        live.finished(1)
        wait_until(lambda: live.state.figures.positions.passes > 2, 60, lambda: f"a correction: {live.state}")
        live.note(contract(one, one.probe), batch(one, range(60), run=2))
        passed(live, 2, 60)
        assert (live.state.scan, live.state.figures.positions.status) == ("s2", PositionStatus.WAITS)
    made = read_reconstruction(tmp_path / "s1_1.h5")
    assert made.provenance["converged"] is False, "an agent must not take it"


@pytest.mark.slow
def test_the_resolution_is_known_after_convergence_saved_and_forgotten_with_the_next_frame(tmp_path: Path) -> None:
    one = case(100e-9, 300)
    with running(one, tmp_path) as live:
        live.note(contract(one, one.probe), batch(one, range(299)))
        wait_until(lambda: live.state.frc_m > 0, 90, lambda: f"a resolution: {live.state}")
        assert live.state.figures.converged
        assert one.truth.pixel_m <= live.state.frc_m < 400e-9
        saved = read_reconstruction(tmp_path / "s1_1.h5")
        assert saved.provenance["frc_m"] == live.state.frc_m and saved.provenance["converged"] is True
        assert saved.provenance["passes_of_all"] >= 3
        assert live.latest is not None and live.latest.residuals.shape == (3, 299)
        live.note(contract(one, one.probe), batch(one, range(299, 300)))
        wait_until(lambda: np.isnan(live.state.frc_m), 30, "the resolution forgotten", interval=0.002)
        wait_until(lambda: live.state.frc_m > 0, 90, lambda: f"and known again: {live.state}")
        assert live.state.figures.frames == 300
