"""Samples all figures twice per second in a separate thread while the soak runs."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ptychostream.benchmarks.soak.soak_stage import Stage

PERIOD_S = 0.5
TIMEOUT_S = 1.0


@dataclass(frozen=True)
class Sample:
    """The figures at one moment.

    Attributes
    ----------
    time_s
        POSIX time.
    life
        Number of the IOC's process.
    sent
        Sent frames of all scans.
    received, stitched, pending, dropped, error
        Counts of this life. `error` is the deviation from the conservation law. None if the IOC did not answer.
    rss, descriptors, threads
        Resident bytes, open file descriptors and threads of the IOC's process. 0 if it has ended.
    images
        Number of images that the client has received.
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
    """A context manager that samples the figures. They may be read at any time.

    Parameters
    ----------
    stage
        The processes of the soak.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._samples: list[Sample] = []
        self.violations: list[tuple[float, int]] = []
        """Violations of the conservation law: time and deviation."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    @property
    def samples(self) -> list[Sample]:
        """All samples so far."""
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
