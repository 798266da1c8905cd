"""Build a TensorRT engine from ONNX. This part of the TensorRT engine needs no GPU.

It works with TensorRT 8.5 to 11 and with TensorRT-RTX. Up to TensorRT 10 float16 is a builder flag. TensorRT 11 and RTX
have no such flag, so float16 is written into the graph.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from typing import Any

from ptychostream.errors import EngineError
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines.cache import cache_key
from ptychostream.plugins.engines.graph import streaming_graph
from ptychostream.plugins.engines.half import to_float16

log = logging.getLogger(__name__)

MODULES = ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")
"""Names of the TensorRT modules. The first installed one is used."""
PRECISIONS = ("float16", "tf32", "float32")
WORKSPACE_BYTES = 1 << 30
GRAPH_VERSION = 1
"""Version of the built engine. Increase it when the build changes, so that older cached engines are not used."""


def find_module() -> str | None:
    """Name of the installed TensorRT module, or None. It is not loaded."""
    return next((name for name in MODULES if importlib.util.find_spec(name) is not None), None)


def load_tensorrt() -> Any:
    """Load the TensorRT module. Raises EngineError if none is installed or it cannot be loaded."""
    name = find_module()
    if name is None:
        remedy = "install TensorRT: with JetPack on a Jetson, from NVIDIA elsewhere; or choose another engine"
        raise EngineError("no TensorRT module is installed", where="engine TensorRT", remedy=remedy)
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError, RuntimeError) as error:
        remedy = "install the TensorRT libraries that belong to it, or choose another engine"
        raise EngineError(f"module {name} does not load: {error}", where="engine TensorRT", remedy=remedy) from error
    if not hasattr(module, "Builder"):
        remedy = "install TensorRT from NVIDIA, or choose another engine"
        raise EngineError(f"module {name} is an empty shell", where="engine TensorRT", remedy=remedy)
    return module


def make_logger(trt: Any) -> Any:
    """A TensorRT logger that writes to Python's log, and keeps the errors in `errors` for an exception's text."""
    levels = {
        trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
        trt.ILogger.Severity.ERROR: logging.ERROR,
        trt.ILogger.Severity.WARNING: logging.WARNING,
        trt.ILogger.Severity.INFO: logging.DEBUG,
        trt.ILogger.Severity.VERBOSE: logging.NOTSET,
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            level = levels.get(severity, logging.DEBUG)
            if level == logging.ERROR:
                self.errors.append(message.strip())
            if level != logging.NOTSET:
                log.log(level, "TensorRT: %s", message.strip())

    return Logger()


def engine_key(trt: Any, model: ModelFile, chunk: int, precision: str, device: str) -> str:
    """Cache key of the result of `build_engine`. `device` names chip and compute capability."""
    return cache_key(
        model=model.sha256,
        runtime=[trt.__name__, trt.__version__],
        graph=GRAPH_VERSION,
        device=device,
        precision=precision,
        shapes=[chunk, model.contract.input_shape, model.contract.output_shape],
    )


def build_engine(
    trt: Any, model: ModelFile, chunk: int, precision: str, *, logger: Any = None, compute_capability: str | None = None
) -> bytes:
    """Parse the model and build an engine.

    Parameters
    ----------
    trt
        The TensorRT module.
    model, chunk
        The model, and the batch size of the engine.
    precision
        One of `PRECISIONS`.
    logger
        Logger from `make_logger`.
    compute_capability
        Build for this chip ("SM120") instead of this machine's GPU. No GPU is needed then. Only TensorRT-RTX has it.

    Raises
    ------
    EngineError
        TensorRT refused the graph or could not build an engine. The text has its messages.
    """
    logger = make_logger(trt) if logger is None else logger
    where = f"engine TensorRT, model {model.contract.name}"
    builder = trt.Builder(logger)
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    proto = streaming_graph(model, chunk)
    typed = not hasattr(trt.BuilderFlag, "FP16")
    if precision == "float16":
        if typed:
            to_float16(proto)
        else:
            config.set_flag(trt.BuilderFlag.FP16)
    if precision == "tf32":
        config.set_flag(trt.BuilderFlag.TF32)
    else:
        config.clear_flag(trt.BuilderFlag.TF32)
    if compute_capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, compute_capability), 0)
    network = builder.create_network(_network_flags(trt, typed))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(proto.SerializeToString()):
        messages = [str(parser.get_error(i)) for i in range(parser.num_errors)]
        remedy = "use operators that this TensorRT knows, or choose another engine"
        raise EngineError(f"the graph is refused: {_summary(messages)}", where=where, remedy=remedy)
    data = builder.build_serialized_network(network, config)
    if data is None:
        remedy = "free GPU memory, or choose another precision or engine"
        raise EngineError(f"no engine could be built: {_summary(logger.errors)}", where=where, remedy=remedy)
    return bytes(data)


def _network_flags(trt: Any, typed: bool) -> int:
    """TensorRT 8 needs a flag for the explicit batch. TensorRT 10 always has it, and 11 has no such flag."""
    flags = trt.NetworkDefinitionCreationFlag
    wanted = [getattr(flags, "EXPLICIT_BATCH", None), getattr(flags, "STRONGLY_TYPED", None) if typed else None]
    return sum(1 << int(flag) for flag in wanted if flag is not None)


def _summary(messages: list[str]) -> str:
    return "; ".join(messages[:3]) or "it gave no reason"
