"""Refines the network's phase by the frames of a running scan."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import DivergedError, ReconstructionError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.reconstruct import fft_kernels
from ptychostream.reconstruct.epie import complex_of, planes
from ptychostream.reconstruct.positions import Correction
from ptychostream.reconstruct.probe import complete
from ptychostream.reconstruct.run import DIVERGED
from ptychostream.refine.correction import linear_map
from ptychostream.refine.field import SEEN, RefinedField
from ptychostream.refine.figures import RefineFigures
from ptychostream.refine.frame_store import FrameStore
from ptychostream.refine.halves import HalfSets
from ptychostream.refine.kernels import add_visits, visit
from ptychostream.refine.placing import Placing
from ptychostream.refine.pull import Pull, pull_of
from ptychostream.refine.status import ENGINE, PositionStatus
from ptychostream.scans.scan import Reconstruction

OBJECT_STEP, PROBE_STEP = 0.5, 0.1
FULL_STEPS = 20
"""Passes with the full step where frames share no illumination, and 1 / (1 − shared) times as many where they do; the
step then falls as 1/passes, so that its noise dies out."""
CONVERGED_RAD = 1e-3
"""Converged when a pass moves the phase by less, rms over the measured pixels."""
MOST_PASSES = 100
ALONE_PASSES, PASSES_OF_SHARE = 4, 3000
"""Passes where frames share no illumination, and more with the part that they share. A frame by itself has more than
one solution; where it was left to find one, the image fell below the network's."""
MOST_RESIDUALS = 2000
_CHUNK = 16


