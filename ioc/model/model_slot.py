"""The model slot: it reads a model, has it tried in a process of its own, builds its engine, and swaps it in.

If a step fails, the running model continues, and a message says why. An engine is built again from the model's bytes in
memory, so that a later change of the file has no effect; the engines' caches make this fast. The engine of the model
before is kept, so that a rollback builds nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Protocol

from ptychostream.model.contract import CONTRACT_KEY, ModelContract
from ptychostream.model.model_folder import in_folder
from ptychostream.errors import EngineError, ModelError, PtychostreamError
from ptychostream.ioc.model.canary import Canary
from ptychostream.ioc.model.changes import Change, Changes
from ptychostream.model.checksum import check_sha256
from ptychostream.model.model_file import MAX_BYTES, ModelFile, parse_model, read_model
from ptychostream.plugins.flow.batcher import frames_at_once
from ptychostream.plugins.engines import Engine
from ptychostream.plugins.engines.checking import check_engine
from ptychostream.plugins.engines.kept import KeptEngine
from ptychostream.processes.bounded import Bounds

log = logging.getLogger(__name__)


class SlotState(IntEnum):
    """States of the record ModelState_RBV. FAILED: the last change failed, and the model before it continues."""

    NO_MODEL = 0
    STAGING = 1
    CHECKING = 2
    BUILDING = 3
    LIVE = 4
    FAILED = 5


@dataclass(frozen=True)
class EngineWish:
    """The engine that is wanted."""

    name: str = "Auto"
    precision: str = "auto"
    batch: int = 8
    backlog_batches: int = 1
    """Number of batches in one call, if so many frames wait."""

    @property
    def at_once(self) -> int:
        """The largest number of frames in a call."""
        return frames_at_once(self.batch, self.backlog_batches)


@dataclass(frozen=True)
class Live:
    """The model that runs (None: engine None without a model), its engine, and the time of its start."""

    model: ModelFile | None
    contract: ModelContract
    engine: str
    engine_version: str
    reason: str
    precision: str
    batch: int
    since: float

    @property
    def sha256(self) -> str:
        return self.model.sha256 if self.model else ""

    @property
    def path(self) -> str:
        return str(self.model.path) if self.model else ""


@dataclass(frozen=True)
class Running:
    """A model with its engine and the wish that it was built for. The slot holds the engine."""

    model: ModelFile | None
    contract: ModelContract
    wish: EngineWish
    engine: KeptEngine


class Maker(Protocol):
    """Tries models and builds engines."""

    bounds: Bounds
    """Limits of a trial."""

    def __call__(self, wish: EngineWish, model: ModelFile | None, contract: ModelContract) -> Engine:
        """Build the engine of a wish."""

    def try_out(
        self, wish: EngineWish, data: bytes, sidecar: bytes | None, path: Path, give_up: threading.Event
    ) -> None:
        """Have a model built and run elsewhere, with limits. Raises ModelError or EngineError."""


EngineFactory = Callable[[], Engine]


class Swap(Protocol):
    """Gives an engine to the pipeline, as `Pipeline.swap_engine`: the future is done when it is in use."""

    def __call__(self, factory: EngineFactory, contract: ModelContract, thread_bound: bool = False) -> Future[str]: ...


class ModelSlot:
    """Holds the model that runs and the one before it. Any thread may call its methods.

    Changes wait for each other. A rollback does not wait: other changes give way to it.

    Parameters
    ----------
    maker
        Tries models and builds engines.
    swap
        Gives the factory of an engine to the pipeline.
    plain_contract
        The contract of engine None without a model.
    directory
        The folder that every model must be in, after links are resolved. None: no restriction.
    max_bytes
        A larger file is refused.
    on_change
        Called after every change of `state`, `message` or `live`.
    canary
        Tries a new model on recent patterns before the swap.
    """

    def __init__(
        self,
        maker: Maker,
        swap: Swap,
        plain_contract: ModelContract,
        *,
        wish: EngineWish = EngineWish(),
        directory: Path | None = None,
        max_bytes: int = MAX_BYTES,
        on_change: Callable[[], None] = lambda: None,
        canary: Canary | None = None,
    ) -> None:
        self.canary = canary or Canary()
        self._maker = maker
        self._swap = swap
        self._plain_contract = plain_contract
        self._directory = directory
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._changes = Changes()
        self._running: Running | None = None
        self._kept: Running | None = None
        self.wish = wish
        self.state = SlotState.NO_MODEL
        self.message = "no model loaded"
        self.live: Live | None = None
        self._sha_by_name: dict[str, str] = {}

    @property
    def previous(self) -> ModelFile | None:
        """The model that a rollback goes back to."""
        return self._kept.model if self._kept is not None else None

    def load(self, path: str | Path, expected_sha256: str = "") -> None:
        """Check a model file, try it, build an engine for it, and swap the engine in.

        Parameters
        ----------
        path
            The file.
        expected_sha256
            The sha256 that the file must have; empty: any.

        Raises
        ------
        ModelError, EngineError
            The model is refused, the engine cannot be built, or a rollback came. The model before it continues.
        """
        with self._changes.one(f"loading {path}") as change:
            before = self._running
            with self._reported(f"loading {path}"):
                self._tell(SlotState.STAGING, f"reading {path}")
                staged = self._resolve(path)
                data, sidecar = read_model(staged, self._max_bytes)
                check_sha256(data, expected_sha256, str(staged))
                self._tell(SlotState.CHECKING, f"checking {staged.name} in a process of its own")
                self._maker.try_out(self.wish, data, sidecar, staged, change.give_way)
                model = parse_model(data, staged, sidecar, expected_sha256)
                self._install(change, model, self.wish, strict=True)
            if before is not None and before.model is not None and before.model.sha256 != model.sha256:
                self._keep(before)
            elif before is not None:
                before.engine.close()

    def rollback(self, only_from: str | None = None) -> None:
        """Load the model that ran before this one. A second rollback reverses the first.

        The engine of that model was kept, so nothing is built, unless engine, precision or batch were changed since.
        Changes that are under way or wait give way.

        Parameters
        ----------
        only_from
            The sha256 that must still be live. None: any model.

        Raises
        ------
        ModelError, EngineError
            There is no previous model, it cannot be built, or another model is live.
        """
        self._check_rollback(only_from)
        with self._changes.before_others("rolling back") as change, self._reported("rolling back"):
            then = self._check_rollback(only_from)
            now = self._running
            if then.wish == self.wish:
                self._go_back(change, then)
            else:
                self._rebuild(change, then.model, self.wish)
            self._keep(now)

    def use_engine(self, name: str | None = None, precision: str | None = None, batch: int | None = None) -> None:
        """Change the given parts of the wish, and build the engine again. Without a model the wish is for the next one.

        Raises
        ------
        EngineError, ModelError
            The engine cannot be built. Wish and engine stay as they were.
        """
        given = {"name": name, "precision": precision, "batch": batch}
        with self._changes.one("changing the engine") as change:
            wish = replace(self.wish, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
            model = self._running.model if self._running else None
            if wish == self.wish:
                return
            if model is None and wish.name != "None":
                self._leave_plain(wish)
                return
            with self._reported(f"building {wish.name}"):
                self._replace(change, model, wish)

    def run_plain(self) -> None:
        """Start engine None without a model, as frames of the plain contract. Raises EngineError."""
        with self._changes.one("starting engine None") as change, self._reported("starting engine None"):
            self._replace(change, None, replace(self.wish, name="None"))

    def close(self) -> None:
        """Free the engines that are kept. The one in use is freed when the pipeline has stopped, too."""
        for held in (self._running, self._kept):
            if held is not None:
                held.engine.close()

    def sha_of(self, name: str) -> str:
        """sha256 of the last model with the contract name `name`."""
        return self._sha_by_name.get(name, "")

    def _leave_plain(self, wish: EngineWish) -> None:
        """Keep the wish for another engine until there is a model. Engine None continues if it runs."""
        self.wish = wish
        self._tell(SlotState.NO_MODEL, f"engine {wish.name} starts when a model is loaded")

    def _resolve(self, path: str | Path) -> Path:
        if not str(path).strip():
            raise ModelError("no file named", where="ModelFile", remedy="write the path of an .onnx file to it")
        return in_folder(path, self._directory)

    def _check_rollback(self, only_from: str | None) -> Running:
        """What a rollback goes back to. Raises ModelError where there is nothing, or another model is live."""
        if only_from is not None and (self.live is None or self.live.sha256 != only_from):
            raise ModelError("another model is live by now", where="rollback", remedy="judge that one")
        if self._kept is None:
            raise ModelError("no previous model", where="RollbackModel", remedy="load a second model first")
        return self._kept

    def _replace(self, change: Change, model: ModelFile | None, wish: EngineWish) -> None:
        """Build an engine again, and free the one that ran before."""
        before = self._running
        self._rebuild(change, model, wish)
        if before is not None:
            before.engine.close()

    def _rebuild(self, change: Change, model: ModelFile | None, wish: EngineWish) -> None:
        """Try a model that ran before on another engine, and install it."""
        if model is not None:
            # as when it was loaded, so that a trial that it passed counts
            sidecar = None if CONTRACT_KEY.encode() in model.data else model.contract.to_json().encode()
            self._maker.try_out(wish, model.data, sidecar, model.path, change.give_way)
        self._install(change, model, wish)

    def _install(self, change: Change, model: ModelFile | None, wish: EngineWish, strict: bool = False) -> None:
        """Build the engine and swap it in, then set `live` and `wish`. `strict`: the canary's limit applies."""
        contract = model.contract if model is not None else self._plain_contract
        built: list[KeptEngine] = []

        def factory() -> Engine:
            engine = self._maker(wish, model, contract)
            try:
                change.check()
                check_engine(engine, contract, golden=wish.name != "None")
                if wish.name != "None":
                    self.canary.try_out(engine, contract, self.live.contract if self.live else None, strict)
            except BaseException:
                engine.close()
                raise
            built.append(KeptEngine(engine))
            return built[0].hold()

        self._tell(SlotState.BUILDING, f"building {contract.name} on {wish.name}")
        self._sha_by_name[contract.name] = model.sha256 if model is not None else ""
        try:
            change.wait(self._swap(factory, contract), self._maker.bounds.time_s)
        except BaseException:
            if self.live is not None:
                self._sha_by_name[self.live.contract.name] = self.live.sha256
            raise
        self._runs(Running(model, contract, wish, built[0].hold()))

    def _go_back(self, change: Change, then: Running) -> None:
        """Swap the kept engine in. It was built and checked before, and is tried once in the inference thread."""
        self._tell(SlotState.BUILDING, f"going back to {then.contract.name}")
        self.canary.try_out(then.engine, then.contract, self.live.contract if self.live else None, strict=False)
        change.wait(self._swap(then.engine.hold, then.contract, thread_bound=True), self._maker.bounds.time_s)
        self._sha_by_name[then.contract.name] = then.model.sha256 if then.model is not None else ""
        self._runs(then)

    def _runs(self, now: Running) -> None:
        """This engine is in use."""
        engine = now.engine
        self.wish = now.wish
        self._running = now
        self.live = Live(
            model=now.model,
            contract=now.contract,
            engine=engine.name,
            engine_version=engine.version,
            reason=f"{engine.device}: {engine.reason}",
            precision=engine.precision,
            batch=min(now.wish.batch, engine.batch),
            since=time.time(),
        )
        self._tell(SlotState.LIVE, f"{now.contract.name} runs on {engine.name} {engine.version} ({engine.precision})")

    def _keep(self, before: Running | None) -> None:
        """Keep what ran before for a rollback. What was kept until now is closed."""
        if self._kept is not None and self._kept is not self._running:
            self._kept.engine.close()
        self._kept = before
        self._on_change()

    def _reported(self, doing: str) -> _Reported:
        return _Reported(self, doing)

    def _tell(self, state: SlotState, message: str) -> None:
        self.state, self.message = state, message
        log.info("model slot %s: %s", state.name, message)
        self._on_change()


class _Reported:
    """Shows an error of its block as the slot's state and message, and raises it as a PtychostreamError."""

    def __init__(self, slot: ModelSlot, doing: str) -> None:
        self._slot = slot
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        state = SlotState.NO_MODEL if self._slot.live is None else SlotState.FAILED
        self._slot._tell(state, f"{self._doing} failed: {error}")
        if not isinstance(error, PtychostreamError) and isinstance(error, Exception):
            # A runtime's own error: engines raise many kinds.
            raise EngineError(str(error), where=self._doing, remedy="try another engine; see the log") from error
