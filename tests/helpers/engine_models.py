"""Small models for engine tests: the shape of PtychoNN, made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from ptychostream.model.contract import GoldenPair, ModelContract, PackedArray
from ptychostream.model.model_file import ModelFile, load_model, write_model

SIDE = 32


def counts_of(frames: int, seed: int = 1, side: int = SIDE) -> NDArray[np.float32]:
    """[frames, side, side] Poisson counts, brighter in the middle."""
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    mean = 40 * np.exp(-3 * (x**2 + y**2))
    return np.random.default_rng(seed).poisson(mean, (frames, side, side)).astype(np.float32)


def make_proto(
    *,
    width: int = 16,
    side: int = SIDE,
    dose: bool = True,
    batch: int | None = None,
    opset: int = 17,
    extra: str = "",
    **attributes: object,
) -> onnx.ModelProto:
    """Encoder-decoder on √counts with phase = π·tanh; `extra` puts an operator of that name before the tanh."""
    rng = np.random.default_rng(7)
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def constant(name: str, value: NDArray[np.generic]) -> str:
        weights.append(numpy_helper.from_array(value, name))
        return name

    def add(operator: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        output = output or f"{operator}_{len(nodes)}"
        nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def convolution(x: str, channels: int, filters: int) -> str:
        scale = np.sqrt(2 / (9 * channels))
        weight = (rng.standard_normal((filters, channels, 3, 3)) * scale).astype(np.float32)
        bias = (rng.standard_normal(filters) * 0.1).astype(np.float32)
        names = [constant(f"w{len(nodes)}", weight), constant(f"b{len(nodes)}", bias)]
        return add("Conv", [x, *names], kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    x = "counts"
    if dose:
        x = add("Mul", [x, "dose_scale"])
    x = add("Sqrt", [x])
    x = add("Mul", [x, constant("gain", np.array([0.5], np.float32))])
    x = add("Sub", [x, constant("offset", np.array([0.5], np.float32))])
    x = add("Relu", [convolution(x, 1, width)])
    x = add("Relu", [convolution(x, width, width)])
    x = add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    x = add("Relu", [convolution(x, width, 2 * width)])
    x = add("Relu", [convolution(x, 2 * width, width)])
    constant("enlarge", np.array([1, 1, 2, 2], np.float32))
    x = add("Resize", [x, "", "enlarge"], mode="linear", coordinate_transformation_mode="half_pixel")
    x = add("Mul", [convolution(x, width, 1), constant("quarter", np.array([0.25], np.float32))])
    if extra:
        x = add(extra, [x], **attributes)
    amplitude = add("Sigmoid", [x], "amplitude")
    add("Mul", [add("Tanh", [x]), constant("pi", np.array([np.pi], np.float32))], "phase")

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch or "N", 1, side, side])

    inputs = [value("counts")]
    if dose:
        inputs.append(helper.make_tensor_value_info("dose_scale", TensorProto.FLOAT, [1]))
    graph = helper.make_graph(nodes, "small", inputs, [value("phase"), value(amplitude)], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def reference(proto: onnx.ModelProto, counts: NDArray[np.float32], dose: float = 1.0) -> NDArray[np.float32]:
    """[n, H, W] → [n, h, w] by ONNX's own slow implementation, which is no engine of ours."""
    feeds = {"counts": counts[:, None]}
    if len(proto.graph.input) > 1:
        feeds["dose_scale"] = np.array([dose], np.float32)
    phase: NDArray[np.float32] = ReferenceEvaluator(proto).run(["phase"], feeds)[0]
    return phase[:, 0]


def make_model(
    folder: Path, proto: onnx.ModelProto | None = None, *, golden: bool = True, name: str = "m"
) -> ModelFile:
    """A model file with contract and golden pair, loaded as the IOC would."""
    proto = make_proto() if proto is None else proto
    side = proto.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    pair = None
    if golden:
        dim = proto.graph.input[0].type.tensor_type.shape.dim[0]
        counts = counts_of(dim.dim_value or 3, seed=99, side=side)
        phase = PackedArray.pack(reference(proto, counts))
        pair = GoldenPair(counts=PackedArray.pack(counts), phase=phase, tolerance=0.05)
    contract = ModelContract(
        name=name, input_shape=(side, side), output_shape=(side, side), object_pixel_m=1e-8, golden=pair
    )
    path = folder / f"{name}.onnx"
    write_model(path, proto, contract)
    return load_model(path)
