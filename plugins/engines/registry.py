"""Create an engine by its name, or the fastest available one."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path

from ptychostream.config import load_object
from ptychostream.errors import EngineError
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines.base import BatchedEngine, Engine, EngineOptions
from ptychostream.plugins.engines.null import NullEngine
from ptychostream.plugins.engines.probing import Candidate, candidates

log = logging.getLogger(__name__)

AUTO = "Auto"


def engine_names() -> list[str]:
    """The names that `create_engine` accepts."""
    return [AUTO, *(candidate.name for candidate in candidates()), NullEngine.name]


def engine_precisions(name: str) -> tuple[str, ...]:
    """The precisions of an engine. It loads the runtime. Raises EngineError if the engine is not available."""
    found = {candidate.name: candidate for candidate in candidates()}
    if name not in found:
        raise EngineError(f"unknown engine {name!r}", where="engine", remedy=f"{_here()}; {_names()}")
    return _engine_class(found[name]).supported


def create_engine(
    name: str,
    model: ModelFile | None,
    *,
    batch: int = 8,
    precision: str = "auto",
    cache_dir: str | Path | None = None,
    threads: int | None = None,
    chunk: int | None = None,
    shape: tuple[int, int] | None = None,
) -> Engine:
    """Build an engine for a model.

    Parameters
    ----------
    name
        One of `engine_names()`, in upper or lower case. "Auto" takes the fastest engine that starts, and gives the
        reason in `reason` and in the log. Or "module:Class": an engine of one's own, whose class takes a `ModelFile`
        and `EngineOptions`; `BatchedEngine` is a base for it.
    model
        The model to run. "none" needs no model if `shape` is given.
    batch
        The largest number of frames in a call.
    precision
        "auto": the fastest precision that stays within the golden pair's tolerance for trained networks (never int8).
        Or "float32", "tf32", "bfloat16", "float16" or "int8", if the engine supports it.
    cache_dir
        Folder of built engines. None: they are not stored.
    threads
        Number of cores for a CPU engine. None: all that this process may use.
    chunk
        Number of frames per run of the runtime, if neither engine nor model prescribes it. None: `batch`. Of all
        arguments for one engine and model, only this one and `precision` change a frame's phase, this one in the last
        bits.
    shape
        (H, W) for "none" without a model.

    Raises
    ------
    EngineError
        The name is unknown, the engine cannot run here, or it refuses the model.
    """
    if batch < 1 or (threads is not None and threads < 1) or (chunk is not None and chunk < 1):
        what = f"batch {batch}, threads {threads}, chunk {chunk}"
        raise EngineError(what, where=f"engine {name}", remedy="each must be at least 1")
    if name.lower() == NullEngine.name:
        return _create_null(model, batch, shape)
    found = {candidate.name.lower(): candidate for candidate in candidates()}
    if ":" not in name and name.lower() != AUTO.lower() and name.lower() not in found:
        raise EngineError(f"unknown engine {name!r}", where="engine", remedy=f"{_here()}; {_names()}")
    if model is None:
        raise EngineError("no model", where=f"engine {name}", remedy="load a model, or choose engine none")
    options = EngineOptions(batch, precision, None if cache_dir is None else Path(cache_dir), threads, chunk)
    if name.lower() == AUTO.lower():
        return _create_fastest(model, options)
    engine = _create_own(name, model, options) if ":" in name else _create(found[name.lower()], model, options)
    engine.reason = "asked for"
    return engine


def _create_own(place: str, model: ModelFile, options: EngineOptions) -> Engine:
    try:
        kind = load_object(place)
    except ValueError as error:
        raise EngineError(str(error), where=f"engine {place}", remedy="correct engine.own, or clear it") from error
    engine: Engine = kind(model, options)
    return engine


def _create(candidate: Candidate, model: ModelFile, options: EngineOptions) -> BatchedEngine:
    return _engine_class(candidate)(model, options)


def _engine_class(candidate: Candidate) -> type[BatchedEngine]:
    status = candidate.probe(candidate.name)
    if not status.available:
        raise EngineError(status.reason, where=f"engine {candidate.name}", remedy=_here())
    try:
        module = importlib.import_module(f"ptychostream.plugins.engines.{candidate.module}")
    except (ImportError, OSError) as error:
        what = f"its runtime does not load: {error}"
        raise EngineError(what, where=f"engine {candidate.name}", remedy="install it again; " + _here()) from error
    kind: type[BatchedEngine] = getattr(module, candidate.kind)
    return kind


def _create_fastest(model: ModelFile, options: EngineOptions) -> BatchedEngine:
    passed: list[str] = []
    for candidate in candidates():
        try:
            engine = _create(candidate, model, options)
        except EngineError as error:
            passed.append(f"{candidate.name}: {error.what}")
            continue
        engine.reason = "; ".join(["fastest that is here", *passed])
        log.info(
            "engine %s %s, %s, %s: %s", engine.name, engine.version, engine.precision, engine.device, engine.reason
        )
        return engine
    remedy = "pip install 'ptychostream[edge]'"
    raise EngineError(f"no engine can run this model ({'; '.join(passed)})", where="engine Auto", remedy=remedy)


def _create_null(model: ModelFile | None, batch: int, shape: tuple[int, int] | None) -> NullEngine:
    size = model.contract.input_shape if model is not None else shape
    if size is None:
        raise EngineError("neither a model nor a shape", where="engine none", remedy="give the shape of the frames")
    return NullEngine(size, batch)


def _here() -> str:
    statuses = [candidate.probe(candidate.name) for candidate in candidates()]
    names = [status.name for status in statuses if status.available]
    return f"available here: {', '.join([*names, NullEngine.name])}"


def _names() -> str:
    return f"known: {', '.join(engine_names())}"
