"""The model slot of a cluster: the model runs in the consumers, and changes there by the collector's orders."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ptychostream.model.contract import ModelContract, SigmaCalibration
from ptychostream.model.model_folder import in_folder
from ptychostream.errors import ConfigError, ModelError
from ptychostream.ioc.model.canary import Canary
from ptychostream.ioc.model.changes import Change, Changes
from ptychostream.ioc.model.model_slot import EngineWish, SlotState
from ptychostream.model.checksum import check_sha256
from ptychostream.model.model_file import ModelFile, parse_model, read_model
from ptychostream.plugins.consumer.consumer_report import EngineReport, Report

_BUILD_S = 600.0
_LOOK_S = 0.1  # how soon a load notices that it is to give way
_IN_FILE = "set it in the cluster's configuration, section consumer, and restart the consumers"


@dataclass(frozen=True)
class ClusterLive:
    """The model that the consumers run, with the fields of `ptychostream.ioc.model.model_slot.Live`."""

    contract: ModelContract
    sha256: str
    path: str
    engine: str
    engine_version: str
    reason: str
    precision: str
    batch: int
    since: float


class ClusterSlot:
    """Has the interface of `ptychostream.ioc.model.model_slot.ModelSlot`.

    Parameters
    ----------
    order
        Tells the consumers to run the model of this path and sha256.
    wish
        Engine of the consumers, as the configuration says.
    directory, max_bytes, on_change
        As for the model slot of an IOC without consumers.
    try_out
        Has a model parsed elsewhere, with limits: (file's bytes, contract beside it, path, gives up when set).
    """

    def __init__(
        self,
        order: Callable[[str, str], None],
        *,
        wish: EngineWish,
        directory: Path | None,
        max_bytes: int,
        on_change: Callable[[], None],
        try_out: Callable[[bytes, bytes | None, Path, threading.Event], None] = lambda *_: None,
    ) -> None:
        self._try_out = try_out
        self._order = order
        self._directory = directory
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._changes = Changes()
        self._heard = threading.Condition()
        self._reports: list[Report] = []
        self._sha_by_name: dict[str, str] = {}
        self.wish = wish
        self.state = SlotState.NO_MODEL
        self.message = "no consumer has reported"
        self.live: ClusterLive | None = None
        self.previous: ModelFile | None = None
        self.canary = Canary()  # no pattern comes here
        self._now: ModelFile | None = None
        self._ordered = False

    def hear(self, reports: Sequence[Report]) -> None:
        """Take the newest reports of the live consumers."""
        with self._heard:
            self._reports = list(reports)
            self._heard.notify_all()
        engines = [report.engine for report in reports]
        running = [engine for engine in engines if engine.name]
        if not running:
            failures = [report.model_failure for report in reports if report.model_failure]
            self._show(SlotState.NO_MODEL, failures[0] if failures else "no consumer runs a model", None)
            return
        first = running[0]
        self._sha_by_name[first.model] = first.sha256
        alike = all((engine.model, engine.sha256) == (first.model, first.sha256) for engine in engines)
        if alike and first.sha256 and not self._ordered:
            # a collector that starts again: what they run is what a consumer that starts later is to run
            self._send(first.path, first.sha256)
        if alike:
            message = f"{first.model} runs on {len(running)} consumers"
        else:
            names = ", ".join(f"{report.consumer}: {report.engine.model or report.model_failure}" for report in reports)
            message = f"the consumers run different models ({names})"
        self._show(SlotState.LIVE if alike else SlotState.FAILED, message, first)

    def load(self, path: str | Path, expected_sha256: str = "") -> None:
        """Check the model here, and have every live consumer run it; the path must mean the same file to each.

        Parameters
        ----------
        path, expected_sha256
            See `ptychostream.ioc.model.model_slot.ModelSlot.load`.

        Raises
        ------
        ModelError
            It is no model, or a consumer could not bring it to life; the others run it nevertheless.
        EngineError
            A rollback came meanwhile.
        """
        with self._changes.one(f"loading {path}") as change:
            staged = self._resolve(path)
            data, sidecar = read_model(staged, self._max_bytes)
            check_sha256(data, expected_sha256, str(staged))
            self._try_out(data, sidecar, staged, change.give_way)
            model = parse_model(data, staged, sidecar, expected_sha256)
            self._bring(change, model)
            if self._now is not None and self._now.sha256 != model.sha256:
                self.previous = self._now
            self._now = model

    def rollback(self, only_from: str | None = None) -> None:
        """Go back to the model that was loaded here before, where `only_from` is live still. Raises ModelError.

        A model that the consumers are building gives way.
        """
        self._check_rollback(only_from)
        with self._changes.before_others("rolling back") as change:
            then = self._check_rollback(only_from)
            self._bring(change, then)
            self.previous, self._now = self._now, then

    def use_engine(self, **wish: object) -> None:
        """Raise ConfigError for any change: each consumer has an engine of its own."""
        if all(value is None or getattr(self.wish, name) == value for name, value in wish.items()):
            return
        raise ConfigError("the consumers' engines are not changed from here", where="engine", remedy=_IN_FILE)

    def run_plain(self) -> None:
        """Do nothing: the consumers start their own engines."""

    def sha_of(self, name: str) -> str:
        """sha256 of the model that runs under contract name `name`."""
        return self._sha_by_name.get(name, "")

    def _resolve(self, path: str | Path) -> Path:
        if not str(path).strip():
            raise ModelError("no file named", where="ModelFile", remedy="write the path of an .onnx file to it")
        return in_folder(path, self._directory)

    def _check_rollback(self, only_from: str | None) -> ModelFile:
        if only_from is not None and (self._now is None or self._now.sha256 != only_from):
            raise ModelError("another model is live by now", where="rollback", remedy="judge that one")
        if self.previous is None:
            raise ModelError("no previous model", where="RollbackModel", remedy="load a second model first")
        return self.previous

    def close(self) -> None:
        """Do nothing: the consumers close their own engines."""

    def _bring(self, change: Change, model: ModelFile) -> None:
        self._send(str(model.path), model.sha256)
        deadline = time.monotonic() + _BUILD_S
        with self._heard:
            while True:
                waits = [r for r in self._reports if r.engine.sha256 != model.sha256]
                failed = [r for r in waits if r.model_failure.startswith(str(model.path))]
                if self._reports and len(failed) == len(waits):
                    break
                change.check()
                self._heard.wait(min(_LOOK_S, max(0.0, deadline - time.monotonic())))
                if time.monotonic() >= deadline:
                    remedy = "see the logs of the consumers"
                    raise ModelError(f"not live within {_BUILD_S:.0f} s", where=str(model.path), remedy=remedy)
        if failed:
            numbers = ", ".join(str(report.consumer) for report in failed)
            what = f"does not run in consumer {numbers}: {failed[0].model_failure}"
            raise ModelError(what, where=str(model.path), remedy="correct it there, or go back with RollbackModel")

    def _send(self, path: str, sha256: str) -> None:
        self._ordered = True
        self._order(path, sha256)

    def _show(self, state: SlotState, message: str, engine: EngineReport | None) -> None:
        live = None if engine is None else self._live(engine)
        if (state, message, live) == (self.state, self.message, self.live):
            return
        self.state, self.message, self.live = state, message, live
        self._on_change()

    def _live(self, engine: EngineReport) -> ClusterLive:
        same = self.live is not None and (self.live.sha256, self.live.contract.name) == (engine.sha256, engine.model)
        return ClusterLive(
            contract=contract_of(engine),
            sha256=engine.sha256,
            path=engine.path,
            engine=engine.name,
            engine_version=engine.version,
            reason=f"{engine.device}: as the consumers report",
            precision=engine.precision,
            batch=engine.batch,
            since=self.live.since if same and self.live is not None else time.time(),
        )


def contract_of(engine: EngineReport) -> ModelContract:
    """The part of a model's contract that a consumer reports: single patches are not seen here, only their sum."""
    known = engine.sigma_factor >= 0
    sigma = SigmaCalibration(factor=engine.sigma_factor, floor_rad=engine.sigma_floor_rad) if known else None
    return ModelContract(
        name=engine.model,
        input_shape=(1, 1),
        output_shape=(1, 1),
        object_pixel_m=engine.pixel_m,
        mean_counts=engine.mean_counts or None,
        sigma=sigma,
    )
