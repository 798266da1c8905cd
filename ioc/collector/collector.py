"""The pipeline of an IOC whose frames are stitched by consumers elsewhere: their canvases and figures, added up.

It is a `Pipeline` to the rest of the IOC. Frames never come here; what comes are the consumers' reports.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace

from ptychostream.cluster.orders import Orders
from ptychostream.errors import ConfigError
from ptychostream.frames.frames import Frame
from ptychostream.ioc.collector.collector_book import Book, Consumer, Group
from ptychostream.ioc.collector.collector_links import Links
from ptychostream.ioc.collector.collector_slot import contract_of
from ptychostream.ioc.collector.collector_sums import (
    ClusterFigures,
    ConsumersTimes,
    Zero,
    add_up,
    describe_consumers,
    lies_in,
    merge_canvases,
)
from ptychostream.ioc.config.settings import ClusterInput
from ptychostream.plugins.consumer.consumer_report import Report
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import Snapshot
from ptychostream.positions.positions import AttributePositions, PositionSource

log = logging.getLogger(__name__)

_TICK_S = 0.1
_SEARCH_S = 2.0
_END_S = 60.0
_IN_FILE = "set it in the cluster's configuration, section consumer, and restart the consumers"


@dataclass
class _End:
    """Somebody waits for the end of a run of a scan."""

    group: Group
    number: int
    deadline: float
    done: Future[int]


@dataclass
class _Gaps:
    """In the place of a run's frame ids: these are counted in the book."""

    missed: int = 0
    disordered: int = 0


