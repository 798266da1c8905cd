"""From an engine's record name to an engine, and the compiled kernels loaded before the first frame needs them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychostream.contract import ModelContract, Preprocessing
from ptychostream.errors import EngineError
from ptychostream.ioc.model_slot import EngineWish
from ptychostream.model_file import ModelFile
from ptychostream.plugins.engines import Engine, NullEngine, create_engine


PLAIN = "None"
_HIGHEST_RAD = np.float32(31.0)


@contextmanager
def own_symbols_first() -> Iterator[None]:
    """Libraries that are loaded in the block use their own symbols before those that others made global.

    QSRV has to be global, and with it its instances of C++ templates, built for another C++ ABI: OpenVINO, whose
    regular expressions met them, aborted when it read a cached engine.
    """
    before = sys.getdlopenflags()
    sys.setdlopenflags(before | getattr(os, "RTLD_DEEPBIND", 0))
    try:
        yield
    finally:
        sys.setdlopenflags(before)


class PlainEngine(NullEngine):
    """Engine None for a canvas: counts cut where a canvas takes no more for a phase (±10π rad)."""

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        """See `ptychostream.plugins.engines.Engine.infer`."""
        passed = super().infer(counts, dose_scale)
        return np.minimum(passed, _HIGHEST_RAD, out=passed)


class EngineMaker:
    """Builds what an `EngineWish` asks for.

    Parameters
    ----------
    cache_dir
        Where built engines are kept.
    threads
        Processor cores of a CPU engine; None: all.
    """

    def __init__(self, cache_dir: Path, threads: int | None) -> None:
        self._cache_dir = cache_dir
        self._threads = threads

    def __call__(self, wish: EngineWish, model: ModelFile | None, contract: ModelContract) -> Engine:
        """See `ptychostream.ioc.model_slot.CreateEngine`."""
        if wish.name == PLAIN and contract.input_shape != contract.output_shape:
            raise EngineError(
                f"the model turns {contract.input_shape} into {contract.output_shape}",
                where="engine None",
                remedy="engine None passes patterns on: load a model with equal shapes, or choose another engine",
            )
        if wish.name == PLAIN:
            return PlainEngine(contract.input_shape, wish.batch)
        if model is None:
            raise EngineError("no model", where=f"engine {wish.name}", remedy="load a model first")
        with own_symbols_first():
            return create_engine(
                wish.name,
                model,
                batch=wish.batch,
                precision=wish.precision,
                cache_dir=self._cache_dir,
                threads=self._threads,
            )


def default_cache() -> Path:
    """The user's folder for built engines (XDG base directory specification)."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "ptychostream" / "engines"


def plain_contract(shape: tuple[int, int], pixel_m: float) -> ModelContract:
    """The contract of engine None without a model: frames as they are, on a canvas of `pixel_m`."""
    return ModelContract(
        name="none", network="none", input_shape=shape, output_shape=shape, object_pixel_m=pixel_m,
        preprocessing=Preprocessing(saturated_is_bad=False),
    )  # fmt: skip
