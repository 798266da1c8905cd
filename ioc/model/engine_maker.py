"""Builds the engine that a wish names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptychostream.model.contract import ModelContract
from ptychostream.errors import EngineError
from ptychostream.ioc.model.model_slot import EngineWish
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines import Engine, create_engine
from ptychostream.plugins.engines.plain import PLAIN, PlainEngine


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
    """

    def __init__(self, cache_dir: Path, threads: int | None, automatic: str = "Auto") -> None:
        self._cache_dir = cache_dir
        self._threads = threads
        self._automatic = automatic

    def __call__(self, wish: EngineWish, model: ModelFile | None, contract: ModelContract) -> Engine:
        """See `ptychostream.ioc.model.model_slot.CreateEngine`."""
        if wish.name == PLAIN and contract.input_shape != contract.output_shape:
            raise EngineError(
                f"the model turns {contract.input_shape} into {contract.output_shape}",
                where="engine None",
                remedy="engine None passes patterns on: load a model with equal shapes, or choose another engine",
            )
        if wish.name == PLAIN:
            return PlainEngine(contract.input_shape, wish.at_once)
        if model is None:
            raise EngineError("no model", where=f"engine {wish.name}", remedy="load a model first")
        with own_symbols_first():
            return create_engine(
                self._automatic if wish.name == "Auto" else wish.name,
                model,
                batch=wish.at_once,
                chunk=wish.batch,
                precision=wish.precision,
                cache_dir=self._cache_dir,
                threads=self._threads,
            )
