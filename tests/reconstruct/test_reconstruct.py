"""Reconstruction: it finds the object that made the patterns, and says so when it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reconstruct_case import DOSE, PIXEL_M, PROBE, SCAN, SIZE, TRUTH, likeness, make_scan, options
from scipy import fft

from ptychostream.cli.main import main
from ptychostream.datasets.fetching import fetch
from ptychostream.errors import ConfigError, ReconstructionError, ScanFileError
from ptychostream.hpc_agent.reconstruct import ReconstructOptions, reconstruct
from ptychostream.reconstruct import fft_kernels, gauge
from ptychostream.reconstruct.grid import ObjectGrid
from ptychostream.reconstruct.patterns import Patterns
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import open_scan
from ptychostream.scans.scan_writer import write_scan


@pytest.fixture(autouse=True, scope="module")
def one_torch_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other at every one of these small operations."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# the FFT


@pytest.mark.parametrize("size", [16, 32, 64, 128, 18, 20, 25, 27, 45, 75, 90, 96, 100, 108, 125, 150, 160, 192, 200])
def test_the_compiled_fft_is_the_fft_and_its_inverse_undoes_it(size: int) -> None:
    wave = np.random.default_rng(size).standard_normal((2, size, size)).astype(np.float32)
    planes = np.zeros((4, size, size + fft_kernels.PADDING), np.float32)
    planes[:2, :, :size] = wave
    factors = fft_kernels.twiddles(size)
    fft_kernels.forward(planes[0], planes[1], planes[2], planes[3], factors)
    expected = fft.fft2(wave[0] + 1j * wave[1])
    ordered = fft_kernels.permute(np.stack([expected.real, expected.imag]).astype(np.float32))
    np.testing.assert_allclose(planes[2:, :, :size], ordered, atol=2e-5 * size)
    fft_kernels.inverse(planes[2], planes[3], planes[0], planes[1], factors)
    np.testing.assert_allclose(planes[:2, :, :size] / size**2, wave, atol=1e-5)


def test_only_sizes_that_the_fft_can_transform_are_supported() -> None:
    assert [size for size in range(60) if fft_kernels.supports(size)] == [
        16, 18, 20, 24, 25, 27, 30, 32, 36, 40, 45, 48, 50, 54
    ]  # fmt: skip
    assert not any(fft_kernels.supports(size) for size in (0, 1, 8, 97, 98, 110, 254, 1022))
    assert all(fft_kernels.supports(size) for size in (384, 500, 1000, 1024, 1080))


# what it must find


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "start"), [("epie", True), ("epie", False), ("torch", True)])
def test_finds_the_object_from_the_patterns(engine: str, start: bool) -> None:
    """Also with no first probe at all: the defocus is searched for."""
    scan = SCAN if start else replace(SCAN, probe=None)
    result = reconstruct(scan, options(engine=engine, device="cpu", batch=27, iterations=16))
    assert likeness(result) > 0.9
    assert result.errors[-1] < 0.3 * result.errors[0]
    assert np.abs(result.object[result.coverage > 0.2]).mean() == pytest.approx(1, abs=0.05)
    assert (np.abs(result.probe) ** 2).sum() == pytest.approx(DOSE, rel=0.15)
    assert result.engine.startswith(engine)


@pytest.mark.slow
def test_a_batch_of_all_positions_converges_too() -> None:
    result = reconstruct(SCAN, options(engine="torch", device="cpu", batch=len(SCAN), object_step=1, iterations=30))
    assert likeness(result) > 0.9


def test_patch_pixels_lie_where_the_positions_say() -> None:
    """Pixel [h//2, w//2] of a patch on its position, rows along y, columns along x."""
    result = reconstruct(SCAN, options())
    at = (result.positions_m - result.origin_m) / result.pixel_m
    np.testing.assert_allclose(at, np.rint(at), atol=1e-3)
    assert result.pixel_m == pytest.approx(PIXEL_M, rel=1e-6)
    assert likeness(result) > 0.9  # TRUTH lies on the grid of these positions: a transposed grid would not match
    assert likeness(replace(result, object=np.roll(result.object, 3, axis=0))) < 0.8


@pytest.mark.slow
def test_engines_agree() -> None:
    """One position at a time they are the same algorithm; in batches they end at the same error."""
    epie, single, batched = (
        reconstruct(SCAN, options(engine=engine, device="cpu", batch=batch, iterations=iterations)).errors
        for engine, batch, iterations in (("epie", 1, 16), ("torch", 1, 3), ("torch", 4, 16))
    )
    np.testing.assert_allclose(single, epie[:3], rtol=1e-3)
    np.testing.assert_allclose(batched[-1], epie[-1], rtol=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["epie", "torch"])
def test_the_same_seed_gives_the_same_bits_and_another_another_order(engine: str) -> None:
    first, again, other = (
        reconstruct(SCAN, options(engine=engine, device="cpu", iterations=3, seed=seed)) for seed in (5, 5, 6)
    )
    assert first.object.tobytes() == again.object.tobytes()
    assert first.probe.tobytes() == again.probe.tobytes()
    assert first.object.tobytes() != other.object.tobytes()


@pytest.mark.slow
def test_more_modes_explain_a_partly_coherent_beam() -> None:
    scan, truth, _ = make_scan(modes=3, dose=1e9)  # hardly any photon noise
    one, three = (
        reconstruct(scan, options(probe_modes=modes, iterations=40, object_step=1, probe_step=1)) for modes in (1, 3)
    )
    assert three.probe.shape == (3, SIZE, SIZE)
    assert three.r_factor < 0.5 * one.r_factor
    overlaps = np.abs(np.tensordot(three.probe.conj(), three.probe, ([1, 2], [1, 2])))
    assert (overlaps - np.diag(np.diag(overlaps))).max() < 1e-3 * overlaps[0, 0]
    assert (np.diff(np.diag(overlaps)) < 0).all()
    assert likeness(three, truth) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["epie", "torch"])
