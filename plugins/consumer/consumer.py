"""The plugin as a processor of pvaPy's streaming framework.

    pvapy-hpc-consumer --input-channel 13SIM1:Pva1:Image --output-channel ptycho:NN1:consumer:* --consumer-id 1 \
        --processor-class ptychostream.plugins.consumer.PtychoConsumer --processor-args '{"config": "consumer.toml"}' \
        --receiver-queue-size 2000 --server-queue-size 2000 --distributor-group ptychostream \
        --distributor-trigger uniqueId --distributor-updates 1

Frames in, reports out: the output channel carries the canvas as exact integers, which a collector adds up.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pvaccess as pva
from p4p import Value

from ptychostream.errors import ConfigError, DropCause
from ptychostream.plugins.consumer.consumer_encoding import encode_report, structure
from ptychostream.plugins.consumer.consumer_report import FINAL, STATUS, Report
from ptychostream.plugins.consumer.consumer_settings import consumer_settings
from ptychostream.plugins.consumer.consumer_word import signed_report
from ptychostream.plugins.consumer.consumer_worker import STATE, Worker, parse_orders
from ptychostream.pva.channel_reader import ChannelReader, each

log = logging.getLogger(__name__)

_READ_LEVEL = 1
_ACCESS = "ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE) }\nASG(READONLY) { RULE(1, READ) }\n"


class PtychoConsumer:
    """Receives, joins, infers and stitches its share of the stream.

    Has the interface of `pvapy.hpc.userDataProcessor.UserDataProcessor`, whose attributes the framework sets.

    Parameters
    ----------
    configDict
        The processor's arguments: keys of `ConsumerSettings`, and `config`, a TOML file that they override.

    Raises
    ------
    ConfigError, ScanFileError
        The configuration is wrong.
    """

    def __init__(self, configDict: Mapping[str, Any] | None = None) -> None:
        if not logging.getLogger().handlers:
            logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s")
        arguments = dict(configDict or {})
        self.logger = log
        self.processorId = int(arguments.get("processorId", 0))
        self.pvaServer: Any = None
        self.dataPublisher: Any = None
        self.inputChannel = str(arguments.get("inputChannel", ""))
        self.outputChannel = str(arguments.get("outputChannel") or "")
        self.objectIdField = "uniqueId"
        self.metadataQueueMap: dict[str, Any] = {}
        self._settings = consumer_settings(arguments)
        self._key = self._settings.key()
        self._worker = Worker(self._settings, self.processorId, self._publish)
        self._orders: ChannelReader | None = None

    def start(self) -> None:
        """Serve the reports, start the pipeline, follow the collector."""
        if not self.outputChannel or self.pvaServer is None:
            remedy = "give pvapy-hpc-consumer an --output-channel"
            raise ConfigError("no output channel", where="consumer", remedy=remedy)
        for suffix in (STATE, STATUS, FINAL):
            empty = pva.PvObject(structure())
            self.pvaServer.addRecordWithAs(f"{self.outputChannel}{suffix}", empty, _READ_LEVEL, "READONLY", None)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "consumer.acf"
            path.write_text(_ACCESS, encoding="ascii")
            self.pvaServer.initAs(str(path), "")
        self._worker.start()
        if self._settings.orders:
            self._orders = ChannelReader(
                self._settings.orders, "field(value)", 4, each(self._ordered), _ignore, name="collector's orders"
            )
            self._orders.start()

    def process(self, pvObject: pva.PvObject) -> pva.PvObject:
        """Process one update of the input channel."""
        self._worker.take(pvObject)
        return pvObject

    def stop(self) -> None:
        """Stitch what has come, report it, close the engine."""
        if self._orders is not None:
            self._orders.stop()
        self._worker.stop()

    def configure(self, configDict: Any) -> None:
        """A command of pvaPy's control channel: `{"state": true}` reports the whole state now."""
        if isinstance(configDict, Mapping) and configDict.get("state"):
            self._worker.ask_state()

    def resetStats(self) -> None:  # noqa: N802
        """Do nothing: pvaPy resets its own statistics; the collector relies on the figures of the frames."""

    def getStats(self) -> dict[str, Any]:  # noqa: N802
        """The accounting, for pvaPy's status channel."""
        figures = self._worker.figures()
        return {
            "received": figures.received,
            "stitched": figures.stitched,
            "pending": figures.pending,
            **{f"dropped{cause.value}": count for cause, count in figures.dropped.items()},
            "lawHolds": figures.law_holds,
        }

    def getStatsPvaTypes(self) -> dict[str, Any]:  # noqa: N802
        """Types of what `getStats` gives."""
        drops = {f"dropped{cause.value}": pva.ULONG for cause in DropCause}
        return {"received": pva.ULONG, "stitched": pva.ULONG, "pending": pva.ULONG, **drops, "lawHolds": pva.BOOLEAN}

    def getInputPvObjectType(self) -> None:  # noqa: N802
        """The input is a detector's channel, never hosted here."""

    def getOutputPvObjectType(self, pvObject: pva.PvObject) -> None:  # noqa: N802
        """The output channel is served from the start, not from the first frame on."""

    def _publish(self, suffix: str, report: Report) -> None:
        self.pvaServer.update(
            f"{self.outputChannel}{suffix}", encode_report(signed_report(report, self._key), self._settings.codec)
        )

    def _ordered(self, update: Value) -> None:
        orders = parse_orders(str(update["value"]), self._key)
        if orders is not None:
            self._worker.follow(orders)


def _ignore(_connected: bool) -> None:
    """Keep following the last orders while the collector is away."""
