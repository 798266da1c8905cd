"""Adds up the canvases and figures of consumers that stitch the frames in other processes.

To the IOC it is a `ptychostream.plugins.frame_source.FrameSource`, as the pipeline of an IOC without consumers is.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

from ptychostream.cluster.orders import Orders
from ptychostream.errors import ConfigError
from ptychostream.ioc.collector.collector_accounts import ConsumerAccounts, Consumer, Group
from ptychostream.ioc.collector.collector_ends import ClusterEnds
from ptychostream.ioc.collector.collector_links import Links
from ptychostream.ioc.collector.collector_runs import ClusterRuns
from ptychostream.ioc.collector.collector_sums import (
    ClusterFigures,
    ConsumersTimes,
    Zero,
    add_up,
    describe_consumers,
    lies_in,
    running_engine,
)
from ptychostream.ioc.config.settings import ClusterInput
from ptychostream.plugins.consumer.consumer_word import signed_orders
from ptychostream.plugins.consumer.consumer_report import Report
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot, Stitched
from ptychostream.plugins.mosaic import RunCanvas
from ptychostream.plugins.pipeline_settings import PipelineSettings
from ptychostream.plugins.scan_dose import ScanDose
from ptychostream.plugins.scan_ends import log_finished
from ptychostream.positions.positions import PositionSource

log = logging.getLogger(__name__)

_TICK_S = 0.1
_SEARCH_S = 2.0
_IN_FILE = "set it in the cluster's configuration, section consumer, and restart the consumers"


class Collector:
    """Adds up what consumers report. A `FrameSource`.

    Parameters
    ----------
    settings
        The consumers' numbers and channels.
    pipeline
        Only `max_canvas_pixels` is used; the rest is shown as it is and cannot be changed.
    scans
        Only `keep` and `keep_bytes` are used.
    prefix
        The IOC's prefix, which stands for `$(P)` in the consumers' channels.
    on_end
        Called with a scan's id when a consumer has had its last frame.
    on_change
        Called when the orders changed: they are to be published at once.
    """

    reports: type[Report] = Report
    snapshots: type[Snapshot] = Snapshot  # a subclass declares further figures, in both

    def __init__(
        self,
        settings: ClusterInput,
        pipeline: PipelineSettings,
        scans: BoundarySettings,
        prefix: str,
        on_end: Callable[[str], None],
        on_change: Callable[[], None],
    ) -> None:
        self.on_finished: Callable[[RunFigures, RunCanvas | None], None] = log_finished
        """Called once for each run that has ended, with its figures and its canvas; it must not block."""
        self.on_reports: Callable[[list[Report]], None] = lambda _: None
        """Called ten times a second with the newest report of every live consumer."""
        self.scan_dose = ScanDose()
        """Chooses one dose scale per scan for all consumers, once it is `automatic`."""
        self.times = ConsumersTimes()
        """Latencies of the running scan's frames."""
        self._settings = pipeline
        self._on_end = on_end
        self._on_change = on_change
        self._lock = threading.Lock()  # guards what follows, but for the links and the thread
        self._orders = Orders(session=uuid.uuid4().hex[:12], dose_scale=1.0)
        self._runs = ClusterRuns(scans, pipeline.max_canvas_pixels)
        self._accounts = ConsumerAccounts(settings.consumers, settings.dead_after_s)
        self._told = self._orders  # as they were last published
        self._ends = ClusterEnds(settings.settle_s)
        self._zero = Zero()
        self._cluster_figures = ClusterFigures(expected=len(settings.consumers))
        self._newest: Report | None = None
        self._snapshot = self._sum_up([], time.monotonic())
        self._key = settings.key()
        channels = {number: settings.channel(number, prefix) for number in settings.consumers}
        self._links = Links(channels, self._take, self._connect, self.reports, self._key)
        self._closing = threading.Event()
        self._ticker = threading.Thread(target=self._watch, name="collector", daemon=True)

    @property
    def orders(self) -> Orders:
        """The orders to the consumers."""
        return self._orders

    @property
    def orders_text(self) -> str:
        """The orders as they are published: with the signature of the cluster, if it has a key."""
        return signed_orders(self._orders.model_dump_json(exclude_defaults=True), self._key)

    @property
    def cluster(self) -> ClusterFigures:
        """The figures that an IOC without consumers does not have."""
        return self._cluster_figures

    @property
    def newest(self) -> Report | None:
        """The report with the newest frame."""
        return self._newest

    @property
    def dose_scale(self) -> float:
        """Factor by which the consumers' models are told that their counts were scaled."""
        return self._orders.dose_scale

    @dose_scale.setter
    def dose_scale(self, scale: float) -> None:
        if scale != self._orders.dose_scale:
            self._orders = self._orders.model_copy(update={"dose_scale": scale})

    # Commands of the IOC

    def start(self) -> None:
        """Subscribe to the consumers."""
        self._links.start()
        self._ticker.start()

    def stop(self, timeout_s: float = 30.0) -> bool:
        """Unsubscribe; the consumers go on."""
        self._closing.set()
        if self._ticker.ident is not None:
            self._ticker.join(timeout_s)
        self._links.stop()
        return not self._ticker.is_alive()

    def expect_engine(self, comes: bool) -> None:
        """Do nothing: frames wait for an engine in the consumers."""

    def set_positions(self, positions: PositionSource) -> None:  # noqa: ARG002
        """Raise ConfigError: the consumers have a source of their own."""
        raise ConfigError("the consumers' positions are not changed from here", where="positions", remedy=_IN_FILE)

    def update_positions(self, update: Callable[[], None]) -> None:
        """Run `update`: no frame waits for a position here."""
        update()

    def configure(self, **changes: object) -> PipelineSettings:
        """Raise ConfigError for any change: the consumers have settings of their own."""
        if lies_in(changes, self._settings.model_dump()):
            return self._settings
        what = f"{', '.join(changes)} of the consumers is not changed from here"
        raise ConfigError(what, where="pipeline", remedy=_IN_FILE)

    def tick(self) -> str | None:
        """Return None: no consumer sees the whole stream, so a pause cannot be told from a share of another one."""
        return None

    def start_scan(self, scan: str, anew: bool = False) -> None:
        """Begin `scan` in every consumer, for the frames that name none."""
        with self._lock:
            current = self._accounts.current
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
            The number of patches on the canvas, when no live consumer holds a frame of the scan any more, and either
            no frame id is missing or no frame has come for `settle_s`.
        """
        with self._lock:
            group = self._accounts.current
            if group is not None and group.scan == scan:
                self._order(ended=scan, ends=self._orders.ends + 1)
                done = self._ends.wait(group, self._orders.ends)
                group.ended = True
            else:
                done = Future()
                done.set_result(0)
        self._on_change()
        return done

    def keep_canvases(self, number: int) -> None:
        """Keep so many finished canvases from now on."""
        with self._lock:
            self._runs.runs.keep = number
            self._runs.trim()
            self._snapshot = replace(self._snapshot, keep=number)

    def reset(self) -> None:
        """Empty the canvas here and in every consumer."""
        with self._lock:
            self._order(resets=self._orders.resets + 1, settled="", settled_time=0.0)
            self._accounts.empty()
        self._runs.mosaic.reset()
        self._on_change()

    def reset_counters(self) -> None:
        """Count from zero; frames under way count as received."""
        now = time.monotonic()
        with self._lock:
            self._zero = Zero.at(self._accounts, now)
        self._look(now)

    def run_model(self, path: str, sha256: str) -> None:
        """Tell the consumers to run a model; they build it in another thread."""
        with self._lock:
            self._order(model=path, model_sha256=sha256, models=self._orders.models + 1)
        self._on_change()

    # What the IOC shows

    def snapshot(self) -> Snapshot:
        """Every figure, as the reports were last added up."""
        return self._snapshot

    def stitched(self, run: int | None = None) -> Stitched | None:
        """The sum of the consumers' canvases of the newest run, or of a kept one, as an image."""
        canvas = self._runs.mosaic.canvas(run)
        return canvas.stitched() if canvas is not None else None

    def canvas(self, run: int | None = None) -> RunCanvas | None:
        """The sum of the consumers' canvases of the newest run, or of a kept one."""
        return self._runs.mosaic.canvas(run)

    # From the consumers, in threads of the client

    def _take(self, report: Report) -> None:
        with self._lock:
            if report.session != self._orders.session:
                report = replace(report, recalls=0)  # of another collector's
            self._accounts.take(report, time.monotonic(), self._orders.resets)
            if self._newest is None or report.frame.height:
                self._newest = report

    def _connect(self, number: int, connected: bool) -> None:
        with self._lock:
            self._accounts.connect(number, connected)
            if not connected:  # the distributor may have repeated its last update: consumers report their states
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
        """Add up the reports, and resolve the futures that are due."""
        with self._lock:
            self._number_runs(now)
            groups = list(self._accounts.groups)
            stale = [group for group in groups if group.stale]
            for group in stale:
                group.stale = False
            live = self._accounts.live(now)
        for group in stale:
            self._runs.merge(group, live, self.dose_scale)
        with self._lock:
            self._runs.update(groups, self._accounts, live, now)
            announced = self._ends.announce(self._accounts, live)
            through = []
            for end in self._ends.reached(self._accounts, live, self._orders.session, now):
                self._settle(end.group, live, now)
                through.append((end.done, end.group.patches))
            snapshot = self._sum_up(live, now)
            self.times.stitched = snapshot.latency_ms
            self._choose_dose(live, snapshot.mean_counts)
            self._snapshot = replace(snapshot, dose_scale=self.dose_scale)
            self._cluster_figures = describe_consumers(self._accounts, live, now, self._zero)
            recalls = self._accounts.recalls
            self._order(recalls=recalls.number, recall=recalls.open(consumer.instance for consumer in live))
            changed, self._told = self._orders != self._told, self._orders
            finished = self._runs.take_ended()
        for figures, canvas in finished:
            self.on_finished(figures, canvas)
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
        """Begin a run for every group that is new."""
        for group in self._accounts.groups:
            if group.number == 0:
                group.number = self._runs.runs.begin(group.scan, now).number
                if self._orders.ended == group.scan:
                    self._order(ended="", settled="", settled_time=0.0)

    def _sum_up(self, live: list[Consumer], now: float) -> Snapshot:
        canvases = self._runs.mosaic.figures()
        return self.snapshots(
            **add_up(self._accounts, live, now, self._zero, self._runs.refused, self.reports),
            runs=self._runs.figures(),
            late_taken=0,
            keep=self._runs.runs.keep,
            kept_bytes=canvases.finished_bytes,
            batches=self._runs.merges,
            dose_scale=self.dose_scale,
            patch=canvases.latest,
            when_full=self._settings.when_full,
            decimation_factor=self._settings.decimation.factor,
        )

    def _choose_dose(self, live: list[Consumer], mean_counts: float) -> None:
        """Choose the newest scan's dose scale, so that all consumers use the same one."""
        run, engine = self._runs.runs.current, running_engine([consumer.latest for consumer in live])
        if run is None or engine is None:
            return
        if run.ledger.stitched and self.scan_dose.wants(run.number):
            self.scan_dose.note(run.number, [mean_counts])
        self.dose_scale = self.scan_dose.scale(run.number, engine.mean_counts or None, self.dose_scale)

    def _settle(self, group: Group, live: list[Consumer], now: float) -> None:
        if group.settled or group is not self._accounts.current:
            return
        group.settled = True
        self._order(settled=group.scan, settled_time=group.latest)
        self._runs.update([group], self._accounts, live, now)
        self._runs.runs.end(now)
