"""The canary: a new model is run on recent patterns, and its phases are compared with those of the live model.

The patches of the live model are kept as they were stitched, so that only the new model has to run. It runs before it
replaces the live one. A phase is known up to a constant, so one constant for all patches is subtracted from the
difference.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychostream.model.contract import ModelContract
from ptychostream.errors import ModelError
from ptychostream.plugins.engines import Engine
from ptychostream.plugins.inference import Patches

FRAMES = 32
_BYTES = 64_000_000
_EVERY_S = 0.05


@dataclass(frozen=True)
class Sample:
    """A pattern and a model's result for it: counts [H, W], phase [h, w] in rad, and the dose scale that was used."""

    contract: ModelContract
    counts: NDArray[np.float32]
    phase: NDArray[np.float32]
    dose_scale: float


@dataclass(frozen=True)
class Difference:
    """Difference of a new model from the live one. `rms` in rad is NaN and `frames` is 0 if they were not compared."""

    rms: float = math.nan
    frames: int = 0
    live: str = ""


class Canary:
    """Keeps recent patterns and compares models. The inference thread calls `note`, the building thread `try_out`.

    Parameters
    ----------
    limit
        A new model with a larger rms difference, in rad, is refused. 0: no limit.
    automatic_dose
        Tells whether the dose scale of each model follows from its training.
    frames
        The largest number of kept patterns. It is smaller for large patterns, to limit memory.
    clock
        Monotonic seconds.

    Attributes
    ----------
    latest
        The difference of the model that was compared last.
    """

    def __init__(
        self,
        limit: float = 0.0,
        automatic_dose: Callable[[], bool] = lambda: False,
        frames: int = FRAMES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limit = limit
        self.latest = Difference()
        self._automatic_dose = automatic_dose
        self._frames = frames
        self._clock = clock
        self._lock = threading.Lock()
        self._samples: deque[Sample] = deque()
        self._tried: list[
            Sample
        ] = []  # of the model that was tried last, for a comparison before the next pattern arrives
        self._next_s = -math.inf

    def note(self, contract: ModelContract, patches: Patches) -> None:
        """Take a batch of the live model. Its first pattern is kept, at most twenty times a second."""
        now = self._clock()
        if now < self._next_s or not len(patches.counts):
            return
        self._next_s = now + _EVERY_S
        sample = Sample(contract, patches.counts[0].copy(), patches.phase[0].copy(), patches.dose_scale)
        with self._lock:
            self._samples.append(sample)
            most = max(1, min(self._frames, _BYTES // (sample.counts.nbytes + sample.phase.nbytes)))
            while len(self._samples) > most:
                self._samples.popleft()

    def samples(self, contract: ModelContract) -> list[Sample]:
        """The kept samples of the model with this contract, the oldest first."""
        with self._lock:
            found = [sample for sample in (*self._tried, *self._samples) if sample.contract is contract]
        return found[-self._frames :]

    def try_out(self, engine: Engine, new: ModelContract, live: ModelContract | None, strict: bool) -> None:
        """Run a new engine on the kept patterns and compare.

        Parameters
        ----------
        engine
            The engine of the new model. It is not in use yet.
        new, live
            The contracts of both models. None: no model is live.
        strict
            Whether the limit applies. It does not for a model that ran before, or for an engine that an operator chose.

        Raises
        ------
        ModelError
            The new model gives phases that are not finite, or its difference exceeds the limit.
        """
        self.latest = Difference()
        if live is None or not comparable(new, live):
            return
        samples = self.samples(live)
        if not samples:
            return
        factor = _dose_factor(new, live) if self._automatic_dose() else 1.0
        phases = _run(engine, samples, factor)
        bad = int(np.count_nonzero(~np.isfinite(phases).all(axis=(1, 2))))
        if bad:
            raise ModelError(
                f"gives phases that are not finite for {bad} of {len(samples)} recent patterns",
                where=new.name,
                remedy="train it on patterns like these",
            )
        weight = new.patch_weight.unpack() if new.patch_weight is not None else None
        rms = rms_difference(phases, np.stack([sample.phase for sample in samples]), weight)
        self.latest = Difference(rms, len(samples), live.name)
        if strict and self.limit and not rms <= self.limit:
            raise ModelError(
                f"differs by {rms:.3g} rad from {live.name} on {len(samples)} recent patterns, "
                f"CanaryLimit is {self.limit:.3g} rad",
                where=new.name,
                remedy="raise CanaryLimit if the new model is the better one",
            )
        made = [
            Sample(new, sample.counts, phase, factor * sample.dose_scale)
            for sample, phase in zip(samples, phases, strict=True)
        ]
        with self._lock:
            self._tried = [*(sample for sample in self._tried if sample.contract is live), *made]


def comparable(new: ModelContract, live: ModelContract) -> bool:
    """Whether both models read a pattern in the same way, and their patches have the same pixels."""
    same = ("preprocessing", "input_shape", "output_shape")
    pixels = math.isclose(new.object_pixel_m, live.object_pixel_m, rel_tol=1e-6)
    return pixels and all(getattr(new, name) == getattr(live, name) for name in same)


def rms_difference(
    new: NDArray[np.float32], live: NDArray[np.float32], weight: NDArray[np.float32] | None = None
) -> float:
    """Rms of new - live, [n, h, w] in rad, weighted by [h, w], without the constant up to which a phase is known."""
    difference = new.astype(np.float64) - live
    weights = np.broadcast_to(1.0 if weight is None else weight.astype(np.float64), difference.shape)
    mean = np.average(difference, weights=weights)
    return float(np.sqrt(np.average((difference - mean) ** 2, weights=weights)))


def _dose_factor(new: ModelContract, live: ModelContract) -> float:
    """The ratio of the new model's dose scale to the live model's."""
    return new.mean_counts / live.mean_counts if new.mean_counts and live.mean_counts else 1.0


def _run(engine: Engine, samples: Sequence[Sample], factor: float) -> NDArray[np.float32]:
    """Phases [n, h, w]. Each call of the engine has one dose scale."""
    phases = []
    start = 0
    while start < len(samples):
        scale = samples[start].dose_scale
        stop = start
        while stop < min(len(samples), start + engine.batch) and samples[stop].dose_scale == scale:
            stop += 1
        counts = np.stack([sample.counts for sample in samples[start:stop]])
        phases.append(engine.infer(counts, factor * scale).copy())
        start = stop
    return np.concatenate(phases)
