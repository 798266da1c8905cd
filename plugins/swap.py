"""Changing the engine: the new one is built and tried in another thread and takes over between two batches."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass

from ptychostream.errors import EngineError
from ptychostream.model.contract import ModelContract
from ptychostream.plugins.engines.base import Engine
from ptychostream.plugins.inference import Inference

_log = logging.getLogger(__name__)

EngineFactory = Callable[[], Engine]


@dataclass
class Swap:
    """One change of the engine: `prepare` makes the new one; `done` gets its name or the error.

    `done` can be cancelled until the inference thread takes the swap. `discard` frees what was built for it.
    """

    prepare: Callable[[], Inference]
    done: Future[str]
    discard: Callable[[], None] = lambda: None


def await_swap(swap: Future[str], deadline_s: float, where: str) -> None:
    """Wait until the engine is in use. A swap that is not taken in time is called off.

    One that the inference thread has begun by then cannot be called off: it has the same time once more.

    Raises
    ------
    EngineError
        The engine was not ready in time. Other errors are those of the swap.
    """
    for _ in range(2):
        try:
            swap.result(deadline_s)
        except NotInTime:
            if swap.done():  # it failed by a TimeoutError of its own, or ended in this moment
                swap.result()
                return
            if swap.cancel():
                break
        else:
            return
    what = f"the engine was not ready within {deadline_s:.3g} s"
    raise EngineError(what, where=where, remedy="try another engine, or raise engine.trial_s")


class SwapQueue:
    """Changes of the engine that wait for the inference thread, in the order in which they were ready.

    Parameters
    ----------
    on_ready
        Called when a change is ready, in any thread.
    """

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        self._building = threading.Lock()  # one build at a time: they take all the memory a Jetson has
        self._lock = threading.Lock()
        self._waiting: deque[Swap] = deque()
        self._closed = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def request(self, factory: EngineFactory, contract: ModelContract, thread_bound: bool) -> Future[str]:
        """Prepare the engine in a thread of its own, or leave that to the inference thread; then queue."""
        swap = Swap(lambda: _prepare(factory, contract), Future())
        if thread_bound:
            self._put(swap)
        else:
            threading.Thread(target=self._build, args=(swap,), name="engine build", daemon=True).start()
        return swap.done

    def take(self) -> Swap | None:
        """The next swap that was not cancelled, for the inference thread to carry out; nobody can cancel it then."""
        while True:
            with self._lock:
                swap = self._waiting.popleft() if self._waiting else None
            if swap is None or swap.done.set_running_or_notify_cancel():
                return swap
            swap.discard()

    def close(self) -> None:
        """Refuse all waiting and later changes."""
        with self._lock:
            self._closed = True
            refused, self._waiting = self._waiting, deque()
        for swap in refused:
            _fail(swap, _stopped())

    def _build(self, swap: Swap) -> None:
        with self._building:
            if swap.done.cancelled():
                return
            try:
                inference = swap.prepare()
            except Exception as error:  # noqa: BLE001 - the thread's outermost; the caller gets the error
                _fail(swap, error)
                return
            self._put(Swap(lambda: inference, swap.done, lambda: close_engine(inference.engine)))

    def _put(self, swap: Swap) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                self._waiting.append(swap)
        if closed:
            _fail(swap, _stopped())
        else:
            self._on_ready()


def _prepare(factory: EngineFactory, contract: ModelContract) -> Inference:
    engine = factory()
    try:
        inference = Inference(engine, contract)
        inference.warm_up()
    except BaseException:
        close_engine(engine)
        raise
    return inference


def close_engine(engine: Engine) -> None:
    """Close an engine; a failure is only logged."""
    try:
        engine.close()
    except Exception:  # noqa: BLE001 - an engine is foreign code
        _log.exception("engine %s did not close", engine.name)


def _fail(swap: Swap, error: Exception) -> None:
    """Tell whoever waits, unless nobody does any more, and free what was built."""
    if swap.done.set_running_or_notify_cancel():
        swap.done.set_exception(error)
    swap.discard()


def _stopped() -> EngineError:
    return EngineError("the pipeline has stopped", where="engine swap", remedy="start it again")
