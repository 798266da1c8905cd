"""A model is parsed, built and run in a child process first, with limits of memory and time.

The child builds the engine into the cache of engines, so this process does not compile again what the child has
compiled. A model that has passed is not tried again for the same engine on the same machine: a mark in the cache's
folder says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from importlib import metadata
from pathlib import Path

from ptychostream import errors
from ptychostream.errors import EngineError, ModelError
from ptychostream.plugins.engines.cache import cache_key
from ptychostream.plugins.engines.probing import probe_engines
from ptychostream.plugins.trial.order import EngineOrder
from ptychostream.processes.bounded import Bounds, run_bounded
from ptychostream.processes.hardware import cpu_flags, cpu_name
from ptychostream.storage.atomic import write_bytes_atomic

log = logging.getLogger(__name__)

CHILD = "ptychostream.plugins.trial.trial_child"
_RUNTIMES = ("ptychostream", "onnx", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "torch")
_REMEDY = "export PtychoNN or a network like it; engine.trial_s and engine.trial_memory are the limits"


def try_model(
    data: bytes,
    sidecar: bytes | None,
    path: Path,
    order: EngineOrder,
    bounds: Bounds,
    give_up: threading.Event | None = None,
) -> None:
    """Check a model, build its engine and run its golden pair, all in a child.

    Parameters
    ----------
    data, sidecar
        The model file, and a contract as JSON for a file that has none.
    path
        Named in errors.
    order
        The engine.
    bounds
        Limits of the child.
    give_up
        Ends the trial when set.

    Raises
    ------
    ModelError
        The model is refused, or its trial needed more memory or time than it may, or crashed.
    EngineError
        The engine cannot be built, or the trial was given up or could not start.
    """
    mark = Path(order.cache_dir) / f"trial-{_key(data, sidecar, order)}.passed"
    if mark.is_file():
        return
    header = json.dumps({"path": str(path), "model": len(data), "sidecar": None if sidecar is None else len(sidecar)})
    try:
        ended = run_bounded(CHILD, [order.to_json(), header], bounds, given=data + (sidecar or b""), give_up=give_up)
    except OSError as error:
        what = f"the process that tries the model cannot be started: {error.strerror or error}"
        raise EngineError(what, where=str(path), remedy="free memory or processes of this machine") from error
    if ended.given_up:
        raise EngineError("its trial was given up", where=str(path), remedy="load it again")
    if ended.fault:
        raise ModelError(f"its trial {ended.fault}", where=str(path), remedy=_REMEDY)
    _raise(ended.output, str(path))
    try:
        write_bytes_atomic(mark, b"")
    except OSError as error:
        log.warning("%s cannot be written, the model will be tried again: %s", mark, error.strerror or error)


def _raise(output: bytes, where: str) -> None:
    """Raise the error that the child reports, if it does."""
    try:
        found = json.loads(output)
    except ValueError as error:
        raise ModelError("its trial gave no result", where=where, remedy=_REMEDY) from error
    if kind := found.get("error"):
        cls = getattr(errors, kind, EngineError)
        raise cls(found["what"], where=found["where"], remedy=found["remedy"])
    log.info(
        "%s passed its trial on %s in %.1f s with %.0f MiB", where, found["engine"], found["seconds"], found["peak_mib"]
    )


def _key(data: bytes, sidecar: bytes | None, order: EngineOrder) -> str:
    """What the result of a trial depends on."""
    return cache_key(
        model=hashlib.sha256(data).hexdigest(),
        sidecar=None if sidecar is None else hashlib.sha256(sidecar).hexdigest(),
        order=order.to_json(),
        device=[cpu_name(), sorted(cpu_flags())],
        engines=[status.name for status in probe_engines() if status.available],
        versions=[_version(name) for name in _RUNTIMES],
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
