"""Prepare ONNX graphs for a runtime: only the phase output, a fixed batch size. With tools for rewriting graphs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ptychostream.model.model_file import ModelFile


def streaming_graph(model: ModelFile, chunk: int) -> onnx.ModelProto:
    """A copy of the model's graph: its batch is fixed at `chunk`, and what the phase does not need is left out."""
    proto = onnx.ModelProto()
    proto.CopyFrom(model.parsed)
    del proto.metadata_props[:]
    graph = proto.graph
    phase = [value for value in graph.output if value.name == model.phase_output]
    del graph.output[:]
    graph.output.extend(phase)
    prune(graph)
    for value in graph.input:
        if value.name == model.counts_input:
            value.type.tensor_type.shape.dim[0].dim_value = chunk
    for value in graph.output:
        value.type.tensor_type.shape.dim[0].dim_value = chunk
    del graph.value_info[:]  # they have the shapes of another batch size
    return proto


def prune(graph: onnx.GraphProto) -> None:
    """Remove nodes and weights that no output needs."""
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    replace_nodes(graph, reversed(kept))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Replace the nodes of the graph by `nodes`."""
    kept = list(nodes)
    del graph.node[:]
    graph.node.extend(kept)


def constants(graph: onnx.GraphProto) -> dict[str, NDArray[Any]]:
    """Weights and constants by name."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            value = attributes(node).get("value")
            if isinstance(value, onnx.TensorProto):
                values[node.output[0]] = numpy_helper.to_array(value)
    return values


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def add_constant(graph: onnx.GraphProto, name: str, value: NDArray[Any]) -> str:
    """Add an initializer. Returns its name."""
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def opset(model: onnx.ModelProto) -> int:
    """Version of the default operator set."""
    return int(next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")))


def plain_conv3x3(node: onnx.NodeProto) -> bool:
    """Whether a node is a dense 3×3 convolution of stride 1 that keeps the image's size."""
    if node.op_type != "Conv":
        return False
    found = attributes(node)
    return (
        list(found.get("kernel_shape", [])) == [3, 3]
        and list(found.get("pads", [])) == [1, 1, 1, 1]
        and list(found.get("strides", [1, 1])) == [1, 1]
        and list(found.get("dilations", [1, 1])) == [1, 1]
        and found.get("group", 1) == 1
        and found.get("auto_pad", b"NOTSET") in (b"NOTSET", "NOTSET")
    )
