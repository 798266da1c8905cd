"""ONNX Runtime: the engine that runs on every machine, and the reference for the others."""

from __future__ import annotations

from typing import Any

import onnxruntime

from ptychostream.errors import EngineError
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines.base import BatchedEngine, EngineOptions
from ptychostream.plugins.engines.graph import streaming_graph
from ptychostream.processes.hardware import cores, cpu_name, has_nvidia_gpu

LOG_ERRORS = 3
TENSORRT, CUDA, CPU = "TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxRuntimeEngine(BatchedEngine):
    """float32 on the CPU. On a GPU TF32 by CUDA, or float16 by ONNX Runtime's TensorRT provider."""

    name = "ONNXRuntime"
    supported = ("float32", "tf32", "float16")

    def __init__(self, model: ModelFile, options: EngineOptions) -> None:
        super().__init__(model, options)
        self.version = onnxruntime.__version__
        self.runtime_errors = _errors()
        here = set(onnxruntime.get_available_providers()) if has_nvidia_gpu() else {CPU}
        best = "float16" if TENSORRT in here else "tf32" if CUDA in here else "float32"
        self.precision = self.choose_precision(options.precision, best)
        providers = self._providers(here, options)
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = LOG_ERRORS
        threads = options.threads or cores()
        settings.intra_op_num_threads = threads
        data = streaming_graph(model, self._chunk).SerializeToString()
        try:
            self._session: Any = onnxruntime.InferenceSession(data, settings, providers=providers)
            self._bindings = self._bind(model.phase_output)
        except self.runtime_errors as error:
            what = f"the model cannot be loaded: {str(error).strip()}"
            raise EngineError(what, where=self._where, remedy="choose another engine") from error
        used = self._session.get_providers()[0]
        self.device = f"{threads} of {cores()} cores, {cpu_name()}" if used == CPU else f"GPU by {used}"
        if used == CPU and self.precision != "float32":
            what = f"{providers[0][0]} could not start, so {self.precision} is not available"
            raise EngineError(what, where=self._where, remedy="see its log above, or choose float32")

    def _providers(self, here: set[str], options: EngineOptions) -> list[Any]:
        cuda = (CUDA, {"use_tf32": int(self.precision == "tf32")})
        wanted: dict[str, list[Any]] = {"float16": [], "tf32": [cuda], "float32": [cuda] if CUDA in here else []}
        if self.precision == "float16":
            cache = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(options.cache_dir)}
            wanted["float16"] = [(TENSORRT, {"trt_fp16_enable": True, **(cache if options.cache_dir else {})})]
        chosen = wanted[self.precision]
        missing = [name for name, _ in chosen if name not in here]
        if missing:
            what = f"{self.precision} needs {missing[0]}, which this machine's ONNX Runtime does not have"
            raise EngineError(what, where=self._where, remedy="pip install onnxruntime-gpu, or choose float32")
        return [*chosen, (CPU, {})]

    def _bind(self, phase: str) -> list[Any]:
        """Bind each chunk to the engine's memory, so that nothing is allocated while it runs."""
        bindings = []
        for frames in self._chunks(self._runs):
            binding = self._session.io_binding()
            for name, array in self._feeds(frames).items():
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            out = self._phase[frames]
            binding.bind_output(phase, "cpu", 0, out.dtype, out.shape, out.ctypes.data)
            bindings.append(binding)
        return bindings

    def _run(self, runs: int) -> None:
        for binding in self._bindings[:runs]:
            self._session.run_with_iobinding(binding)

    def _release(self) -> None:
        self._bindings.clear()
        self._session = None


def _errors() -> tuple[type[Exception], ...]:
    """ONNX Runtime's exceptions, which have no common base class."""
    state = onnxruntime.capi.onnxruntime_pybind11_state
    found = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (RuntimeError, *found)
