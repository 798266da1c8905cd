"""The model slot: it reads and checks a model, builds its engine, and swaps it in between two batches.

If a step fails, the running model continues, and a message says why. An engine is built again from the model's bytes in
memory, so that a later change of the file has no effect; the engines' caches make this fast.
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

from ptychostream.model.contract import ModelContract
from ptychostream.errors import EngineError, ModelError, PtychostreamError
from ptychostream.ioc.model.canary import Canary
from ptychostream.model.model_file import MAX_BYTES, ModelFile, load_model, parse_model
from ptychostream.plugins.flow.batcher import frames_at_once
from ptychostream.plugins.engines import Engine
from ptychostream.plugins.engines.checking import check_engine

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


class CreateEngine(Protocol):
    """Builds the engine of a wish."""

    def __call__(self, wish: EngineWish, model: ModelFile | None, contract: ModelContract) -> Engine: ...


EngineFactory = Callable[[], Engine]

Swap = Callable[[EngineFactory, ModelContract], "Future[str]"]
"""(factory, contract) → a future that is done when the new engine is in use, such as `Pipeline.swap_engine`."""


class ModelSlot:
    """Holds the model that runs and the one before it. Any thread may call its methods; changes wait for each other.

    Parameters
    ----------
    create
        Builds an engine for a wish.
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
        create: CreateEngine,
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
        self._create = create
        self._swap = swap
        self._plain_contract = plain_contract
        self._directory = directory
        self._max_bytes = max_bytes
        self._on_change = on_change
        self._changing = threading.Lock()
        self.wish = wish
        self.state = SlotState.NO_MODEL
        self.message = "no model loaded"
        self.live: Live | None = None
        self.previous: ModelFile | None = None
        self._sha_by_name: dict[str, str] = {}

    def load(self, path: str | Path, data: bytes | None = None, sha256: str = "") -> None:
        """Check a model file, build an engine for it, and swap the engine in.

        Parameters
        ----------
        path
            The file.
        data, sha256
            The file's bytes and their sha256, if the caller has them. The file is not read then.

        Raises
        ------
        ModelError, EngineError
            The model is refused, or the engine cannot be built. The model before it continues.
        """
        with self._changing:
            before = self.live
            with self._reported(f"loading {path}"):
                self._tell(SlotState.STAGING, f"reading {path}")
                staged = self._resolve(path)
                self._tell(SlotState.CHECKING, f"checking {staged.name}")
                if data is None:
                    model = load_model(staged, max_bytes=self._max_bytes)
                else:
                    model = parse_model(data, staged, sha256=sha256)
                self._install(model, self.wish, strict=True)
            if before is not None and before.model is not None and before.model.sha256 != model.sha256:
                self.previous = before.model
                self._on_change()

    def rollback(self, only_from: str | None = None) -> None:
        """Load the model that ran before this one. A second rollback reverses the first.

        Parameters
        ----------
        only_from
            The sha256 that must still be live. None: any model.

        Raises
        ------
        ModelError, EngineError
            There is no previous model, it cannot be built, or another model is live.
        """
        with self._changing:
            if only_from is not None and (self.live is None or self.live.sha256 != only_from):
                raise ModelError("another model is live by now", where="rollback", remedy="judge that one")
            with self._reported("rolling back"):
                if self.previous is None:
                    raise ModelError("no previous model", where="RollbackModel", remedy="load a second model first")
                now, then = self.live, self.previous
                self._install(then, self.wish)
            self.previous = now.model if now is not None else None
            self._on_change()

    def use_engine(self, name: str | None = None, precision: str | None = None, batch: int | None = None) -> None:
        """Change the given parts of the wish, and build the engine again. Without a model the wish is for the next one.

        Raises
        ------
        EngineError, ModelError
            The engine cannot be built. Wish and engine stay as they were.
        """
        given = {"name": name, "precision": precision, "batch": batch}
        with self._changing:
            wish = replace(self.wish, **{key: value for key, value in given.items() if value is not None})  # type: ignore[arg-type]
            model = self.live.model if self.live else None
            if wish == self.wish:
                return
            if model is None and wish.name != "None":
                self._leave_plain(wish)
                return
            with self._reported(f"building {wish.name}"):
                self._install(model, wish)

    def run_plain(self) -> None:
        """Start engine None without a model, as frames of the plain contract. Raises EngineError."""
        with self._changing, self._reported("starting engine None"):
            self._install(None, replace(self.wish, name="None"))

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
        base = self._directory.resolve() if self._directory is not None else Path.cwd()
        staged = (base / path).resolve()
        if self._directory is not None and not staged.is_relative_to(base):
            remedy = f"copy the model into {base} and name it there"
            raise ModelError("lies outside the models folder", where=str(path), remedy=remedy)
        return staged

    def _install(self, model: ModelFile | None, wish: EngineWish, strict: bool = False) -> None:
        """Build the engine and swap it in, then set `live` and `wish`. `strict`: the canary's limit applies."""
        contract = model.contract if model is not None else self._plain_contract
        built: list[Engine] = []

        def factory() -> Engine:
            engine = self._create(wish, model, contract)
            try:
                check_engine(engine, contract, golden=wish.name != "None")
                if wish.name != "None":
                    self.canary.try_out(engine, contract, self.live.contract if self.live else None, strict)
            except BaseException:
                engine.close()
                raise
            built.append(engine)
            return engine

        self._tell(SlotState.BUILDING, f"building {contract.name} on {wish.name}")
        self._sha_by_name[contract.name] = model.sha256 if model is not None else ""
        try:
            self._swap(factory, contract).result()
        except BaseException:
            if self.live is not None:
                self._sha_by_name[self.live.contract.name] = self.live.sha256
            raise
        engine = built[0]
        self.wish = wish
        self.live = Live(
            model=model,
            contract=contract,
            engine=engine.name,
            engine_version=engine.version,
            reason=f"{engine.device}: {engine.reason}",
            precision=engine.precision,
            batch=min(wish.batch, engine.batch),
            since=time.time(),
        )
        self._tell(SlotState.LIVE, f"{contract.name} runs on {engine.name} {engine.version} ({engine.precision})")

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
