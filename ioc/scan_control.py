"""What is done when a scan begins or ends, as told by a frame, a PV, a pause in the stream or an operator."""

from __future__ import annotations

import time
from collections.abc import Callable

from ptychostream.ioc.handlers import Parts
from ptychostream.ioc.scan.scan_watch import Edge, ScanWatch
from ptychostream.ioc.config.settings import ScanSettings
from ptychostream.frames.scan_boundary import time_name
from ptychostream.plugins.flow.snapshot import Snapshot

NOT_USED, DISCONNECTED, CONNECTED = range(3)
"""States of ScanPVState_RBV."""


class ScanControl:
    """Tells the parts of the IOC when a scan begins and ends.

    Parameters
    ----------
    parts
        The parts of the IOC.
    settings
        What tells one scan from the next.
    aside
        Runs an action in a thread of its own.
    refresh
        Brings the readbacks up to date.
    ask
        Has them brought up to date soon.
    """

    def __init__(
        self,
        parts: Parts,
        settings: ScanSettings,
        aside: Callable[[Callable[[], None]], None],
        refresh: Callable[[], None],
        ask: Callable[[], None],
    ) -> None:
        self._parts = parts
        self._settings = settings
        self._aside = aside
        self._refresh = refresh
        self._ask = ask
        self._spoken = False
        self._watch: ScanWatch | None = None
        if settings.active_pv:
            self._watch = ScanWatch(
                settings.active_pv, settings.active_provider, settings.id_pv, settings.id_provider, self._edge
            )

    def start(self) -> None:
        if self._watch is not None:
            self._watch.start()

    def stop(self) -> None:
        if self._watch is not None:
            self._watch.stop()

    def end_scan(self) -> None:
        """End the scan: returns when its last frame is stitched, the image is served and compared."""
        self._end(self._parts.pipeline.snapshot(), self._refresh)()

    def ended(self, scan: str) -> None:
        """End the scan at once, before any frame of the next; the rest is done in another thread.

        Do nothing where another scan has begun already: the frame that marks the end is late.
        """
        snapshot = self._parts.pipeline.snapshot()
        if snapshot.scan == scan:
            self._aside(self._end(snapshot, self._ask))

    def tick(self) -> None:
        """Time has passed: a pause in the stream may have ended the scan."""
        scan = self._parts.pipeline.tick()
        if scan is not None:
            self.ended(scan)

    @property
    def pv_state(self) -> int:
        """Whether the scan PVs answer."""
        if self._watch is None:
            return NOT_USED
        return CONNECTED if self._watch.connected else DISCONNECTED

    def active(self, snapshot: Snapshot) -> bool:
        """Whether a scan runs: as the scan PV says, else as the pipeline sees it."""
        said = self._watch.active if self._watch is not None else None
        return snapshot.scan_active if said is None else bool(said)

    def _edge(self, edge: Edge, scan: str | None) -> None:
        """In the watch's thread."""
        pipeline, bounds = self._parts.pipeline, self._settings.boundary == "pv"
        first, self._spoken = not self._spoken, True
        current = pipeline.snapshot().scan
        if edge is Edge.END:
            self.ended(current)
        elif edge is Edge.BEGIN and bounds:
            pipeline.start_scan(scan or time_name(time.time()), anew=True)
        elif edge is Edge.BEGIN:
            if not first:  # a scan that ran when this began keeps its canvas
                self._parts.stream.begin_scan()
        elif bounds:
            pipeline.end_scan(current)

    def _end(self, snapshot: Snapshot, show: Callable[[], None]) -> Callable[[], None]:
        """End the current scan; the returned call waits for its last frame, serves the image and compares it."""
        parts = self._parts
        run, written = snapshot.runs[0].number if snapshot.runs else None, parts.positions.written
        ended = parts.pipeline.end_scan(snapshot.scan)

        def finish() -> None:
            ended.result()
            parts.positions.clear(written)
            parts.images.serve()
            if parts.comparison.reference:
                parts.comparison.run(parts.pipeline.stitched(run))
            show()

        return finish
