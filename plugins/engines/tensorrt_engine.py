"""TensorRT on an NVIDIA GPU. PyCUDA allocates its memory.

A PyCUDA context belongs to the thread that made it. If an engine is loaded in one thread and run in another, the
process aborts. Therefore each engine has its own thread that makes the context, builds or loads the engine, runs it and
frees it. The callers wait for this thread.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pycuda.driver as cuda

from ptychostream.errors import EngineError
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines.base import BatchedEngine, EngineOptions
from ptychostream.plugins.engines.cache import cached, discard
from ptychostream.plugins.engines.tensorrt_build import PRECISIONS, build_engine, engine_key, load_tensorrt, make_logger

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass
class _Gpu:
    """Objects on the device. Only the engine's thread uses them."""

    context: Any
    stream: Any
    runtime: Any
    engine: Any
    execution: Any
    host: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)


class TensorRtEngine(BatchedEngine):
    """The TensorRT engine. "auto" is float16; TF32 and float32 are for the highest accuracy."""

    name = "TensorRT"
    supported = PRECISIONS

    def __init__(self, model: ModelFile, options: EngineOptions) -> None:
        super().__init__(model, options)
        self.precision = self.choose_precision(options.precision, "float16")
        self.runtime_errors = (RuntimeError, cuda.Error)
        self._trt = load_tensorrt()
        self.version = str(self._trt.__version__)
        self._logger = make_logger(self._trt)
        self._output = model.phase_output
        self._gpu: _Gpu | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tensorrt")
        try:
            self._in_thread(lambda: self._start(model, options))
        except self.runtime_errors as error:
            self._thread.shutdown()
            what = f"cannot start: {error}"
            raise EngineError(what, where=self._where, remedy="check the driver with nvidia-smi") from error
        except EngineError:
            self._thread.shutdown()
            raise

    def _in_thread(self, work: Callable[[], T]) -> T:
        return self._thread.submit(work).result()

    def _start(self, model: ModelFile, options: EngineOptions) -> None:
        cuda.init()
        device = cuda.Device(0)
        context = device.make_context()
        try:
            major, minor = device.compute_capability()
            self.device = f"{device.name()}, SM{major}{minor}"
            runtime = self._trt.Runtime(self._logger)
            engine = self._load(runtime, model, options)
            execution = engine.create_execution_context()
            if execution is None:
                what = f"no execution context: {'; '.join(self._logger.errors[-3:])}"
                raise EngineError(what, where=self._where, remedy="free GPU memory")
            gpu = _Gpu(context, cuda.Stream(), runtime, engine, execution)
            self._allocate(gpu)
        except BaseException:
            _leave(context)
            raise
        self._gpu = gpu

    def _load(self, runtime: Any, model: ModelFile, options: EngineOptions) -> Any:
        folder, key = options.cache_dir, engine_key(self._trt, model, self._chunk, self.precision, self.device)
        for _ in range(2):
            data, hit = cached(
                folder,
                "tensorrt",
                key,
                lambda: build_engine(self._trt, model, self._chunk, self.precision, logger=self._logger),
            )
            engine = runtime.deserialize_cuda_engine(data)
            if engine is not None:
                return engine
            if not hit:
                break
            log.warning("%s: TensorRT refuses the cached engine; building it again", self._where)
            discard(folder, "tensorrt", key)
        what = f"the engine cannot be loaded: {'; '.join(self._logger.errors[-3:])}"
        raise EngineError(what, where=self._where, remedy="check that driver and TensorRT belong together")

    def _allocate(self, gpu: _Gpu) -> None:
        """Allocate page-locked and device memory for every named tensor of the engine."""
        ours = {**self._feeds(slice(0, self._chunk)), self._output: self._phase[: self._chunk]}
        for index in range(gpu.engine.num_io_tensors):
            name = gpu.engine.get_tensor_name(index)
            shape = tuple(gpu.engine.get_tensor_shape(name))
            if name not in ours or shape != ours[name].shape:
                what = f"tensor {name!r} of shape {shape} in the engine"
                raise EngineError(what, where=self._where, remedy="delete the engine cache and start again")
            gpu.host[name] = cuda.pagelocked_empty(shape, np.float32)
            gpu.device[name] = cuda.mem_alloc(gpu.host[name].nbytes)
            gpu.execution.set_tensor_address(name, int(gpu.device[name]))

    def _run(self, runs: int) -> None:
        self._in_thread(lambda: self._run_here(runs))

    def _run_here(self, runs: int) -> None:
        gpu = self._gpu
        assert gpu is not None
        for frames in self._chunks(runs):
            for name, array in self._feeds(frames).items():
                if name in gpu.device:
                    gpu.host[name][...] = array
                    cuda.memcpy_htod_async(gpu.device[name], gpu.host[name], gpu.stream)
            if not gpu.execution.execute_async_v3(gpu.stream.handle):
                raise RuntimeError("; ".join(self._logger.errors[-3:]) or "execute_async_v3 failed")
            cuda.memcpy_dtoh_async(gpu.host[self._output], gpu.device[self._output], gpu.stream)
            gpu.stream.synchronize()
            self._phase[frames] = gpu.host[self._output]

    def _release(self) -> None:
        self._in_thread(self._free)
        self._thread.shutdown()

    def _free(self) -> None:
        gpu, self._gpu = self._gpu, None
        if gpu is None:
            return
        context = gpu.context
        gpu.host.clear()
        for block in gpu.device.values():
            block.free()
        del gpu  # free execution context, engine and runtime before the CUDA context
        _leave(context)


def _leave(context: Any) -> None:
    context.pop()
    context.detach()
