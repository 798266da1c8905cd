"""The canary: a new model is tried on patterns that have just come, and compared with what the live one made of them.

The live model's patches are kept as they were stitched, so that only the new model is run, aside, before it takes
over. A phase is known up to a constant: one constant over all patches is taken out of the difference.
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
    """A pattern and what a model made of it: counts [H, W], phase [h, w] rad, and the dose scale it was given with."""

    contract: ModelContract
    counts: NDArray[np.float32]
    phase: NDArray[np.float32]
    dose_scale: float


@dataclass(frozen=True)
class Difference:
    """A new model against the live one; `rms` in rad is NaN and `frames` 0 where they could not be compared."""

    rms: float = math.nan
    frames: int = 0
    live: str = ""


class Canary:
    """Keeps recent patterns, and compares. The inference thread notes, the thread that builds an engine compares.

    Parameters
    ----------
    limit
        Rms difference in rad beyond which a new model is refused; 0: none is.
    automatic_dose
        Whether each model gets the dose scale for its own training.
    frames
        Patterns that are kept at most; large ones are fewer, for their memory.
    clock
        Monotonic seconds.

    Attributes
    ----------
    latest
        Of the model that was compared last.
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
        self._tried: list[Sample] = []  # by the one tried last: to compare with where another follows before a pattern
        self._next_s = -math.inf

    def note(self, contract: ModelContract, patches: Patches) -> None:
        """A batch of the live model; its first pattern is kept, some twenty times a second."""
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
        """What is kept of the model of this contract, oldest first."""
        with self._lock:
            found = [sample for sample in (*self._tried, *self._samples) if sample.contract is contract]
        return found[-self._frames :]

    def try_out(self, engine: Engine, new: ModelContract, live: ModelContract | None, strict: bool) -> None:
        """Run a new engine on what is kept, and compare.

        Parameters
        ----------
        engine
            Of the new model, not yet in use.
        new, live
            Contracts; None: nothing is live.
        strict
            Whether the limit counts; a model that ran before, or an operator's other engine, is compared alone.

        Raises
        ------
        ModelError
            The new model gives phases that are not finite, or differs from the live one by more than the limit.
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
    """Whether one pattern means the same to both, and their patches cover the same pixels."""
    same = ("preprocessing", "input_shape", "output_shape")
    pixels = math.isclose(new.object_pixel_m, live.object_pixel_m, rel_tol=1e-6)
    return pixels and all(getattr(new, name) == getattr(live, name) for name in same)


def rms_difference(
    new: NDArray[np.float32], live: NDArray[np.float32], weight: NDArray[np.float32] | None = None
) -> float:
    """Rms of new - live, [n, h, w] rad, weighted by [h, w], after the constant that phases are free in."""
    difference = new.astype(np.float64) - live
    weights = np.broadcast_to(1.0 if weight is None else weight.astype(np.float64), difference.shape)
    mean = np.average(difference, weights=weights)
    return float(np.sqrt(np.average((difference - mean) ** 2, weights=weights)))


def _dose_factor(new: ModelContract, live: ModelContract) -> float:
    """By how much the new model's dose scale is larger."""
    return new.mean_counts / live.mean_counts if new.mean_counts and live.mean_counts else 1.0


def _run(engine: Engine, samples: Sequence[Sample], factor: float) -> NDArray[np.float32]:
    """Phases [n, h, w], in calls of one dose scale each."""
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