def test_bad_pixels_do_no_harm_when_they_are_known(engine: str) -> None:
    dead = np.random.default_rng(4).random((SIZE, SIZE)) < 0.02
    dead[SIZE // 2 - 3 : SIZE // 2 + 3, SIZE // 2] = True
    broken = replace(SCAN, counts=np.where(dead, 0, SCAN.counts))
    known, unknown = (
        reconstruct(replace(broken, bad_pixels=mask), options(engine=engine, device="cpu", batch=4))
        for mask in (dead, None)
    )
    assert likeness(known) > 0.9
    assert known.r_factor < 0.5 * unknown.r_factor


def test_pixels_at_the_dtype_s_maximum_are_bad_without_a_mask() -> None:
    counts = SCAN.counts.copy()
    counts[:, 20, 30] = np.iinfo(counts.dtype).max
    assert likeness(reconstruct(replace(SCAN, counts=counts), options())) > 0.9


def test_a_warm_start_begins_where_the_last_one_ended() -> None:
    first = reconstruct(SCAN, options())
    second = reconstruct(SCAN, options(iterations=2), initial_object=first.object, initial_probe=first.probe)
    assert second.errors[0] < 1.2 * first.errors[-1] < first.errors[0]


def test_frames_without_a_count_are_left_out_and_counted() -> None:
    counts = SCAN.counts.copy()
    counts[[3, 10]] = 0
    result = reconstruct(replace(SCAN, counts=counts), options())
    assert result.provenance["frames_without_counts"] == 2
    assert len(result.positions_m) == len(SCAN) - 2
    assert likeness(result) > 0.9


def cropped(side: int) -> Scan:
    first = (SIZE - side) // 2
    inner = slice(first, first + side)
    return replace(SCAN, counts=SCAN.counts[:, inner, inner], probe=None)


@pytest.mark.parametrize("side", [60, 54, 45])
def test_frames_whose_size_is_no_power_of_two_are_reconstructed_too(side: int) -> None:
    """The same numbers as torch, one position at a time, and by the compiled engine."""
    given = {"device": "cpu", "batch": 1, "iterations": 3, "defocus_m": 1e-4}
    compiled, plain = (reconstruct(cropped(side), options(engine=name, **given)) for name in ("auto", "torch"))
    assert compiled.engine == "epie"
    np.testing.assert_allclose(compiled.errors, plain.errors, rtol=1e-3)
    np.testing.assert_allclose(compiled.object, plain.object, atol=0.02)


def test_frames_of_any_other_size_go_to_torch() -> None:
    given = {"device": "cpu", "iterations": 1, "defocus_m": 1e-4}
    assert reconstruct(cropped(62), options(engine="auto", **given)).engine == "torch (cpu)"
    with pytest.raises(ReconstructionError, match=r"5, such as .* not 62") as caught:
        reconstruct(cropped(62), options(**given))
    assert caught.value.remedy


def test_the_caller_can_stop_it() -> None:
    seen: list[int] = []

    def stop_at_three(iteration: int, r_factor: float) -> bool:
        seen.append(iteration)
        return iteration < 3

    result = reconstruct(SCAN, options(), on_iteration=stop_at_three)
    assert seen == [1, 2, 3]
    assert len(result.errors) == 3


# gauge and grid


@settings(max_examples=25, deadline=None)
@given(
    factor=st.complex_numbers(min_magnitude=0.2, max_magnitude=5),
    slope=st.tuples(st.floats(-0.2, 0.2), st.floats(-0.2, 0.2)),
    shift=st.tuples(st.integers(-4, 4), st.integers(-4, 4)),
)
def test_the_gauge_changes_no_pattern_and_forgets_what_cannot_be_known(
    factor: complex, slope: tuple[float, float], shift: tuple[int, int]
) -> None:
    def pattern(object_: np.ndarray, probe: np.ndarray) -> np.ndarray:
        return np.abs(fft.fft2(probe * object_[20 : 20 + SIZE, 20 : 20 + SIZE], norm="ortho"))

    coverage = np.zeros(TRUTH.shape, np.float32)
    coverage[20 : 20 + SIZE, 20 : 20 + SIZE] = np.abs(PROBE[0]) ** 2
    rows, columns = np.indices(TRUTH.shape)
    ramp = np.exp(1j * (slope[0] * rows + slope[1] * columns))
    object_ = np.roll(TRUTH * factor * ramp, shift, (0, 1)).astype(np.complex64)
    probe = np.roll(PROBE / factor / ramp[20 : 20 + SIZE, 20 : 20 + SIZE], shift, (1, 2)).astype(np.complex64)
    seen = np.roll(coverage, shift, (0, 1))
    fixed, modes = gauge.fix_gauge(object_, probe, seen, 8, True)
    plain, plain_modes = gauge.fix_gauge(TRUTH, PROBE, coverage, 8, True)
    where = coverage > 0.05 * coverage.max()
    np.testing.assert_allclose(fixed[where], plain[where], atol=2e-3)
    scale = pattern(TRUTH, PROBE).max()
    np.testing.assert_allclose(pattern(fixed, modes), pattern(TRUTH, PROBE), atol=2e-3 * scale)
    np.testing.assert_allclose(np.abs(modes), np.abs(plain_modes), atol=2e-3 * np.abs(PROBE).max())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e-5, 1e-5), st.floats(-1e-5, 1e-5)), min_size=1, max_size=20), st.integers(0, 9))