class Collector(Pipeline):
    """Adds up what consumers report.

    Parameters
    ----------
    settings
        Which consumers.
    pipeline
        Of it, the limit of the canvas.
    scans
        Of it, how many finished canvases are kept.
    prefix
        Of the IOC: `$(P)` in the consumers' channels.
    on_end
        Called with a scan's id when a consumer has had its last frame.
    on_change
        Called when the orders changed: they are to be published at once.
    """

    def __init__(
        self,
        settings: ClusterInput,
        pipeline: PipelineSettings,
        scans: BoundarySettings,
        prefix: str,
        on_end: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self._orders = Orders(session=uuid.uuid4().hex[:12])
        super().__init__(pipeline, AttributePositions("", ""), scans)
        self.times = self._worst = ConsumersTimes()
        self.on_reports: Callable[[list[Report]], None] = lambda _: None
        """Told the newest report of every live consumer, ten times a second."""
        self._cluster = settings
        self._max_pixels = pipeline.max_canvas_pixels
        self._on_end = on_end
        self._on_change = on_change
        self._book_lock = threading.Lock()  # guards the book, the orders and what waits
        self._book = Book(settings.consumers, settings.dead_after_s)
        self._told = self._orders  # as they were last published
        self._ends: list[_End] = []
        self._announced: Group | None = None
        self._zero = Zero()
        self._version = 0
        self._refused = ""
        self._sums: dict[str, object] = {}
        self._cluster_figures = ClusterFigures(expected=len(settings.consumers))
        self._newest: Report | None = None
        channels = {number: settings.channel(number, prefix) for number in settings.consumers}
        self._links = Links(channels, self._take, self._connect)
        self._closing = threading.Event()
        self._ticker = threading.Thread(target=self._watch, name="collector", daemon=True)

    @property
    def orders(self) -> Orders:
        """What the consumers are told."""
        return self._orders

    @property
    def cluster(self) -> ClusterFigures:
        """Of the consumers."""
        return self._cluster_figures

    @property
    def newest(self) -> Report | None:
        """The report that came last with a frame."""
        return self._newest

    @property
    def dose_scale(self) -> float:
        """Factor by which the consumers' models are told that their counts were scaled."""
        return self._orders.dose_scale

    @dose_scale.setter
    def dose_scale(self, scale: float) -> None:
        if scale != self._orders.dose_scale:
            self._orders = self._orders.model_copy(update={"dose_scale": scale})

    # The pipeline's face

    def start(self) -> None:
        """Listen to the consumers."""
        self._links.start()
        self._ticker.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Listen no more; the consumers go on."""
        self._closing.set()
        if self._ticker.ident is not None:
            self._ticker.join(timeout_s)
        self._links.stop()
        return not self._ticker.is_alive()

    def submit(self, frame: Frame) -> None:
        """Refused: frames go to the consumers."""
        raise ConfigError(f"frame {frame.id} came to the collector", where="cluster", remedy="subscribe the consumers")

    def set_positions(self, positions: PositionSource) -> None:  # noqa: ARG002
        """Refused: the consumers have a source of their own. Raises ConfigError."""
        raise ConfigError("the consumers' positions are not changed from here", where="positions", remedy=_IN_FILE)

    def configure(self, **changes: object) -> PipelineSettings:
        """Refuse a change: the consumers have settings of their own. Raises ConfigError."""
        if lies_in(changes, self._settings.model_dump()):
            return self._settings
        what = f"{', '.join(changes)} of the consumers is not changed from here"
        raise ConfigError(what, where="pipeline", remedy=_IN_FILE)

    def tick(self) -> str | None:
        """Pauses in the stream end no scan of a cluster: no consumer sees the whole of it."""
        return None

    def start_scan(self, scan: str, anew: bool = False) -> None:
        """Frames that name no scan belong to `scan` from here on, in every consumer; a run begins."""
        with self._book_lock:
            current = self._book.current
            if not anew and current is not None and current.scan == scan and not current.ended:
                return
            begun = self._orders.scans_begun + 1
            self._order(unnamed_scan=scan, scans_begun=begun, ended="", settled="", settled_time=0.0)
        self._on_change()

    def end_scan(self, scan: str) -> Future[int]:
        """Tell every consumer that the scan is over.

        Returns
        -------
        Future
            The number of patches on the canvas, when no live consumer holds a frame of it any more, and no id is
            missing or nothing has come for a while.
        """
        done: Future[int] = Future()
        done.set_running_or_notify_cancel()
        with self._book_lock:
            group = self._book.current
            if group is None or group.scan != scan:
                group = None
            else:
                self._order(ended=scan, ends=self._orders.ends + 1)
                self._ends.append(_End(group, self._orders.ends, time.monotonic() + _END_S, done))
                group.ended = True
        if group is None:
            done.set_result(0)
        self._on_change()
        return done

    def reset(self) -> None:
        """Empty the canvas here and in every consumer."""
        with self._book_lock:
            self._order(resets=self._orders.resets + 1, settled="", settled_time=0.0)
            self._book.empty()
        self._mosaic.reset()
        self._on_change()

    def reset_counters(self) -> None:
        """Count from zero; what is under way counts as received."""
        now = time.monotonic()
        with self._book_lock:
            self._zero = Zero.at(self._book, now)
        self._look(now)

    def run_model(self, path: str, sha256: str) -> None:
        """Tell the consumers to run a model; they build it aside."""
        with self._book_lock:
            self._order(model=path, model_sha256=sha256, models=self._orders.models + 1)
        self._on_change()

    def snapshot(self) -> Snapshot:
        """Every figure, as of the last look at the consumers."""
        return replace(super().snapshot(), **self._sums)  # type: ignore[arg-type]

    # From the consumers, in threads of the client

    def _take(self, report: Report) -> None:
        with self._book_lock:
            if report.session != self._orders.session:
                report = replace(report, recalls=0)  # of another collector's
            self._book.take(report, time.monotonic(), self._orders.resets)
            if self._newest is None or report.frame_shape != (0, 0):
                self._newest = report

    def _connect(self, number: int, connected: bool) -> None:
        with self._book_lock:
            self._book.connect(number, connected)
            if not connected:  # the distributor may have repeated its last update: whoever has it is to say so
                self._order(states=self._orders.states + 1)

    # In the collector's thread

    def _watch(self) -> None:
        search = time.monotonic()
        while not self._closing.wait(_TICK_S):
            now = time.monotonic()
            try:
                self._look(now)
                if now >= search:
                    self._links.search()
                    search = now + _SEARCH_S
            except Exception:
                log.exception("the consumers' reports could not be added up")

    def _look(self, now: float) -> None:
        """Add up what has come, tell who waits."""
        with self._book_lock:
            self._number_runs(now)
            groups = list(self._book.groups)
            stale = [group for group in groups if group.stale]
            for group in stale:
                group.stale = False
            live = self._book.live(now)
        for group in stale:
            self._merge(group)
        with self._book_lock:
            self._update_runs(groups, live, now)
            self._sums = add_up(self._book, live, now, self._zero, self._refused)
            self._sums |= {"batches": self._version, "dose_scale": self.dose_scale}
            self._cluster_figures = describe_consumers(self._book, live, now, self._zero)
            announced = self._announce(live)
            through = self._through(live, now)
            recalls = self._book.recalls
            self._order(recalls=recalls.number, recall=recalls.open(consumer.instance for consumer in live))
            changed, self._told = self._orders != self._told, self._orders
        self._worst.stitched = tuple(max((c.latest.latency_ms[i] for c in live), default=0.0) for i in range(3))  # type: ignore[assignment]
        with self._flowing():
            pass  # tells whoever waits for a run that is over now
        self.on_reports([consumer.latest for consumer in live])
        for done, patches in through:
            done.set_result(patches)
        if announced is not None:
            self._on_end(announced)
        if through or changed:
            self._on_change()

    def _order(self, **changes: object) -> None:
        self._orders = self._orders.model_copy(update=changes)

    def _number_runs(self, now: float) -> None:
        """A run of this pipeline for every group that is new."""
        with self._wake:
            for group in self._book.groups:
                if group.number == 0:
                    run = self._flow.runs.begin(group.scan, now)
                    run.ids = _Gaps()  # type: ignore[assignment]
                    group.number = run.number
                    if self._orders.ended == group.scan:
                        self._order(ended="", settled="", settled_time=0.0)

    def _merge(self, group: Group) -> None:
        """The group's canvas anew, from all its consumers' canvases."""
        states = group.canvases()
        if not states:
            return
        merged, self._refused = merge_canvases(states, self._max_pixels)
        newest = max(group.shares.values(), key=lambda share: share.run.latest)
        engine = next((c.latest.engine for c in self._book.live(time.monotonic()) if c.latest.engine.pixel_m), None)
        if engine is not None:
            contract = contract_of(replace(engine, pixel_m=merged.pixel_m))
            live = self._mosaic.canvas()
            if live is None or live.contract != contract:
                self._mosaic.adopt(contract, f"{engine.name} {engine.version}".strip())
        self._mosaic.begin(group.number, group.scan)
        canvas = self._mosaic.canvas(group.number)
        if canvas is not None:
            canvas.canvas, canvas.last, canvas.dose_scale = merged, newest.run.patch, self.dose_scale
        self._version += 1

    def _update_runs(self, groups: list[Group], live: list[Consumer], now: float) -> None:
        """The figures of every run that is kept; of frames that died with a consumer none is pending."""
        instances = {consumer.instance for consumer in live}
        with self._wake:
            kept = {run.number: run for run in (self._flow.runs.current, *self._flow.runs.finished) if run is not None}
            for group in groups:
                run = kept.get(group.number)
                if run is None or not group.shares:
                    continue
                run.ledger.stitched, run.ledger.dropped = group.patches, group.dropped
                accounted = run.ledger.stitched + sum(run.ledger.dropped.values())
                run.ledger.received = accounted + group.pending(instances)
                run.first_time, run.last_time = group.began or None, group.latest or None
                run.ids.missed = self._book.missed_of(group, now)  # type: ignore[misc]
            self._trim()

    def _announce(self, live: list[Consumer]) -> str | None:
        """The current scan's id, once, when a consumer has had its last frame."""
        group = self._book.current
        if group is None or group is self._announced or group.ended:
            return None
        for consumer in live:
            report = consumer.latest
            if report.saw_end == group.scan and (consumer.instance, report.run.number) in group.shares:
                self._announced = group
                return group.scan
        return None

    def _through(self, live: list[Consumer], now: float) -> list[tuple[Future[int], int]]:
        """Ends that are reached: every live consumer has let go of the scan and reported its canvas."""
        reached: list[tuple[Future[int], int]] = []
        for end in list(self._ends):
            group = end.group
            out = all(
                consumer.state is not None
                and consumer.state.session == self._orders.session
                and consumer.state.drained >= end.number
                for consumer in live
            )
            quiet = now - group.changed > self._cluster.settle_s
            if (out and (quiet or self._complete(group))) or now > end.deadline or group is not self._book.current:
                if not out and now > end.deadline:
                    log.warning("scan %s: a consumer did not report its end within %.0f s", group.scan, _END_S)
                self._ends.remove(end)
                self._settle(group, live, now)
                reached.append((end.done, group.patches))
        return reached

    def _complete(self, group: Group) -> bool:
        """Whether every id up to the highest is in, and what was in is stitched or dropped."""
        group.settled = True  # ids up to the highest, not to where the slowest consumer is
        complete = self._book.missed_of(group, time.monotonic()) == 0
        group.settled = False
        return complete

    def _settle(self, group: Group, live: list[Consumer], now: float) -> None:
        if group.settled or group is not self._book.current:
            return
        group.settled = True
        self._order(settled=group.scan, settled_time=group.latest)
        self._update_runs([group], live, now)
        with self._wake:
            self._flow.runs.end(now)
