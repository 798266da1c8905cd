"""The position source that operators choose: attributes, waveforms of a client, a route file, or one of the streams."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.config import load_object
from ptychostream.ioc.scan.route_apart import read_route_apart
from ptychostream.errors import ConfigError, PtychostreamError
from ptychostream.ioc.scan.position_feed import PandaFeed, Placer, PositionFeed, feed_by_index, feed_by_time
from ptychostream.ioc.config.settings import PositionSettings
from ptychostream.positions.position_gate import GatedPositions, GateSettings
from ptychostream.positions.positions import AttributePositions, PositionSource, RoutePositions, WaveformPositions

log = logging.getLogger(__name__)

Doubles = NDArray[np.float64]


class PositionSources:
    """Makes the chosen position source and gives it to the pipeline. Methods may be called from any thread.

    Parameters
    ----------
    settings
        The initial settings. A route file that cannot be read is reported in `failure`; frames then have no positions.
    """

    def __init__(self, settings: PositionSettings) -> None:
        self._axes = settings.axes
        self._first_id = settings.first_id
        self._by_attributes = load_object(settings.own) if settings.own else AttributePositions
        self._lock = threading.Lock()
        self._placer: Placer | None = None
        self.name = str(settings.source)
        self.x_attribute = settings.x_attribute
        self.y_attribute = settings.y_attribute
        self.route_file = str(settings.route_file or "")
        self.failure = ""
        self._waveform = WaveformPositions(self._axes, self._first_id)
        self._x = np.empty(0)
        self._y = np.empty(0)
        self.written = 0
        """How often the waveforms were written."""
        self.by_time = feed_by_time(settings.stream, self._axes, self._say)
        self.by_index = feed_by_index(settings.index, self._axes, self._say)
        self.panda = PandaFeed(settings.panda, settings.index, self._axes, self._say)
        self._feeds: dict[str, PositionFeed[Any]] = {
            "stream": self.by_time, "index": self.by_index, "panda": self.panda,
        }  # fmt: skip
        source: PositionSource = self._waveform
        try:
            source = self._make()
        except PtychostreamError as error:
            log.warning("%s", error)
            self.failure = str(error)
        self.current = GatedPositions(source, settings.gate)

    @property
    def attributes(self) -> tuple[str, ...]:
        """NTNDArray attributes that frames have to carry."""
        return (self.x_attribute, self.y_attribute)

    @property
    def count(self) -> int:
        """Positions known as waveforms, both coordinates."""
        return min(len(self._x), len(self._y))

    def connect(self, placer: Placer) -> None:
        """Give every later change to `placer`."""
        self._placer = placer
        for feed in self._feeds.values():
            feed.connect(placer)

    @property
    def feed(self) -> PositionFeed[Any]:
        """The feed that positions come from; that of samples by time where they come from none."""
        return self._feeds.get(self.name, self.by_time)

    def start(self) -> None:
        """Subscribe to the stream, if that is where positions come from."""
        for name, feed in self._feeds.items():
            feed.subscribe(wanted=self.name == name)

    def stop(self) -> None:
        """Unsubscribe."""
        for feed in self._feeds.values():
            feed.stop()

    def select(self, name: str) -> None:
        """Use the source `name`. Raises ScanFileError or ConfigError; the source then stays as it was."""
        before = self.name
        self._change(name=name)
        try:
            self.start()
        except ConfigError:  # what the source needs is not installed
            self._change(name=before)
            self.start()
            raise

    def set_gate(self, **lengths: float) -> None:
        """Change some of `GateSettings`. Raises ValidationError when a value is out of range."""
        settings = GateSettings.model_validate({**self.current.settings.model_dump(), **lengths})
        self.feed.change(lambda: setattr(self.current, "settings", settings))

    def set_stream(self, **values: float | str) -> None:
        """Change some of `StreamPositionSettings`; frames that are placed already stay where they are."""
        self.by_time.change(lambda: self.by_time.source.configure(**values))

    def restart_counts(self) -> None:
        """Count from zero."""
        for feed in self._feeds.values():
            feed.restart_counts()
        self.current.restart_counts()

    def set_attributes(self, x: str | None = None, y: str | None = None) -> None:
        """Read positions from these attributes."""
        self._change(x_attribute=x or self.x_attribute, y_attribute=y or self.y_attribute)

    def set_route(self, path: str) -> None:
        """Take positions from this file. Raises ScanFileError when it cannot be read; the old one stays."""
        self._change(route_file=path)

    def write(self, x: Doubles | None = None, y: Doubles | None = None) -> None:
        """Take a whole waveform of one coordinate.

        An x that does not continue the x before it begins a new set: the old y is forgotten, so that frames are
        never placed by the x of one scan and the y of another.
        """
        with self._lock:
            if x is not None:
                shared = min(len(x), len(self._x))
                if not np.array_equal(x[:shared], self._x[:shared]):
                    self._y = np.empty(0)
                self._x = x
            if y is not None:
                self._y = y
            self.written += 1
            self._update(complete=False)

    def complete(self) -> None:
        """Note that no more positions will come. Raises GeometryError when x and y have different lengths."""
        if self.name in self._feeds:
            self.feed.change(self.feed.source.complete)
            return
        with self._lock:
            self._update(complete=True)

    def clear(self, written: int | None = None) -> None:
        """Forget the waveforms of the scan that is over.

        With `written`, the value of that attribute at the end of the scan, waveforms written since then are kept.
        """
        with self._lock:
            if written is not None and written != self.written:
                return
            self._x = self._y = np.empty(0)
            self._update(complete=False)

    def _say(self, message: str) -> None:
        self.current.message = message

    def _update(self, complete: bool) -> None:
        def update() -> None:
            self._waveform.update(self._x, self._y, complete)

        self.feed.change(update)

    def _change(self, **values: str) -> None:
        with self._lock:
            before = {name: getattr(self, name) for name in values}
            if before == values:
                return
            for name, value in values.items():
                setattr(self, name, value)
            try:
                source = self._make()
            except PtychostreamError as error:
                for name, value in before.items():
                    setattr(self, name, value)
                self.failure = str(error)
                raise
            self.failure = ""
            self.current.source = source
            if self._placer is not None:
                self._placer.set_positions(self.current)

    def _make(self) -> PositionSource:
        if self.name == "attributes":
            made: PositionSource = self._by_attributes(self.x_attribute, self.y_attribute, self._axes)
            return made
        if self.name == "route":
            if not self.route_file:
                raise ConfigError("no route file named", where="RouteFile", remedy="write its path there first")
            return RoutePositions(read_route_apart(Path(self.route_file)), self._axes, self._first_id)
        if self.name in self._feeds:
            streamed: PositionSource = self.feed.source
            return streamed
        return self._waveform