def test_every_patch_fits_on_the_grid(places: list[tuple[float, float]], margin: int) -> None:
    grid = ObjectGrid.around(np.array(places), PIXEL_M, SIZE, margin)
    assert (grid.corners >= margin).all()
    assert (grid.corners + SIZE + margin <= np.array(grid.shape)).all()
    centre = (grid.corners + SIZE // 2 + grid.fractions)[:, ::-1] * PIXEL_M + grid.origin_m
    np.testing.assert_allclose(centre, places, atol=1e-12)
    assert (np.abs(grid.fractions) <= 0.5).all()


# what cannot be reconstructed

BAD_SCANS: dict[str, tuple[Callable[[Scan], Scan], str]] = {
    "no counts at all": (lambda scan: replace(scan, counts=np.zeros_like(scan.counts)), "0 of 81 frames hold counts"),
    "too few frames": (
        lambda scan: replace(scan, counts=scan.counts[:3], positions_m=scan.positions_m[:3]),
        "at least",
    ),
    "no positions": (lambda scan: replace(scan, positions_m=np.zeros((0, 2))), "positions of shape"),
    "fewer positions": (lambda scan: replace(scan, positions_m=scan.positions_m[:-1]), "81 frames and 80 positions"),
    "NaN position": (lambda scan: replace(scan, positions_m=scan.positions_m * [np.nan, 1]), "the first at frame 0"),
    "positions in µm": (lambda scan: replace(scan, positions_m=scan.positions_m * 1e6), "positions span"),
    "not square": (lambda scan: replace(scan, counts=scan.counts[:, :32]), "crop"),
    "foreign mask": (lambda scan: replace(scan, bad_pixels=np.zeros((8, 8), bool)), "mask"),
    "foreign probe": (lambda scan: replace(scan, probe=np.ones((1, 32, 32), np.complex64)), "probe"),
    "empty probe": (lambda scan: replace(scan, probe=np.zeros((1, SIZE, SIZE), np.complex64)), "zero or not finite"),
    "negative counts": (lambda scan: replace(scan, counts=-scan.counts.astype(np.int64)), "values are below 0"),
}


@pytest.mark.parametrize("name", BAD_SCANS)
def test_says_what_is_wrong_with_a_scan(name: str) -> None:
    spoil, words = BAD_SCANS[name]
    with pytest.raises((ReconstructionError, ScanFileError), match=words) as caught:
        reconstruct(spoil(SCAN), options())
    assert caught.value.remedy


@pytest.mark.parametrize("threads", [1, 2])
def test_momentum_converges_sooner(threads: int) -> None:
    plain, fast = (reconstruct(SCAN, options(iterations=6, threads=threads, momentum=part)) for part in (0.0, 0.7))
    assert fast.r_factor < 0.9 * plain.r_factor
    assert likeness(fast) > likeness(plain)


def test_only_epie_has_momentum() -> None:
    with pytest.raises(ReconstructionError, match="no momentum"):
        reconstruct(SCAN, options(engine="torch", device="cpu", momentum=0.5))


def test_says_that_it_diverges() -> None:
    with pytest.raises(ReconstructionError, match="diverged"):
        reconstruct(SCAN, options(object_step=20, probe_step=20))


def test_patterns_that_were_read_before_serve_again_also_after_a_divergence() -> None:
    patterns = Patterns.read(SCAN)
    before = patterns.amplitudes.copy()
    with pytest.raises(ReconstructionError, match="diverged"):
        reconstruct(SCAN, options(object_step=20, probe_step=20), patterns=patterns)
    again = reconstruct(SCAN, options(iterations=2), patterns=patterns)
    np.testing.assert_array_equal(patterns.amplitudes, before)
    np.testing.assert_array_equal(again.object, reconstruct(SCAN, options(iterations=2)).object)


def test_says_what_is_wrong_with_a_start() -> None:
    with pytest.raises(ReconstructionError, match="same margin"):
        reconstruct(SCAN, options(), initial_object=np.ones((10, 10), np.complex64))
    with pytest.raises(ReconstructionError, match="not finite"):
        reconstruct(SCAN, options(), initial_object=np.full(TRUTH.shape, np.nan, np.complex64))


def test_says_what_is_missing() -> None:
    with pytest.raises(ReconstructionError, match="epie engine runs on the CPU"):
        reconstruct(SCAN, options(device="cuda"))
    if not torch.cuda.is_available():
        with pytest.raises(ReconstructionError, match="no CUDA device"):
            reconstruct(SCAN, options(engine="torch", device="cuda"))
    with pytest.raises(ConfigError, match="device"):
        options(device="gpu")


# the real scan, and the command


@pytest.mark.slow
def test_the_real_scan_from_26id() -> None:
    """The project's own mark: R at most 0.025 after 30 iterations of one mode; three modes explain more."""
    with open_scan(fetch("26id-247", progress=False)) as scan:
        one = reconstruct(scan, ReconstructOptions(device="cpu"))
        three = reconstruct(scan, ReconstructOptions(device="cpu", probe_modes=3, iterations=10))
    assert len(one.errors) == 30
    assert one.r_factor <= 0.025
    assert three.r_factor < 0.9 * one.errors[9]
    assert one.phase_image().phase.shape == one.object.shape


@pytest.mark.slow
def test_the_command_writes_reads_and_starts_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, out, figure = tmp_path / "scan.h5", tmp_path / "out.h5", tmp_path / "out.png"
    write_scan(scan, SCAN)
    words = ["reconstruct", str(scan), "-o", str(out), "--engine", "epie", "--json"]
    assert main([*words, "--iterations", "6", "--figure", str(figure)]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["iterations"] == 6
    assert first["complete"]
    assert read_reconstruction(out).r_factor == first["r_factor"]
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert main([*words, "--iterations", "1", "--initial", str(out)]) == 0
    assert json.loads(capsys.readouterr().out)["r_factor"] < 1.2 * first["r_factor"]
    assert main([*words, "--iterations", "0"]) == 2
    assert "iterations" in capsys.readouterr().err


INTERRUPTED = """
import signal, sys
from ptychostream.cli.main import main
from ptychostream.reconstruct.epie import EpieEngine

iterate, calls = EpieEngine.iterate, []

def interrupted(engine, *arguments):
    calls.append(1)
    if len(calls) == 3:
        signal.raise_signal(signal.SIGINT)
    return iterate(engine, *arguments)

EpieEngine.iterate = interrupted
sys.exit(main(["reconstruct", sys.argv[1], "-o", sys.argv[2], "--engine", "epie", "--iterations", "100000"]))
"""


@pytest.mark.slow
def test_ctrl_c_keeps_what_has_been_reached(tmp_path: Path) -> None:
    """In a process of its own: the libraries that other tests load here change what a signal meets."""
    scan, out = tmp_path / "scan.h5", tmp_path / "out.h5"
    write_scan(scan, SCAN)
    command = [sys.executable, "-c", INTERRUPTED, str(scan), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 130, done.stderr
    assert "stopped after" in done.stdout
    assert 3 <= len(read_reconstruction(out).errors) < 100_000
