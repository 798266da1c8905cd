"""Simulate far-field diffraction patterns of a scan over a sample with a counting detector."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import fft

from ptychostream.config import Settings
from ptychostream.errors import GeometryError
from ptychostream.imaging.geometry import object_pixel_m, wavelength_m
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.sim.probe import ZonePlate, make_probe
from ptychostream.sim.samples import Film, etch_depth
from ptychostream.sim.scans import Trajectory, jitter, trajectory

MARGIN = 2
"""Object pixels around the outermost patch."""

MAX_OBJECT_PIXELS = 64_000_000


class Simulation(Settings):
    """One simulated scan. Lengths are in metres.

    Attributes
    ----------
    sample, sample_seed
        Kind of the sample (`samples.SAMPLES`), and its seed. The same seed gives the same plane.
    trajectory, frames, step_m, centre_m
        The scan (`scans.TRAJECTORIES`) around `centre_m` (x, y). Each frame covers step_m² of the sample.
    position_error_m
        Rms distance between the reported and the true position of the probe.
    fly_samples
        Number of positions over which an exposure of a fly scan is averaged.
    dose
        Photons per frame that hit the sample.
    dead_pixels, hot_pixels
        Number of bad pixels. A dead pixel has the dtype's maximum, a hot one has `hot_counts` more counts.
    energy_ev, distance_m, detector_pixel_m
        Photon energy, distance from sample to detector, pixel of the detector.
    size
        Height and width of a frame, pixels.
    dtype
        Type of the counts.
    hot_counts
        Counts that a hot pixel has more than its neighbours.
    seed
        Seed of the photon noise, the position error and the bad pixels.
    """

    sample: str = "shapes"
    sample_seed: int = Field(0, ge=0)
    film: Film = Film()
    optics: ZonePlate = ZonePlate()
    trajectory: str = "spiral"
    frames: int = Field(963, ge=1)
    step_m: float = Field(50e-9, gt=0)
    centre_m: tuple[float, float] = (0.0, 0.0)
    position_error_m: float = Field(0.0, ge=0)
    fly_samples: int = Field(5, ge=1)
    energy_ev: float = Field(10_000.0, gt=0)
    distance_m: float = Field(0.9, gt=0)
    detector_pixel_m: float = Field(75e-6, gt=0)
    size: int = Field(64, ge=8)
    dtype: Literal["uint8", "uint16", "uint32"] = "uint16"
    dose: float = Field(1e6, gt=0)
    dead_pixels: int = Field(0, ge=0)
    hot_pixels: int = Field(0, ge=0)
    hot_counts: float = Field(2e4, gt=0)
    seed: int = Field(0, ge=0)

    @property
    def pixel_m(self) -> float:
        """Size of an object pixel, metres."""
        return object_pixel_m(self.energy_ev, self.distance_m, self.detector_pixel_m, self.size)


@dataclass(frozen=True)
class Bench:
    """Everything that `expose` needs: object, probe, positions and bad pixels.

    Attributes
    ----------
    object
        [Ho, Wo] complex64 transmission function.
    probe
        [H, W] complex64, Σ|probe|² = photons per frame.
    origin_m
        (x, y) of the centre of object pixel [0, 0].
    path
        True positions and motion.
    said_m
        [N, 2] reported positions.
    dead, hot
        [H, W] bool.
    """

    settings: Simulation
    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    origin_m: tuple[float, float]
    path: Trajectory
    said_m: NDArray[np.float64]
    dead: NDArray[np.bool_]
    hot: NDArray[np.bool_]


def set_up(settings: Simulation, points_m: NDArray[np.float64] | None = None, like: Bench | None = None) -> Bench:
    """Make object, probe and positions of a simulation.

    Parameters
    ----------
    settings
        The simulation.
    points_m
        [frames, 2] (x, y) of the exposures, metres, in place of the trajectory around `centre_m`.
    like
        A bench with the same detector: its bad pixels are taken. None: they are drawn.

    Raises
    ------
    ConfigError, GeometryError
        Sample or trajectory are unknown, the beam does not fit, the scan is too wide, or there are more bad pixels than
        pixels.
    """
    pixel_m, size = settings.pixel_m, settings.size
    random = np.random.default_rng([settings.seed, 1])
    if points_m is None:
        nominal = trajectory(settings.trajectory, settings.frames, settings.step_m)
        said_m = nominal.positions_m + np.array(settings.centre_m)
    else:
        nominal, said_m = Trajectory(points_m, np.zeros_like(points_m)), points_m
    path = Trajectory(jitter(said_m, settings.position_error_m, random), nominal.motion_m)
    reach_m = (size // 2 + MARGIN) * pixel_m + np.abs(path.motion_m).max(axis=0) / 2
    first, last = path.positions_m.min(axis=0) - reach_m, path.positions_m.max(axis=0) + reach_m
    width, height = np.ceil((last - first) / pixel_m).astype(int) + 1
    if width * height > MAX_OBJECT_PIXELS:
        raise GeometryError(
            f"a scan over {width * pixel_m:.3g} × {height * pixel_m:.3g} m needs {width}×{height} object pixels",
            where="scan",
            remedy=f"take a smaller step or fewer frames: at most {MAX_OBJECT_PIXELS} pixels",
        )
    x_m, y_m = first[0] + np.arange(width) * pixel_m, first[1] + np.arange(height) * pixel_m
    depth = etch_depth(settings.sample, x_m, y_m, settings.sample_seed)
    probe = make_probe(settings.optics, wavelength_m(settings.energy_ev), pixel_m, (size, size))
    if settings.dead_pixels + settings.hot_pixels > size * size:
        raise GeometryError(
            f"{settings.dead_pixels} dead and {settings.hot_pixels} hot of {size * size} pixels",
            where="detector",
            remedy="give fewer bad pixels",
        )
    bad = random.permutation(size * size)[: settings.dead_pixels + settings.hot_pixels]
    dead, hot = np.zeros((2, size * size), np.bool_)
    dead[bad[: settings.dead_pixels]] = True
    hot[bad[settings.dead_pixels :]] = True
    return Bench(
        settings=settings,
        object=settings.film.transmission(depth, wavelength_m(settings.energy_ev)),
        probe=probe * np.float32(np.sqrt(settings.dose)),
        origin_m=(float(x_m[0]), float(y_m[0])),
        path=path,
        said_m=said_m,
        dead=dead.reshape(size, size) if like is None else like.dead,
        hot=hot.reshape(size, size) if like is None else like.hot,
    )


def intensities(bench: Bench, first: int, last: int) -> NDArray[np.float32]:
    """Expected photons [last - first, H, W] of the frames first … last - 1, zero frequency at [H//2, W//2].

    The probe is shifted by the fraction of a pixel, and the object is taken at whole pixels, because a shift of both
    together changes no intensity. An exposure of a fly scan is the mean over `fly_samples` positions.
    """
    settings, pixel_m = bench.settings, bench.settings.pixel_m
    size = settings.size
    places = np.linspace(-0.5, 0.5, 2 * settings.fly_samples + 1)[1::2] if np.any(bench.path.motion_m) else np.zeros(1)
    spectrum = fft.fft2(bench.probe)
    fy, fx = fft.fftfreq(size)[:, None], fft.fftfreq(size)[None, :]
    mean = np.zeros((last - first, size, size), np.float32)
    for place in places:
        points = bench.path.positions_m[first:last] + place * bench.path.motion_m[first:last]
        at = (points - np.array(bench.origin_m)) / pixel_m
        whole = np.rint(at).astype(int)
        dx, dy = (at - whole).T[:, :, None, None]
        ramp = np.exp(-2j * np.pi * (dy * fy + dx * fx)).astype(np.complex64)
        exit_wave = fft.ifft2(spectrum * ramp, workers=-1)
        for wave, (column, row) in zip(exit_wave, whole - size // 2, strict=True):
            wave *= bench.object[row : row + size, column : column + size]
        far = fft.fft2(exit_wave, norm="ortho", workers=-1)
        mean += far.real**2 + far.imag**2
    return fft.fftshift(mean / np.float32(len(places)), axes=(1, 2))


def expose(bench: Bench, chunk: int = 64) -> Iterator[tuple[NDArray[np.unsignedinteger], NDArray[np.float32]]]:
    """Yield the scan in chunks: counts [n, H, W] with photon noise, and expected photons without it.

    The largest count is one below the dtype's maximum, which marks dead pixels.
    """
    settings = bench.settings
    dtype = np.dtype(settings.dtype)
    limit = np.iinfo(dtype).max
    random = np.random.default_rng([settings.seed, 2])
    for first in range(0, settings.frames, chunk):
        expected = intensities(bench, first, min(first + chunk, settings.frames))
        counts = random.poisson(expected + np.float32(settings.hot_counts) * bench.hot)
        frames = np.minimum(counts, limit - 1).astype(dtype)
        frames[:, bench.dead] = limit
        yield frames, expected


def simulate_scan(
    settings: Simulation,
    scan_id: str = "",
    on_progress: Callable[[int, int], None] | None = None,
    bench: Bench | None = None,
) -> tuple[Scan, Reconstruction]:
    """Simulate a complete scan in memory, with its truth.

    Parameters
    ----------
    settings
        The scan. The same settings give the same counts.
    scan_id
        Id of the scan. Empty: made from sample and seeds.
    on_progress
        Called with (frames done, number of frames).
    bench
        The scan as it was set up. None: it is set up from `settings`.

    Returns
    -------
    The scan as a detector records it, and the truth in the form of a reconstruction: object, probe (Σ|probe|² = dose),
    true positions, and in `errors` the R factor of photon noise alone.
    """
    bench = set_up(settings) if bench is None else bench
    size = settings.size
    good = ~(bench.dead | bench.hot)
    counts = np.empty((settings.frames, size, size), settings.dtype)
    done, difference, total = 0, 0.0, 0.0
    for frames, expected in expose(bench):
        counts[done : done + len(frames)] = frames
        measured = np.sqrt(frames[:, good], dtype=np.float32)
        difference += float(np.abs(measured - np.sqrt(expected[:, good])).sum(dtype=np.float64))
        total += float(measured.sum(dtype=np.float64))
        done += len(frames)
        if on_progress is not None:
            on_progress(done, settings.frames)
    name = scan_id or f"{settings.sample}-{settings.sample_seed}-{settings.trajectory}-{settings.seed}"
    scan = Scan(
        scan_id=name,
        counts=counts,
        positions_m=bench.said_m,
        energy_ev=settings.energy_ev,
        distance_m=settings.distance_m,
        detector_pixel_m=settings.detector_pixel_m,
        bad_pixels=~good,
        probe=bench.probe[None],
        frame_ids=np.arange(settings.frames, dtype=np.int64),
        metadata={"simulation": settings.model_dump_json()},
    )
    return scan, truth_of(bench, name, difference / total if total else 0.0)


def truth_of(bench: Bench, name: str, r_factor: float) -> Reconstruction:
    """The truth of a scan in the form of a reconstruction; `r_factor` is that of photon noise alone."""
    return Reconstruction(
        object=bench.object,
        probe=bench.probe[None],
        origin_m=bench.origin_m,
        pixel_m=bench.settings.pixel_m,
        positions_m=bench.path.positions_m,
        errors=np.array([r_factor]),
        coverage=_coverage(bench),
        scan_id=name,
        engine="simulation",
        provenance={"simulation": bench.settings.model_dump()},
    )


def _coverage(bench: Bench) -> NDArray[np.float32]:
    """[Ho, Wo] accumulated probe intensity of each object pixel, with positions rounded to whole pixels."""
    size = bench.settings.size
    seen = np.zeros(bench.object.shape, np.float32)
    intensity = np.abs(bench.probe) ** 2
    whole = np.rint((bench.path.positions_m - np.array(bench.origin_m)) / bench.settings.pixel_m).astype(int)
    for column, row in whole - size // 2:
        seen[row : row + size, column : column + size] += intensity
    return seen
