"""Write half precision into the graph, for runtimes that take the precision from the graph.

TensorRT 11 and TensorRT-RTX have no builder flag for it, because their networks are strongly typed. Convolutions become
float16, and also the operators after them, up to the next operator that needs range or accuracy. Inputs, the
normalisation of raw counts, tanh and outputs stay float32.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from ptychostream.plugins.engines.graph import add_constant, constants, prune, replace_nodes

STARTS = frozenset({"Conv", "ConvTranspose"})
FOLLOWS = frozenset(
    {"Relu", "LeakyRelu", "MaxPool", "AveragePool", "Resize", "DepthToSpace", "Transpose", "Slice", "Split"}
)
"""Operators that have the type of their first input. Their other inputs (scales, indices) are not changed."""


def to_float16(model: onnx.ModelProto) -> None:
    """Rewrite `model` in place."""
    graph = model.graph
    values = constants(graph)
    halves: set[str] = set()  # names of the tensors that are float16 now
    nodes: list[onnx.NodeProto] = []
    casts: dict[tuple[str, int], str] = {}

    def cast(name: str, kind: int) -> str:
        if (name, kind) not in casts:
            casts[name, kind] = f"{name}/{'half' if kind == TensorProto.FLOAT16 else 'float'}"
            nodes.append(helper.make_node("Cast", [name], [casts[name, kind]], to=kind))
        return casts[name, kind]

    def half(name: str) -> str:
        if not name or name in halves:
            return name
        if name in values and (name, -1) not in casts:
            casts[name, -1] = add_constant(graph, f"{name}/half", values[name].astype(np.float16))
        return casts.get((name, -1)) or cast(name, TensorProto.FLOAT16)

    for node in graph.node:
        if node.op_type in STARTS or (node.op_type == "Concat" and halves & set(node.input)):
            for i, name in enumerate(node.input):
                node.input[i] = half(name)
            halves.update(node.output)
        elif node.op_type in FOLLOWS and node.input[0] in halves:
            halves.update(node.output)
        else:
            for i, name in enumerate(node.input):
                if name in halves:
                    node.input[i] = cast(name, TensorProto.FLOAT)
        nodes.append(node)
    replace_nodes(graph, nodes)
    _restore_outputs(graph, halves)
    prune(graph)


def _restore_outputs(graph: onnx.GraphProto, halves: set[str]) -> None:
    """Cast outputs that became float16 back to float32 under their own names."""
    for output in graph.output:
        if output.name not in halves:
            continue
        inner = f"{output.name}/half_output"
        for node in graph.node:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == output.name:
                        names[i] = inner
        graph.node.append(helper.make_node("Cast", [inner], [output.name], to=TensorProto.FLOAT))
