"""Reconstructions from the live canvas and the last probe, and what is taken for one that came to nothing."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from still_edge import StillEdge
from training_scans import small_scan

from ptychostream.benchmarks.warm_start import to_the_same
from ptychostream.errors import ReconstructionError
from ptychostream.hpc_agent.disk_room import DiskRoom, StoppedError
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper, PolicySettings
from ptychostream.hpc_agent.reconstruct import ReconstructOptions, reconstruct
from ptychostream.hpc_agent.scan_work import ScanWork
from ptychostream.hpc_agent.scans.collect import Collected, ScanEvent
from ptychostream.hpc_agent.scans.live_canvas import await_canvas, find_canvas
from ptychostream.hpc_agent.scans.scan_checks import FrameStatistics
from ptychostream.hpc_agent.work_settings import WorkSettings
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.soundness import SoundnessLimits, noise_r_factor, unsound
from ptychostream.reconstruct.start import object_from_phase
from ptychostream.scans.phase_file import save_phase_image
from ptychostream.scans.scan import Reconstruction
from ptychostream.scans.scan_files import ScanOptions

LIMITS = SoundnessLimits()


@cache
def made(seed: int = 0, iterations: int = 20) -> Reconstruction:
    return reconstruct(small_scan(seed=seed)[0], ReconstructOptions(iterations=iterations))


@cache
def grid() -> ObjectGrid:
    scan, truth = small_scan()
    return ObjectGrid.around(scan.positions_m, truth.pixel_m, 32, 8)


def smooth_image(shape: tuple[int, int] = (60, 64), pixel_m: float = 0.0, origin_px: float = 6.3) -> PhaseImage:
    """A phase that varies slowly, by its place in metres, somewhere on the grid."""
    pixel_m = pixel_m or grid().pixel_m
    x0, y0 = (value + origin_px * grid().pixel_m for value in grid().origin_m)
    rows, columns = np.indices(shape)
    return PhaseImage(
        wave(x0 + columns * pixel_m, y0 + rows * pixel_m).astype(np.float32),
        np.ones(shape, np.float32),
        (x0, y0),
        pixel_m,
    )


def wave(x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    unit = 12 * grid().pixel_m
    return 0.6 * np.sin(x_m / unit) * np.cos(y_m / unit)


def flattened(object_: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Phase inside, without its plane."""
    phase = np.angle(object_)[inside]
    rows, columns = np.nonzero(inside)
    basis = np.stack([np.ones(len(rows)), rows, columns], axis=1)
    return phase - basis @ np.linalg.lstsq(basis, phase, rcond=None)[0]


def test_the_canvas_lies_where_it_was_stitched() -> None:
    """Whatever its own pixel and its own corner are."""
    rows, columns = np.indices(grid().shape)
    expected = wave(grid().origin_m[0] + columns * grid().pixel_m, grid().origin_m[1] + rows * grid().pixel_m)
    for image in (smooth_image(), smooth_image((110, 120), 0.5 * grid().pixel_m), smooth_image(origin_px=3.7)):
        start = object_from_phase(image, grid())
        assert start.shape == grid().shape and start.dtype == np.complex64
        np.testing.assert_allclose(np.abs(start), 1, atol=1e-5)
        drawn = ndimage.binary_erosion(start != 1, iterations=2)
        assert drawn.sum() > 2000
        np.testing.assert_allclose(flattened(start, drawn), flattened(np.exp(1j * expected), drawn), atol=0.02)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(offset=st.floats(-3.1, 3.1), down=st.floats(-0.3, 0.3), right=st.floats(-0.3, 0.3), scale=st.floats(1e-3, 1e3))
def test_constant_and_linear_phase_make_no_difference(offset: float, down: float, right: float, scale: float) -> None:
    image = smooth_image()
    rows, columns = np.indices(image.phase.shape)
    tilted = np.angle(np.exp(1j * (image.phase + offset + down * rows + right * columns))).astype(np.float32)
    plain = object_from_phase(image, grid())
    other = object_from_phase(replace(image, phase=tilted, weight=image.weight * np.float32(scale)), grid())
    assert np.abs(plain - other).max() < 1e-3
    assert abs(np.angle(plain[plain != 1].sum())) < 0.05


