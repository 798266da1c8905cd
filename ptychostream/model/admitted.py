"""Which ONNX graphs are admitted: plain networks of known operators, closed in themselves and of bounded size.

A model comes from another machine and runs within the IOC. PtychoNN and its kin need convolutions, pooling, resizing
and arithmetic. They need no loops, conditionals, functions, operators of other domains nor data in other files. Each of
those can cost time, memory or files without a bound.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from ptychostream.errors import ModelError
from ptychostream.model.shown import shown

OPERATORS = frozenset({
    # convolution and pooling
    "AveragePool", "Conv", "ConvInteger", "ConvTranspose", "GlobalAveragePool", "GlobalMaxPool", "MaxPool",
    "QLinearConv",
    # change of resolution and shape
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Pad", "Reshape", "Resize", "Shape", "Slice",
    "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Upsample",
    # activation and normalisation
    "BatchNormalization", "Celu", "Clip", "Elu", "Gelu", "GroupNormalization", "HardSigmoid", "HardSwish",
    "InstanceNormalization", "LayerNormalization", "LeakyRelu", "LpNormalization", "Mish", "PRelu", "Relu", "Selu",
    "Sigmoid", "Softmax", "Softplus", "Softsign", "Tanh", "ThresholdedRelu",
    # arithmetic
    "Abs", "Add", "And", "Atan", "Ceil", "Cos", "Div", "Equal", "Erf", "Exp", "Floor", "Gemm", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Log", "MatMul", "Max", "Mean", "Min", "Mod", "Mul", "Neg", "Not", "Or",
    "Pow", "Reciprocal", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Round", "Sign", "Sin",
    "Sqrt", "Sub", "Sum", "Where",
    # constants and types
    "Cast", "Constant", "ConstantOfShape", "DequantizeLinear", "DynamicQuantizeLinear", "Identity", "QuantizeLinear",
    # nothing when a network runs
    "Dropout",
})  # fmt: skip
"""The operators of ONNX's own domain that a model may have."""
DOMAINS = ("", "ai.onnx")
MAX_NODES = 4096
MAX_TENSORS = 8192
MAX_ELEMENTS = 1 << 28
"""The largest intermediate array for one frame, in elements: 1 GiB of float32."""
_REMEDY = "export PtychoNN or a network like it, with constants folded, as one ONNX file of the default domain"


def check_graph(model: onnx.ModelProto, where: str) -> None:
    """Check that nothing in the model lies outside of what is admitted. Cheap: before anything is built.

    Raises
    ------
    ModelError
        It has a function, training information, another domain, a graph within a node, an operator that is not in
        `OPERATORS`, data outside the file, a sparse weight, or more nodes or weights than any such network.
    """
    graph = model.graph
    if model.functions:
        raise _refused("it has functions of its own", where)
    if model.training_info:
        raise _refused("it has training information", where)
    if foreign := sorted({entry.domain for entry in model.opset_import} - set(DOMAINS)):
        raise _refused(f"it uses the operator domain {shown(foreign[0])}", where)
    if len(graph.node) > MAX_NODES or len(graph.initializer) > MAX_TENSORS:
        what = (
            f"{len(graph.node):,} nodes and {len(graph.initializer):,} weights, more than any network of this kind has"
        )
        raise _refused(what, where)
    if graph.sparse_initializer:
        raise _refused("it has sparse weights", where)
    for node in graph.node:
        if node.domain not in DOMAINS:
            raise _refused(f"operator {shown(node.op_type)} is of the domain {shown(node.domain)}", where)
        if node.op_type not in OPERATORS:
            raise _refused(f"operator {shown(node.op_type)} is not admitted", where)
        if any(_holds_graph(attribute) for attribute in node.attribute):
            raise _refused(f"operator {shown(node.op_type)} holds a graph or a sparse array", where)
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data for tensor in tensors(graph)):
        raise _refused("its weights lie in another file", where)


def check_sizes(graph: onnx.GraphProto, where: str) -> None:
    """Check the arrays of a graph whose shapes were inferred, for one frame. Raises ModelError."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim if side.HasField("dim_value")]
        if min(sides, default=0) < 0 or math.prod(max(side, 1) for side in sides) > MAX_ELEMENTS:
            what = f"array {shown(value.name)} has {' × '.join(map(str, sides))} elements, more than {MAX_ELEMENTS:,}"
            raise _refused(what, where)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a graph without graphs in its nodes."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _holds_graph(attribute: onnx.AttributeProto) -> bool:
    return bool(
        attribute.HasField("g")
        or attribute.graphs
        or attribute.HasField("sparse_tensor")
        or attribute.sparse_tensors
        or attribute.ref_attr_name
    )


def _refused(what: str, where: str) -> ModelError:
    return ModelError(what, where=where, remedy=_REMEDY)
