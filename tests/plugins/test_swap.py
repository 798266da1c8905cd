"""Waiting for a change of the engine: it ends in time, by the engine, its error, or an error that says what to do."""

from __future__ import annotations

import threading
from concurrent.futures import Future

import pytest

from ptychostream.errors import EngineError
from ptychostream.plugins.swap import await_swap

pytestmark = pytest.mark.timeout(30)


def test_a_swap_that_nobody_takes_is_called_off() -> None:
    swap: Future[str] = Future()
    with pytest.raises(EngineError, match=r"not ready within 0.05 s") as caught:
        await_swap(swap, 0.05, "loading m.onnx")
    assert swap.cancelled()
    assert caught.value.where == "loading m.onnx"
    assert "engine.trial_s" in caught.value.remedy


def test_a_swap_that_was_begun_and_never_ends_is_an_error_too() -> None:
    swap: Future[str] = Future()
    swap.set_running_or_notify_cancel()
    with pytest.raises(EngineError, match="not ready within"):
        await_swap(swap, 0.05, "loading m.onnx")
    assert swap.running()


def test_a_swap_that_was_begun_in_time_has_as_long_again() -> None:
    swap: Future[str] = Future()
    swap.set_running_or_notify_cancel()
    asked = threading.Event()
    cancel = swap.cancel

    def cancelled() -> bool:
        asked.set()
        return cancel()

    swap.cancel = cancelled  # type: ignore[method-assign]
    ends = threading.Thread(target=lambda: (asked.wait(20), swap.set_result("engine")))
    ends.start()
    waits = threading.Thread(target=await_swap, args=(swap, 0.05, ""))
    waits.start()
    ends.join(20)
    waits.join(20)
    assert asked.is_set() and not waits.is_alive()


@pytest.mark.parametrize("error", [EngineError("broken", where="engine", remedy="another"), TimeoutError("a driver's")])
def test_the_error_of_a_swap_is_its_own(error: Exception) -> None:
    swap: Future[str] = Future()
    swap.set_exception(error)
    with pytest.raises(type(error), match=str(error)[:6]):
        await_swap(swap, 1.0, "")
    done: Future[str] = Future()
    done.set_result("engine")
    await_swap(done, 1.0, "")