def test_holes_are_as_a_flat_start_has_them() -> None:
    image = smooth_image()
    phase, weight = image.phase.copy(), image.weight.copy()
    phase[20:40, 20:40], weight[20:40, 20:40] = np.nan, 0
    weight[:, :5] = 0.01  # hardly seen
    phase[:, :5] = 3
    start = object_from_phase(replace(image, phase=phase, weight=weight), grid())
    rows = columns = slice(20 + 10, 36)
    assert (start[rows, columns] == 1).all()
    assert (start[:, :9] == 1).all()
    assert np.isfinite(start).all()
    nothing = PhaseImage(np.full((9, 9), np.nan, np.float32), np.zeros((9, 9), np.float32), (0, 0), grid().pixel_m)
    assert (object_from_phase(nothing, grid()) == 1).all()
    elsewhere = replace(image, origin_m=(1.0, 1.0))
    assert (object_from_phase(elsewhere, grid()) == 1).all()


def test_a_canvas_and_the_last_probe_halve_the_iterations() -> None:
    scan, truth = small_scan()
    last = made(seed=1)
    soft = replace(truth.phase_image(), phase=blurred(truth.phase_image()))
    options = ReconstructOptions(iterations=20)
    warm = reconstruct(scan, options, initial_object=partial(object_from_phase, soft), initial_probe=last.probe)
    flat = made()
    for iterations in (10, 20):
        reached = np.flatnonzero(warm.errors <= flat.errors[iterations - 1])
        assert len(reached) and reached[0] + 1 <= iterations / 2


def blurred(image: PhaseImage) -> np.ndarray:
    """As a network draws it: without the finest features, and too weak."""
    known = np.isfinite(image.phase)
    soft = ndimage.gaussian_filter(np.where(known, image.phase, 0), 1.0)
    return np.where(known, 0.9 * soft / np.maximum(ndimage.gaussian_filter(known.astype(float), 1.0), 0.1), np.nan)


def test_a_start_of_another_shape_is_refused() -> None:
    with pytest.raises(ReconstructionError, match="an object of"):
        reconstruct(
            small_scan()[0],
            ReconstructOptions(iterations=1),
            initial_object=lambda _: np.ones((5, 5), np.complex64),
        )


def test_a_sound_reconstruction_is_learned_from() -> None:
    assert unsound(made(), LIMITS) == ""
    truth = small_scan()[1]
    assert unsound(replace(truth, errors=np.array([0.01])), LIMITS) == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"errors": np.array([0.1, np.nan])}, "not a number"),
        ({"errors": np.array([])}, "not a number"),
        ({"errors": np.array([0.5, 0.4, 0.39])}, "more than 0.3 is left"),
        ({"errors": np.array([0.1, 0.02, 0.08, 0.09, 0.1])}, "rose again"),
        ({"object": np.ones_like(made().object)}, "flat"),
        ({"object": np.full_like(made().object, np.nan)}, "not finite"),
        ({"probe": np.full_like(made().probe, np.inf)}, "not finite"),
        ({"coverage": np.zeros_like(made().coverage)}, "covers nothing"),
    ],
)
def test_what_came_to_nothing_is_not(changes: dict[str, Any], reason: str) -> None:
    assert reason in unsound(replace(made(), **changes), LIMITS)


def test_an_object_of_a_few_bright_pixels_is_not() -> None:
    spiky = 0.01 * made().object
    covered = np.flatnonzero(made().coverage > 0)
    spiky.flat[covered[::50]] = 1
    assert "brightest pixels" in unsound(replace(made(), object=spiky), LIMITS)


def test_an_r_factor_that_falls_to_the_end_has_not_risen() -> None:
    varying = {**made().provenance, "empty_r_factor": 0.3}
    assert unsound(replace(made(), errors=np.array([0.2, 0.1, 0.05]), provenance=varying), LIMITS) == ""
    assert unsound(replace(made(), errors=np.array([0.0010, 0.0017])), LIMITS) == ""


