"""Tiny ONNX models for tests: phase = counts · dose_scale · gain, so that every result is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychostream.model.contract import GoldenPair, ModelContract, PackedArray
from ptychostream.model.model_file import write_model


def tiny_graph(size: int = 16, gain: float = 0.01, output_size: int | None = None) -> onnx.ModelProto:
    """A model of `size`² frames; `output_size` declares another output than the graph gives."""
    out = output_size or size
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["counts", "dose_scale"], ["scaled"]),
            helper.make_node("Mul", ["scaled", "gain"], ["phase"]),
        ],
        "tiny",
        [
            helper.make_tensor_value_info("counts", TensorProto.FLOAT, ["N", 1, size, size]),
            helper.make_tensor_value_info("dose_scale", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("phase", TensorProto.FLOAT, ["N", 1, out, out])],
        [numpy_helper.from_array(np.array([gain], np.float32), "gain")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def tiny_contract(size: int = 16, gain: float = 0.01, name: str = "tiny", lie: float = 0.0) -> ModelContract:
    """Its contract, with a golden pair that is off by `lie` rad."""
    counts = np.random.default_rng(0).integers(0, 50, (3, size, size)).astype(np.float32)
    phase = counts * np.float32(gain) + np.float32(lie)
    golden = GoldenPair(counts=PackedArray.pack(counts), phase=PackedArray.pack(phase), tolerance=0.01)
    return ModelContract(
        name=name, network="tiny", input_shape=(size, size), output_shape=(size, size), object_pixel_m=10e-9,
        mean_counts=1000.0, golden=golden,
    )  # fmt: skip


def write_tiny(path: Path, size: int = 16, gain: float = 0.01, name: str = "tiny", lie: float = 0.0) -> str:
    """Write one to `path`; returns its sha256."""
    return write_model(path, tiny_graph(size, gain), tiny_contract(size, gain, name, lie))
