"""Looks at everything twice a second while the soak runs, from a thread of its own."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ptychostream.benchmarks.soak.soak_stage import Stage

PERIOD_S = 0.5
TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Sample:
    """One look.

    Attributes
    ----------
    time_s
        POSIX time.
    life
        Number of the IOC's process.
    sent
        Frames sent in all.
    received, stitched, pending, dropped, error
        Of this life, `error` what the conservation law is off by; None where the IOC did not answer.
    rss, descriptors, threads
        Of the IOC's process: resident bytes, open file descriptors, threads; 0 where it is gone.
    images
        Images that the client has received.
    """

    time_s: float
    life: int
    sent: int
    received: int | None
    stitched: int | None
    pending: int | None
    dropped: int | None
    error: int | None
    rss: int
    descriptors: int
    threads: int
    images: int


class Watch:
    """A context manager that samples; may be read at any time.

    Parameters
    ----------
    stage
        What is looked at.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._samples: list[Sample] = []
        self.violations: list[tuple[float, int]] = []
        """When the law did not hold, and by how much."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def samples(self) -> list[Sample]:
        """All looks so far."""
        return list(self._samples)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(PERIOD_S):
            sample = self._look()
            self._samples.append(sample)
            if sample.error:
                self.violations.append((sample.time_s, sample.error))

    def _look(self) -> Sample:
        stage = self._stage
        received = stitched = pending = dropped = error = None
        try:
            figures = stage.figures(TIMEOUT_S)
            received, stitched, pending = figures.received, figures.stitched, figures.pending
            dropped = sum(figures.dropped.values())
            error = figures.error or int(figures.law_broken)
        except TimeoutError:
            pass
        ioc = stage.ioc
        return Sample(
            time.time(), stage.lives, stage.journal.total, received, stitched, pending, dropped, error,
            ioc.memory("VmRSS"), ioc.descriptors, ioc.threads, int(stage.image_client.latest().get("images", 0)),
        )  # fmt: skip