def test_sparse_frames_may_have_a_large_r_factor() -> None:
    errors = np.array([0.7, 0.6, 0.6])
    sparse = {**made().provenance, "noise_r_factor": 0.6, "empty_r_factor": 0.9}
    assert unsound(replace(made(), errors=errors, provenance=sparse), LIMITS) == ""
    assert "counting noise" in unsound(replace(made(), errors=errors), LIMITS)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(rate=st.floats(0.02, 500))
def test_the_noise_is_that_of_poisson_counts(rate: float) -> None:
    counts = np.random.default_rng(0).poisson(rate, 200_000)
    measured = np.sqrt(counts).var() / rate
    assert noise_r_factor(np.array([[rate]])) == pytest.approx(measured, rel=0.06)


def test_no_counts_have_no_noise() -> None:
    assert noise_r_factor(np.zeros((4, 4))) == 0
    assert made().provenance["noise_r_factor"] > 0


def test_the_latest_canvas_of_the_scan_is_found(tmp_path: Path) -> None:
    assert find_canvas(tmp_path, "scan 7") is None
    image = smooth_image()
    paths = [save_phase_image(tmp_path, "scan 7", image, {"scan": "scan 7"}) for _ in range(2)]
    save_phase_image(tmp_path, "scan 7_3", image, {"scan": "scan 7_3"})
    assert find_canvas(tmp_path, "scan 7") == paths[1]
    paths[1].write_bytes(b"cut")
    assert find_canvas(tmp_path, "scan 7") == paths[0]
    assert find_canvas(tmp_path, "scan") is None


def test_iterations_to_the_same_error() -> None:
    flat = {"r_factor": [0.5, 0.4, 0.3, 0.25, 0.2], "ssim": [0.1, 0.2, 0.3, 0.4, 0.5]}
    flat |= {"ssim_1px": flat["ssim"], "pearson": flat["ssim"]}
    warm = {**flat, "r_factor": [0.35, 0.3, 0.25, 0.22, 0.21], "ssim": [0.6, 0.5, 0.4, 0.4, 0.4]}
    found = to_the_same(flat, warm)
    assert found["r_factor"] == {2: 1, 3: 2, 5: None}
    assert found["ssim"] == {2: 1, 3: 1, 5: 1}
    assert found["pearson"] == {2: 2, 3: 3, 5: 5}


class _Runner:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.diverged = False

    def submit(self, step: str, arguments: dict[str, Any], _: Any = None) -> Future[dict[str, Any]]:
        self.asked.append((step, arguments))
        done: Future[dict[str, Any]] = Future()
        name = arguments["key"]
        done.set_result(
            {
                "reconstruct": {"reconstruction": f"{name}.h5", "diverged": self.diverged, "reason": "R rose"},
                "label": {},
                "train": {"sha256": f"model of {name}"},
            }[step]
        )
        return done

    def find(self, _: str) -> None:
        return None


