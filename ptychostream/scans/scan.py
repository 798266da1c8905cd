"""A scan and its reconstruction. The counts are in memory or stay on disk."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.statements.description import Description


@dataclass
class Scan:
    """Diffraction patterns and their positions.

    Attributes
    ----------
    scan_id
        Name of the scan.
    counts
        [N, H, W] integer counts, zero frequency at the centre (H//2, W//2). An array, or counts in a file that are read
        by slices (`counts[i]`, `counts[i:j]`) because they may be larger than memory.
    positions_m
        [N, 2] float64 (x, y) of the probe's centre, metres, canvas axes.
    energy_ev, distance_m, detector_pixel_m
        Geometry. `energy_ev` is the photon energy, or for electrons the accelerating voltage (see geometry).
    radiation
        "photon" or "electron".
    bad_pixels
        [H, W] bool, True for a bad pixel. None if not known.
    probe
        [modes, H, W] complex64 first guess, or None.
    frame_ids
        [N] int64 frame numbers.
    times
        [N] float64 acquisition times, seconds since the POSIX epoch, or None.
    metadata
        Other values of the file, by name.
    said
        All that the file says of itself, and what was given or assumed in its place.
    """

    scan_id: str
    counts: Any
    positions_m: NDArray[np.float64]
    energy_ev: float
    distance_m: float
    detector_pixel_m: float
    radiation: str = "photon"
    bad_pixels: NDArray[np.bool_] | None = None
    probe: NDArray[np.complex64] | None = None
    frame_ids: NDArray[np.int64] | None = None
    times: NDArray[np.float64] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    said: Description = field(default_factory=Description)

    def __len__(self) -> int:
        return len(self.positions_m)


BADLY_EXPLAINED = 2.0
"""A frame is explained badly where its R factor is above so many times the median of the frames."""


@dataclass
class Reconstruction:
    """The result of a reconstruction engine, and the content of a reconstruction file.

    Attributes
    ----------
    object
        [Ho, Wo] complex64 transmission function (row = +y, column = +x).
    probe
        [modes, H, W] complex64.
    origin_m
        (x, y) of the centre of object pixel [0, 0], metres.
    pixel_m
        Size of an object pixel, metres.
    positions_m
        [N, 2] float64 (x, y) of the used frames, metres.
    errors
        [iterations] float64 R factor of each iteration, sum (sqrt(I)-|psi|)^2 / sum I over good pixels.
    coverage
        [Ho, Wo] float32 accumulated probe intensity. 0 where nothing was measured.
    scan_id, engine, provenance
        The origin of the reconstruction.
    frames
        [N] int64 indices of the used frames in the scan; None where it is not known.
    residuals
        [N] float32 R factor of each used frame with the final object and probe; None where it is not known.
    given_m
        [N, 2] float64 positions as they were given, where those were corrected; None: `positions_m` are the given ones.
    """

    object: NDArray[np.complex64]
    probe: NDArray[np.complex64]
    origin_m: tuple[float, float]
    pixel_m: float
    positions_m: NDArray[np.float64]
    errors: NDArray[np.float64]
    coverage: NDArray[np.float32]
    scan_id: str = ""
    engine: str = ""
    provenance: dict[str, Any] = field(default_factory=dict)
    frames: NDArray[np.int64] | None = None
    residuals: NDArray[np.float32] | None = None
    given_m: NDArray[np.float64] | None = None

    @property
    def r_factor(self) -> float:
        """R factor after the last iteration."""
        return float(self.errors[-1])

    def phase_image(self) -> PhaseImage:
        """The object's phase (rad) where the probe was, NaN elsewhere."""
        covered = self.coverage > 0
        phase = np.where(covered, np.angle(self.object), np.nan).astype(np.float32)
        return PhaseImage(phase, self.coverage.astype(np.float32), self.origin_m, self.pixel_m)
