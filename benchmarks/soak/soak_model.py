"""A small ONNX model for which a marked pattern makes the runtime fail.

phase = π·tanh(counts · dose_scale / 1000). The corner pixel's counts divided by MARK_COUNTS are an index to a table
with one entry. A marked frame has the index of a second entry, so the runtime refuses the batch because of a bad index.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import write_model

MARK_COUNTS = 60_000
PIXEL_M = 10e-9


def mark_graph(side: int) -> onnx.ModelProto:
    """The graph for frames of `side` × `side` pixels."""
    constants = {
        "gain": np.array([1e-3], np.float32),
        "pi": np.array([np.pi], np.float32),
        "mark": np.array([MARK_COUNTS], np.float32),
        "corner_start": np.array([0, 0], np.int64),
        "corner_end": np.array([1, 1], np.int64),
        "corner_axes": np.array([2, 3], np.int64),
        "table": np.zeros(1, np.float32),
    }
    nodes = [
        helper.make_node("Slice", ["counts", "corner_start", "corner_end", "corner_axes"], ["corner"]),
        helper.make_node("Div", ["corner", "mark"], ["marks"]),
        helper.make_node("Cast", ["marks"], ["index"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "index"], ["nothing"], axis=0),
        helper.make_node("Mul", ["counts", "dose_scale"], ["dosed"]),
        helper.make_node("Mul", ["dosed", "gain"], ["scaled"]),
        helper.make_node("Tanh", ["scaled"], ["bounded"]),
        helper.make_node("Mul", ["bounded", "pi"], ["turned"]),
        helper.make_node("Add", ["turned", "nothing"], ["phase"]),
    ]
    frames = ["N", 1, side, side]
    graph = helper.make_graph(
        nodes,
        "marked",
        [
            helper.make_tensor_value_info("counts", TensorProto.FLOAT, frames),
            helper.make_tensor_value_info("dose_scale", TensorProto.FLOAT, [1]),
        ],
        [helper.make_tensor_value_info("phase", TensorProto.FLOAT, frames)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def write_mark_model(path: Path, side: int) -> None:
    """Write the model with its contract to `path`."""
    contract = ModelContract(
        name="soak", network="none", input_shape=(side, side), output_shape=(side, side), object_pixel_m=PIXEL_M
    )
    write_model(path, mark_graph(side), contract)