def test_a_canvas_that_is_about_to_come_is_waited_for(tmp_path: Path) -> None:
    stop, came = threading.Event(), threading.Event()

    def save_late() -> None:
        assert came.wait(20)
        save_phase_image(tmp_path, "a", smooth_image(), {"scan": "a"})

    class Looked(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            came.set()
            return super().wait(timeout)

    thread = threading.Thread(target=save_late)
    thread.start()
    assert await_canvas(tmp_path, "a", 30.0, Looked()) == tmp_path / "a.h5"
    thread.join()
    assert await_canvas(tmp_path, "b", 0.0, stop) is None
    assert await_canvas(tmp_path, "b", 0.2, stop) is None
    stop.set()
    assert await_canvas(tmp_path, "b", 1e6, stop) is None


def work_of(folder: Path, runner: _Runner, journal: Journal, edge: StillEdge, **settings: Any) -> ScanWork:
    return ScanWork(
        journal,
        runner,
        runner,
        WorkSettings(folder, canvases=folder / "canvases", **settings),
        collect=lambda event: Collected(
            Path(event.file), ScanOptions(), event.scan_id, FrameStatistics.__new__(FrameStatistics)
        ),
        edge=edge,
        policy=PolicyKeeper(journal, PolicySettings, lambda _: None),
        room=DiskRoom(folder),
        report=lambda _: None,
        on_progress=lambda _: None,
    )


@pytest.mark.slow
@pytest.mark.parametrize("clock_jump_s", [0.0, 1e6])
def test_the_agent_waits_for_the_canvas_of_a_scan_that_has_just_completed(tmp_path: Path, clock_jump_s: float) -> None:
    """Of an edge that has a model and saves; and it stops when it is asked to, though the wait has hardly begun."""
    runner, journal, edge = _Runner(), Journal(tmp_path / "journal.sqlite"), StillEdge("m", saves=True)
    work = work_of(tmp_path, runner, journal, edge, canvas_wait_s=60.0)
    journal.enter("now", vars(ScanEvent("now", "now.nxs")), time.time() + clock_jump_s)
    stop, ended = threading.Event(), threading.Event()

    def begin() -> None:
        with pytest.raises(StoppedError):
            work.work(journal.open_scans()[0], stop)
        ended.set()

    thread = threading.Thread(target=begin)
    thread.start()
    assert not ended.wait(1.0) and runner.asked == []
    stop.set()
    thread.join(20)
    assert ended.is_set() and runner.asked == []
    canvas = save_phase_image(tmp_path / "canvases", "now", smooth_image(), {"scan": "now"})
    work.work(journal.open_scans()[0], threading.Event())
    assert runner.asked[0][1]["initial"]["canvas"] == str(canvas)


@pytest.mark.parametrize(
    ("edge", "ago_s"),
    [
        (StillEdge("m", saves=True), 1e6 + 1),  # taken up later: what has not come does not come
        (StillEdge("m"), 0.0),
        (StillEdge("", saves=True), 0.0),  # no model, no canvas
        (StillEdge(None, saves=True), 0.0),
    ],
)
def test_the_agent_waits_for_no_canvas_that_cannot_come(tmp_path: Path, edge: StillEdge, ago_s: float) -> None:
    runner, journal = _Runner(), Journal(tmp_path / "journal.sqlite")
    work, stop = work_of(tmp_path, runner, journal, edge, canvas_wait_s=1e6), threading.Event()
    journal.enter("a", vars(ScanEvent("a", "a.nxs")), time.time() - ago_s)

    def begin() -> None:
        with suppress(StoppedError):
            work.work(journal.open_scans()[0], stop)

    thread = threading.Thread(target=begin)
    thread.start()
    thread.join(30)
    waits = thread.is_alive()
    stop.set()
    thread.join(30)
    assert not waits and runner.asked[0][1]["initial"]["canvas"] is None


def test_the_agent_starts_a_reconstruction_from_canvas_and_last_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in "abcd":  # only a file that is there is started from
        Path(f"{name}.h5").touch()
    runner, journal = _Runner(), Journal(tmp_path / "journal.sqlite")
    canvas = save_phase_image(tmp_path / "canvases", "b", smooth_image(), {"scan": "b"})
    work = work_of(tmp_path, runner, journal, StillEdge())
    initial, outcomes = [], []
    for number, name in enumerate("abcd"):
        runner.diverged = name == "c"
        journal.enter(name, vars(ScanEvent(name, f"{name}.nxs")), float(number))
        outcomes.append(work.work(journal.open_scans()[0], threading.Event()))
        initial.append(next(arguments["initial"] for step, arguments in runner.asked[::-1] if step == "reconstruct"))
    assert initial == [
        {"canvas": None, "reconstruction": None},
        {"canvas": str(canvas), "reconstruction": "a.h5"},
        {"canvas": None, "reconstruction": "b.h5"},
        {"canvas": None, "reconstruction": "b.h5"},
    ]
    assert outcomes[2] == "the reconstruction diverged (R rose): it gives no labels"
    assert [arguments["key"] for step, arguments in runner.asked if step == "label"] == ["a", "b", "d"]
    trained = next(arguments for step, arguments in runner.asked if step == "train")
    assert trained["corpus"] == str(tmp_path / "corpus") and trained["reconstruction"] == "a.h5"