class Refiner:
    """Takes frames as they come and refines object and probe within a budget. Used by one thread.

    Parameters
    ----------
    probe
        [modes, n, n] complex, on pixels of `pixel_m`, centred on [n//2, n//2].
    pixel_m
        Size of an object pixel: that of the canvas.
    memory_bytes, max_pixels
        Memory of the frames, and largest object.
    seed
        Of the order of equal frames.

    Attributes
    ----------
    placing
        The state of the positions' correction.

    Raises
    ------
    ReconstructionError
        The probe is zero, not finite, or of a size that the kernel cannot transform.
    """

    def __init__(
        self,
        probe: NDArray[np.complex64],
        pixel_m: float,
        *,
        memory_bytes: int = 256 * 2**20,
        max_pixels: int = 64_000_000,
        seed: int = 0,
    ) -> None:
        if probe.ndim != 3 or probe.shape[1] != probe.shape[2] or not fft_kernels.supports(probe.shape[1]):
            raise ReconstructionError(
                f"a probe of shape {probe.shape}",
                where="refinement",
                remedy=f"refinement takes square frames of {fft_kernels.SIZES}: crop or bin the frames",
            )
        self.size = probe.shape[-1]
        self.pixel_m = pixel_m
        self.store = FrameStore(self.size, memory_bytes)
        self.field = RefinedField(pixel_m, max_pixels)
        self._given = complete(probe, len(probe), 1.0)
        self._probe: NDArray[np.float32] | None = None  # scaled to the frames' counts when the first ones are here
        self._work = np.zeros((2, 2, len(probe), self.size, self.size + fft_kernels.PADDING), np.float32)
        self._twiddles = fft_kernels.twiddles(self.size)
        self._random = np.random.default_rng(seed)
        self._pull = Pull()
        self._until_pass = 0
        self._before: NDArray[np.float32] | None = None
        self._footprint = np.zeros((self.size, self.size), np.float32)
        self._good: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self._r_factors: list[float] = []
        self._passes_before = 0  # of them, those before the last frame came
        self._change_rad = math.nan
        self._steady_from = 0.0  # mean passes that do not count for the step and for the end
        self._passes_then = 0.0  # those that counted when a correction began
        self.placing = Placing(self.store, self.field)
        self.converged = False

    def add(self, counts: NDArray[np.generic], good: NDArray[np.bool_], xy_m: tuple[float, float]) -> bool:
        """Take a frame [n, n], zero frequency at the centre. Returns False where it is left out (see `FrameStore`).

        Raises
        ------
        ReconstructionError
            The frame has another size, has no counts, or its position is too far away.
        """
        if counts.shape != (self.size, self.size):
            raise ReconstructionError(
                f"a frame of {counts.shape}, a probe of {self.size} × {self.size}",
                where="refinement",
                remedy="give the probe of these frames",
            )
        if not np.isfinite(xy_m).all():
            raise ReconstructionError(f"a position of {xy_m}", where="refinement", remedy="check the positions")
        corner = self.field.corners(np.array([xy_m], np.float64), self.size)
        self.field.reserve(corner[0], self.size)
        kept = self.store.left_out
        if not self.store.add(counts, good, xy_m):
            return False
        if self.store.left_out != kept:
            self._count_visits()
        elif self._probe is not None:
            add_visits(self.field.visits, self._local(corner), self._footprint)
        self.converged = False
        self._passes_before = len(self._r_factors)
        self.placing.interrupt()
        return True

    def correct_positions(self, kind: Correction, *, all_here: bool) -> None:
        """Correct the positions from now on, once all frames are here; may be called at any time, also again.

        Parameters
        ----------
        kind
            See `reconstruct.options.ReconstructOptions`; "none" moves them back to where they were given.
        all_here
            Whether the scan is over. A frame that comes later ends a correction; it begins again after that.
        """
        moved_back = self.placing.choose(kind)
        self.placing.all_here = all_here
        self._count_visits()
        self.converged &= not (moved_back or (all_here and self.placing.is_unsettled))

    def guide(self, image: PhaseImage) -> None:
        """Take the network's canvas as it is now.

        Raises
        ------
        ReconstructionError
            Its pixels have another size.
        """
        if not math.isclose(image.pixel_m, self.pixel_m, rel_tol=1e-9):
            raise ReconstructionError(
                f"a canvas of {image.pixel_m:.6g} m pixels, a probe of {self.pixel_m:.6g} m",
                where="refinement",
                remedy="give a probe of the energy and geometry of this scan",
            )
        self.field.guide(image)

    def work(self, seconds: float) -> int:
        """Use frames for about `seconds`; stop early when converged. Returns how many were used.

        Raises
        ------
        DivergedError
            The iterations diverge. Object and probe are those of the last good pass.
        """
        used, until = 0, time.perf_counter() + seconds
        while len(self.store) and not self.converged and time.perf_counter() < until:
            used += self._use(_CHUNK)
        return used

    def passes(self, number: int) -> None:
        """Use frames until each was used `number` times more on average, or until converged. Raises DivergedError."""
        left = number * len(self.store)
        while left > 0 and not self.converged:
            left -= self._use(min(_CHUNK, left))

    def image(self) -> PhaseImage:
        """The refined phase, trimmed to the measured pixels. `weight` is the visits."""
        return self.field.shown(lambda real, imaginary: np.arctan2(imaginary, real))

    def amplitude(self) -> PhaseImage:
        """The refined modulus on the pixels of `image`; 1 where the sample absorbs nothing."""
        return self.field.shown(np.hypot)

    def reconstruction(self, scan_id: str, provenance: dict[str, Any]) -> Reconstruction:
        """The result as a reconstruction, with the R factor of each pass as its errors."""
        image, amplitude = self.image(), self.amplitude()
        measured = np.isfinite(image.phase)
        corrected = bool((self.store.positions_m != self.store.given_m).any())
        map_ = linear_map(self.store).report() if corrected else None
        object_ = np.where(measured, amplitude.phase * np.exp(1j * image.phase), 1).astype(np.complex64)
        return Reconstruction(
            object=object_,
            probe=self.probe,
            origin_m=image.origin_m,
            pixel_m=self.pixel_m,
            positions_m=self.store.positions_m[: len(self.store)].copy(),
            errors=np.array(self._r_factors),
            coverage=image.weight / max(float(image.weight.max(initial=0)), 1e-12),
            scan_id=scan_id,
            engine=ENGINE,
            provenance={**provenance, "passes_of_all": len(self._r_factors) - self._passes_before, "positions": map_},
            residuals=self.store.r_factors().astype(np.float32),
            given_m=self.store.given_m[: len(self.store)].copy() if corrected else None,
        )

    def residual_map(self) -> NDArray[np.float64]:
        """[3, n] x and y (m) of frames, evenly chosen where there are too many, and their R factor / the median."""
        return self.store.residual_map(MOST_RESIDUALS)

    def half_sets(self) -> HalfSets:
        """Two objects to be made of every second frame each, with the probe as it is now. Needs a frame in use."""
        assert self._probe is not None
        store, area = self.store, self.field
        corners = self._local(area.corners(store.positions_m[: len(store)], self.size))
        return HalfSets(store.amplitudes[: len(store)], corners, area.box, self.pixel_m, self._probe, self._pull)

    @property
    def probe(self) -> NDArray[np.complex64]:
        """[modes, n, n] the probe as it is now."""
        return self._given if self._probe is None else complex_of(self._probe)

    def figures(self) -> RefineFigures:
        """The figures as they are now."""
        number = len(self.store)
        passes = self.store.passes[:number]
        seen = self.field.visits[:: self._stride, :: self._stride]
        seen = seen[seen > SEEN * seen.max()] if seen.size and seen.max() > 0 else seen[:0]
        trend = self._r_factors[-1] - self._r_factors[-2] if len(self._r_factors) > 1 else math.nan
        return RefineFigures(
            frames=number,
            left_out=self.store.left_out,
            memory_bytes=self.store.nbytes + self.field.nbytes,
            passes=float(passes.mean()) if number else 0.0,
            least_passes=int(passes.min()) if number else 0,
            r_factor=self.store.r_factor(self.store.residuals),
            r_trend=trend,
            visits=float(np.median(seen)) if seen.size else 0.0,
            change_rad=self._change_rad,
            pull=self._pull,
            converged=self.converged and not self.placing.is_unsettled,
            positions=self.placing.figures,
        )

    @property
    def _stride(self) -> int:
        return max(1, int(np.sqrt(self.field.visits.size / 250_000)))

    @property
    def _full_steps(self) -> float:
        """Passes with the full step."""
        return FULL_STEPS / max(1.0 - self._pull.shared, 0.1)

    def _use(self, number: int) -> int:
        if self._probe is None:
            self._probe = self._first_probe()
            self._until_pass = len(self.store)
            self._count_visits()
        if self.placing.searches:
            if self.placing.go_on():
                self._count_visits()
            return 0
        store, area = self.store, self.field
        chosen = store.next(min(number, max(self._until_pass, 1)), self._random)
        passes = float(store.passes[: len(store)].mean()) - self._steady_from
        falls = 1.0 if self.placing.is_busy else min(1.0, self._full_steps / max(passes, 1.0))
        step = OBJECT_STEP * falls
        follows = min(1.0, 2 * self._pull.shared) * step / OBJECT_STEP
        steps = np.array([step, PROBE_STEP * follows], np.float32)
        pulls = np.array([self._pull.phase, self._pull.modulus], np.float32)
        corners = self._local(area.corners(store.positions_m[: len(store)], self.size))
        visit(
            chosen, store.amplitudes, corners, area.object, area.prior, area.visits, self._probe, self._work,
            self._twiddles, steps, pulls, store.residuals,
            self.placing.shifts,
        )  # fmt: skip
        store.noted(chosen)
        self._until_pass -= len(chosen)
        if self._until_pass <= 0:
            self._end_pass(passes)
        return len(chosen)

    def _end_pass(self, passes: float) -> None:
        """What is done once in a pass: judge it, and find the pull for the next one."""
        store, area = self.store, self.field
        assert self._probe is not None
        self._until_pass = len(store)
        self._count_visits()
        r_factor = store.r_factor(store.residuals)
        self._r_factors.append(r_factor)
        if not np.isfinite(r_factor) or not np.isfinite(self._probe).all() or r_factor > DIVERGED:
            if self.placing.is_busy:
                self._place(math.nan)
                return
            if self._good is not None and self._good[0].shape == area.object.shape:
                area.object[:], self._probe[:] = self._good
                self._count_visits()
            raise DivergedError(
                f"diverged: R = {r_factor:.3g}",
                where="refinement",
                remedy="check positions, probe and energy; the last good image is kept",
            )
        stride = self._stride
        now = area.object[:, ::stride, ::stride]
        if self._before is not None and self._before.shape == now.shape:
            a, b = self._before
            moved = np.arctan2(now[1] * a - now[0] * b, now[0] * a + now[1] * b)
            weight = area.visits[::stride, ::stride]
            self._change_rad = float(np.sqrt((weight * moved * moved).sum() / max(float(weight.sum()), 1e-12)))
            least = float(store.passes[: len(store)].min())
            most = min(MOST_PASSES, ALONE_PASSES + PASSES_OF_SHARE * self._pull.shared)
            self.converged = (self._change_rad < CONVERGED_RAD and least >= 3) or passes >= most
        self._before = now.copy()
        self._good = area.object.copy(), self._probe.copy()
        self._pull = pull_of(area.object, area.prior, area.visits, r_factor, store.r_factor(store.early), self._pull)
        self._place(r_factor)

    def _place(self, r_factor: float) -> None:
        """Correct the positions, after a pass."""
        assert self._probe is not None
        was_busy = self.placing.is_busy
        probe = self.placing.after_pass(self._probe, self._first_probe, r_factor)
        if probe is not None:
            self._probe = probe
            self._good = self._before = None
            self._count_visits()
        passes = float(self.store.passes[: len(self.store)].mean())
        if self.placing.is_busy and not was_busy:
            self._passes_then = passes - self._steady_from
        if was_busy and not self.placing.is_busy:
            self._passes_before = len(self._r_factors)
            given_up = self.placing.figures.status == PositionStatus.GIVEN_UP
            done = self._passes_then if given_up else self._full_steps  # the passes of a correction had the full step
            self._steady_from = max(0.0, passes - done)
            self.converged = False
        if self.placing.is_unsettled and self.placing.all_here:
            self.converged = False

    def _first_probe(self) -> NDArray[np.float32]:
        """[2, modes, n, n] the given one, scaled to the frames' counts."""
        power = float(self.store.power[: len(self.store)].mean())
        return planes(complete(self._given, len(self._given), power))

    def _count_visits(self) -> None:
        if self._probe is None:
            return
        intensity = (self._probe**2).sum(axis=(0, 1))
        self._footprint = (intensity / intensity.max()).astype(np.float32)
        self.field.visits[:] = 0
        corners = self._local(self.field.corners(self.store.positions_m[: len(self.store)], self.size))
        add_visits(self.field.visits, corners, self._footprint)

    def _local(self, corners: NDArray[np.int64]) -> NDArray[np.int64]:
        return corners - np.array([self.field.box.top, self.field.box.left])


def warm_up() -> None:
    """Compile the kernels, or load them from the cache."""
    refiner = Refiner(np.ones((1, 16, 16), np.complex64), 1.0, memory_bytes=4096)
    frame = np.ones((16, 16), np.uint16)
    for place in range(4):
        refiner.add(frame, frame > 0, (float(place), 0.0))
    refiner.passes(2)
    refiner.add(frame, frame > 0, (4.0, 0.0))
