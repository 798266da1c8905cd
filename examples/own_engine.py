"""An inference engine of one's own: ONNX's reference evaluator, which computes the graph in numpy.

    PYTHONPATH=examples ptychostream ioc --config ioc.toml ...

with this in ioc.toml:

    [engine]
    own = "own_engine:ReferenceEngine"
"""

import onnx
from onnx.reference import ReferenceEvaluator

from ptychostream import ModelFile
from ptychostream.plugins.engines.base import BatchedEngine, EngineOptions


class ReferenceEngine(BatchedEngine):
    """Slow and simple. `BatchedEngine` checks, scales and pads the counts."""

    name = "Reference"
    supported = ("float32",)

    def __init__(self, model: ModelFile, options: EngineOptions) -> None:
        super().__init__(model, options)
        self.version = onnx.__version__
        self.device = "CPU, numpy"
        self.precision = self.choose_precision(options.precision, "float32")
        self._output = model.phase_output
        self._graph = ReferenceEvaluator(onnx.load_from_string(model.data))

    def _run(self, runs: int) -> None:
        for frames in self._chunks(runs):
            (phase,) = self._graph.run([self._output], self._feeds(frames))
            self._phase[frames] = phase

    def _release(self) -> None:
        del self._graph
