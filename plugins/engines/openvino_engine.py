"""OpenVINO on the CPU: the fastest engine without a GPU.

Each frame is one inference request that runs on one thread. There are as many streams as threads, and they take
requests from a queue. On the busy cores of an edge machine this is faster than one request for the batch: no barrier
waits for the slowest thread, the data of a frame stays in the cache of one core, and a short batch costs only its
frames.
"""

from __future__ import annotations

import io
import logging
from typing import Any

import numpy as np
import onnx
import openvino
from numpy.typing import NDArray
from onnx import helper

from ptychostream.errors import EngineError
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines.base import BatchedEngine, EngineOptions
from ptychostream.plugins.engines.cache import cache_key, cached, discard
from ptychostream.plugins.engines.graph import streaming_graph
from ptychostream.plugins.engines.quantise import quantise
from ptychostream.plugins.engines.subpixel import merge_last_enlargement
from ptychostream.processes.hardware import cores, cpu_flags, cpu_name, has_bfloat16

log = logging.getLogger(__name__)

GRAPH_VERSION = 1
"""Version of the rewritten graph. Increase it when the rewriting changes, so that older cached engines are not used."""
HINTS = {"float32": "f32", "bfloat16": "bf16"}


class OpenVinoEngine(BatchedEngine):
    """See the module. With "int8" the layers that stay unquantised have the better of the other two precisions."""

    name = "OpenVINO"
    supported = ("bfloat16", "float32", "int8")

    def __init__(self, model: ModelFile, options: EngineOptions) -> None:
        super().__init__(model, options, chunk=model.fixed_batch or 1)
        self.version = openvino.__version__.partition("-")[0]
        self.precision = self.choose_precision(options.precision, "bfloat16" if has_bfloat16() else "float32")
        threads = options.threads or cores()
        streams = min(threads, self._runs)
        self.device = f"{threads} of {cores()} cores, {cpu_name()}"
        rest = "bfloat16" if self.precision == "int8" and has_bfloat16() else self.precision
        self._config = {
            "INFERENCE_PRECISION_HINT": HINTS.get(rest, "f32"),
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": threads,
            "ENABLE_CPU_PINNING": False,  # receiving and stitching share these cores
        }
        self._core: Any = openvino.Core()
        try:
            self._requests = self._start(self._load(model, options))
        except RuntimeError as error:
            what = f"the model cannot be compiled: {str(error).strip().splitlines()[-1]}"
            raise EngineError(what, where=self._where, remedy="choose another engine") from error

    def _load(self, model: ModelFile, options: EngineOptions) -> Any:
        folder = options.cache_dir
        if folder is None:
            return self._core.compile_model(self._graph(model), "CPU", self._config)
        key = cache_key(
            model=model.sha256,
            contract=model.contract.to_json(),
            runtime=openvino.__version__,
            graph=GRAPH_VERSION,
            device=[cpu_name(), sorted(cpu_flags())],
            precision=self.precision,
            chunk=self._chunk,
            config=self._config,
        )
        blob, hit = cached(folder, "openvino", key, lambda: self._build(model))
        try:
            return self._core.import_model(io.BytesIO(blob), "CPU", self._config)
        except RuntimeError:
            if not hit:
                raise
            log.warning("%s: OpenVINO refuses the cached engine; building it again", self._where)
            discard(folder, "openvino", key)
            return self._load(model, options)

    def _build(self, model: ModelFile) -> bytes:
        compiled = self._core.compile_model(self._graph(model), "CPU", self._config)
        blob: bytes = compiled.export_model().getvalue()
        return blob

    def _graph(self, model: ModelFile) -> Any:
        proto = streaming_graph(model, self._chunk)
        merge_last_enlargement(proto)
        if self.precision == "int8":
            quantise(proto, model.contract.golden, lambda *arguments: self._calibrate(model, *arguments))
        return self._core.read_model(proto.SerializeToString())

    def _calibrate(
        self, model: ModelFile, proto: onnx.ModelProto, names: list[str], counts: NDArray[np.float32], dose: float
    ) -> dict[str, NDArray[np.float32]]:
        """Compute tensors of the graph for these counts in float32."""
        probe = onnx.ModelProto()
        probe.CopyFrom(proto)
        probe.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
        compiled = self._core.compile_model(
            self._core.read_model(probe.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
        )
        found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in names}
        padded = np.zeros((-len(counts) % self._chunk + len(counts), 1, *self.input_shape), dtype=np.float32)
        padded[: len(counts), 0] = counts if model.has_dose_scale else counts * np.float32(dose)
        for start in range(0, len(padded), self._chunk):
            feeds: dict[str, Any] = {model.counts_input: padded[start : start + self._chunk]}
            if model.dose_input is not None:
                feeds[model.dose_input] = np.full(model.dose_shape, dose, dtype=np.float32)
            results = compiled(feeds)
            for name in names:
                found[name].append(np.array(results[name]))
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def _start(self, compiled: Any) -> list[Any]:
        requests = []
        inputs = {name for port in compiled.inputs for name in port.names}
        for frames in self._chunks(self._runs):
            request = compiled.create_infer_request()
            for name, array in self._feeds(frames).items():
                if name in inputs:
                    request.set_tensor(name, openvino.Tensor(array, shared_memory=True))
            request.set_output_tensor(0, openvino.Tensor(self._phase[frames], shared_memory=True))
            requests.append(request)
        return requests

    def _run(self, runs: int) -> None:
        started, errors = [], []
        try:
            for request in self._requests[:runs]:
                request.start_async()
                started.append(request)
        finally:
            for request in started:  # wait for all of them, so that none is busy at the next call
                try:
                    request.wait()
                except RuntimeError as error:
                    errors.append(error)
        if errors:
            raise errors[0]

    def _release(self) -> None:
        self._requests.clear()
        self._core = None
