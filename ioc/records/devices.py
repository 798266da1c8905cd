"""Puts to Python: a record tagged `info(python:put, "name")` calls the handler of that name.

The templates stay plain EPICS: device type and link are set here, before iocInit, and the value that the template
or autosave gave is handed to the device, which would otherwise start from zero.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from softioc import device

from ptychostream.errors import ConfigError, PtychostreamError
from ptychostream.ioc.records.database import RecordInfo, get_static, put_static

log = logging.getLogger(__name__)

Handler = Callable[[Any], None]

_MAKERS: dict[str, tuple[Callable[..., Any], Callable[[str], Any]]] = {
    "ao": (device.ao, lambda text: float(text or 0)),
    "longout": (device.longout, lambda text: int(text or 0)),
    "int64out": (device.int64out, lambda text: int(text or 0)),
    "bo": (device.bo, lambda text: int(text or 0)),
    "mbbo": (device.mbbo, lambda text: int(text or 0)),
    "stringout": (device.stringout, str),
}


class Dispatcher:
    """softioc's way from a put to Python: quick handlers in order on one thread, slow ones on their own.

    A slow handler (loading a model) must not keep the others waiting; quick ones keep the order of their puts. Slow
    ones can fill all their threads, so what must go before them (a rollback) has a lane of its own, "first".

    Parameters
    ----------
    on_done
        Called after each put with what its handler raised, ours or not, or None: the put itself completes all the
        same.

    Notes
    -----
    Puts wait until `open`: records process at iocInit, before everything they act on has started.
    """

    def __init__(self, on_done: Callable[[Exception | None], None], slow_threads: int = 8) -> None:
        self._quick = ThreadPoolExecutor(1, thread_name_prefix="put")
        self._lanes = {
            "slow": ThreadPoolExecutor(slow_threads, thread_name_prefix="command"),
            "first": ThreadPoolExecutor(1, thread_name_prefix="rollback"),
        }
        self._on_done = on_done
        self._opened = threading.Event()
        self._closed = threading.Event()

    def open(self) -> None:
        """Let puts through."""
        self._opened.set()

    def run_slow(self, action: Callable[[], None]) -> None:
        """Run `action` in the slow lane, as if a put had asked for it. `on_done` is called only if it fails."""
        if not self._closed.is_set():
            self._lanes["slow"].submit(self._run_quietly, action)

    def _run_quietly(self, action: Callable[[], None]) -> None:
        self._opened.wait()
        if (failure := _failure_of(action)) is not None:
            self._on_done(failure)

    def __call__(
        self,
        func: Handler,
        func_args: tuple[Any, ...] = (),
        completion: Callable[..., None] | None = None,
        completion_args: tuple[Any, ...] = (),
    ) -> None:
        if self._closed.is_set():  # a put that came while the IOC ends: nothing is there to serve it
            return
        pool = self._lanes.get(getattr(func, "lane", ""), self._quick)
        pool.submit(self._run, func, func_args, completion, completion_args)

    def _run(
        self,
        func: Handler,
        func_args: tuple[Any, ...],
        completion: Callable[..., None] | None,
        completion_args: tuple[Any, ...],
    ) -> None:
        self._opened.wait()
        failure = _failure_of(lambda: func(*func_args))
        try:
            self._on_done(failure)
        finally:
            if completion is not None and not self._closed.is_set():
                completion(*completion_args)

    def close(self) -> None:
        """Take no more puts; what is queued is dropped, what runs is not waited for."""
        self._closed.set()
        self._opened.set()
        for pool in (self._quick, *self._lanes.values()):
            pool.shutdown(wait=False, cancel_futures=True)


def _failure_of(action: Callable[[], object]) -> Exception | None:
    """Do it, and give what it raised."""
    try:
        action()
    except PtychostreamError as error:
        log.warning("%s", error)
        return error
    except Exception as error:
        log.exception("a put failed")
        return error
    return None


class InLane:
    """A handler for one of the dispatcher's lanes, "slow" or "first"."""

    def __init__(self, handler: Handler, lane: str) -> None:
        self.lane = lane
        self._handler = handler

    def __call__(self, value: Any) -> None:
        self._handler(value)


def bind(
    infos: Iterable[RecordInfo], handler_of: Callable[[RecordInfo, str], Handler], texts: Mapping[str, str]
) -> None:
    """Give every tagged record its handler. Before iocInit.

    Parameters
    ----------
    infos
        The records of the database.
    handler_of
        Gives the handler of a record and the name in its `info(python:put, "name")`.
    texts
        Starting values by record name, where they are not the template's.

    Raises
    ------
    ConfigError
        A starting value is not one that its record can hold.
    """
    for info in infos:
        name = info.info.get("python:put")
        if name is None:
            continue
        handler: Handler = handler_of(info, name)
        if lane := info.info.get("python:lane"):
            handler = InLane(handler, lane)
        _make(info, handler, texts.get(info.name))


def _make(info: RecordInfo, handler: Handler, text: str | None) -> None:
    try:
        _make_device(info, handler, text)
    except (ValueError, AssertionError) as error:  # softioc asserts that a text fits
        raise ConfigError(f"{text!r}", where=info.name, remedy="give a value that the record can hold") from error


def _make_device(info: RecordInfo, handler: Handler, text: str | None) -> None:
    options: dict[str, Any] = {"on_update": handler, "always_update": True, "blocking": True}
    if info.type == "waveform":
        length, kind, link = int(info.fields["NELM"]), "PythonWfOut", "INP"
        if info.fields["FTVL"] == "CHAR":
            kind = "PythonLongStringOut"
            chars = {"_wf_nelm": length, "_wf_dtype": np.dtype("u1")}
            device.long_stringout(info.name, initial_value=text or "", **chars, **options)
        else:
            empty = np.empty(0, np.float64)
            device.waveform_out(info.name, _wf_nelm=length, _wf_dtype=np.dtype("f8"), initial_value=empty, **options)
    else:
        kind, link = "Python", "OUT"
        make, parse = _MAKERS[info.type]
        if text is None:  # not always: dbStaticLib gives a double back in 15 digits only
            text = get_static(info.name, "VAL") or ""
        make(info.name, initial_value=parse(text), **options)
    put_static(info.name, "DTYP", kind)
    put_static(info.name, link, f"@{info.name}")
