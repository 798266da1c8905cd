"""Builds the engine that a wish names, and has a model tried before."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychostream.ioc.model.model_slot import EngineWish
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines import Engine
from ptychostream.plugins.trial.order import EngineOrder
from ptychostream.plugins.engines.settings import EngineSettings
from ptychostream.plugins.trial.trial import try_model
from ptychostream.processes.bounded import Bounds


@contextmanager
def own_symbols_first() -> Iterator[None]:
    """Libraries that are loaded in the block use their own symbols before global symbols.

    QSRV must be loaded globally, and its instances of C++ templates, which are built for another C++ ABI, become global
    with it. OpenVINO used these instances for its regular expressions and aborted when it read a cached engine.
    """
    before = sys.getdlopenflags()
    sys.setdlopenflags(before | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        yield
    finally:
        sys.setdlopenflags(before)


class EngineMaker:
    """Builds what an `EngineWish` asks for.

    Parameters
    ----------
    cache_dir
        Folder of the built engines.
    threads
        Processor cores of a CPU engine; None: all.
    automatic
        The engine that the wish "Auto" means: "Auto", or "module:Class" for an engine of one's own.
    bounds
        Limits of the child process that tries a model; None: those of the default settings.
    """

    def __init__(
        self, cache_dir: Path, threads: int | None, automatic: str = "Auto", bounds: Bounds | None = None
    ) -> None:
        self.bounds = bounds or EngineSettings().trial_bounds
        self._cache_dir = cache_dir
        self._threads = threads
        self._automatic = automatic

    def __call__(self, wish: EngineWish, model: ModelFile | None, contract: ModelContract) -> Engine:
        """See `ptychostream.ioc.model.model_slot.Maker`."""
        with own_symbols_first():
            return self._order(wish).create(model, contract)

    def try_out(
        self, wish: EngineWish, data: bytes, sidecar: bytes | None, path: Path, give_up: threading.Event
    ) -> None:
        """See `ptychostream.ioc.model.model_slot.Maker`."""
        try_model(data, sidecar, path, self._order(wish), self.bounds, give_up)

    def _order(self, wish: EngineWish) -> EngineOrder:
        return EngineOrder(
            name=self._automatic if wish.name == "Auto" else wish.name,
            batch=wish.at_once,
            chunk=wish.batch,
            precision=wish.precision,
            cache_dir=str(self._cache_dir),
            threads=self._threads,
        )
