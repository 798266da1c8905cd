"""A graph that was trained elsewhere becomes one that takes counts and gives phase in radians.

A foreign network expects numbers that its own training script made of the counts. Here this preparation is written
into the graph, so that no copy of it can differ at the edge. The order is: dose scale, threshold, resize, function,
mean and deviation. After the network: one channel, and a factor.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper

from ptychostream.errors import ModelError
from ptychostream.model.admitted import check_graph
from ptychostream.model.graph_nodes import GraphNodes
from ptychostream.model.model_file import read_model_bytes

Function = Literal["none", "sqrt", "log1p", "log10"]
OLDEST, NEWEST = 13, 21
"""Opsets that are left as they are; others are converted to 17."""
CONVERTED = 17
OWN = "foreign/"
"""Before the names of the foreign graph, so that none of them is one of ours."""


@dataclass(frozen=True)
class Preparation:
    """What is done to the counts before the foreign network, and to its output.

    Attributes
    ----------
    input_shape
        (H, W) of the counts, after the contract's crop and binning.
    threshold
        Counts below it become 0.
    function
        Of the counts: their square root, ln(1 + n), or log10(1 + n).
    mean, deviation
        (n − mean) / deviation is what the network sees.
    output
        Name of the graph's output; empty: its only one, or the one that is called phase.
    channel
        Of an output with several channels.
    factor
        Radians for each unit of the output, for instance π for a network whose output is −1 … 1.
    """

    input_shape: tuple[int, int]
    threshold: float = 0.0
    function: Function = "none"
    mean: float = 0.0
    deviation: float = 1.0
    output: str = ""
    channel: int | None = None
    factor: float = 1.0


def read_graph(path: str | Path) -> onnx.ModelProto:
    """An ONNX file without any contract. Raises ModelError if it cannot be read or is none."""
    data = read_model_bytes(Path(path))
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ModelError("not an ONNX model", where=str(path), remedy="export the network to ONNX first") from error
    if not model.graph.node:
        raise ModelError("not an ONNX model: no graph", where=str(path), remedy="export the network to ONNX first")
    return model


def adopt_graph(foreign: onnx.ModelProto, preparation: Preparation, where: str) -> onnx.ModelProto:
    """The graph with `counts` [N, 1, H, W] and `dose_scale` [1] in, and `phase` [N, 1, h, w] in radians out.

    Parameters
    ----------
    foreign
        A graph with one input, [N, 1, h, w], [N, h, w] or [N, h, w, 1], of float32, whose h and w are fixed, and an
        output of one of these shapes, or [N, channels, h, w].
    preparation
        What its training script did to the counts.
    where
        The file, for messages.

    Raises
    ------
    ModelError
        The graph has another input or output, or an operator or opset that the edge does not run.
    """
    check_graph(foreign, where)
    model = onnx.compose.add_prefix(_at_a_known_opset(foreign, where), OWN)
    graph = model.graph
    given, chosen = _input(graph, where), _output(graph, preparation, where)
    batch, sides, form = _layout(given, "input", where)
    maker = GraphNodes("before/")
    x = maker.add("Mul", ["counts", "dose_scale"])
    if preparation.threshold > 0:
        low = maker.add("Less", [x, maker.constant(np.float32(preparation.threshold))])
        x = maker.add("Where", [low, maker.constant(np.float32(0)), x])
    if sides != preparation.input_shape:
        scales = [1, 1, *(there / here for there, here in zip(sides, preparation.input_shape, strict=True))]
        resize = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
        x = maker.add("Resize", [x, "", maker.constant(np.array(scales, np.float32))], **resize)
    x = _apply(maker, x, preparation.function)
    if preparation.mean:
        x = maker.add("Sub", [x, maker.constant(np.float32(preparation.mean))])
    if preparation.deviation != 1:
        x = maker.add("Div", [x, maker.constant(np.float32(preparation.deviation))])
    if form == "nchw":
        maker.add("Identity", [x], given.name)
    else:
        shape = [-1, *sides] if form == "nhw" else [-1, *sides, 1]
        maker.add("Reshape", [x, maker.constant(np.array(shape, np.int64))], given.name)
    after = GraphNodes("after/")
    _, out_sides, out_form = _layout(chosen, "output", where, channels=True)
    y = _one_channel(after, chosen, preparation, out_sides, out_form, where)
    after.add("Mul", [y, after.constant(np.float32(preparation.factor))], "phase")
    value = helper.make_tensor_value_info
    frames: list[Any] = [batch or "N", 1]
    own = helper.make_graph(
        [*maker.nodes, *graph.node, *after.nodes],
        "adopted",
        [
            value("counts", TensorProto.FLOAT, [*frames, *preparation.input_shape]),
            value("dose_scale", TensorProto.FLOAT, [1]),
        ],
        [value("phase", TensorProto.FLOAT, [*frames, *out_sides])],
        [*maker.weights, *graph.initializer, *after.weights],
    )
    made = helper.make_model(
        own, opset_imports=model.opset_import, ir_version=min(model.ir_version, 10), producer_name="ptychostream"
    )
    try:
        onnx.checker.check_model(made, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        what = f"the prepared graph does not fit together: {str(error).strip().splitlines()[0][:200]}"
        raise ModelError(what, where=where, remedy="compare --input-shape and --channel with the network") from error
    return made


def _apply(maker: GraphNodes, x: str, function: Function) -> str:
    """The function of the counts `x`."""
    if function == "none":
        return x
    if function == "sqrt":
        return maker.add("Sqrt", [x])
    x = maker.add("Log", [maker.add("Add", [x, maker.constant(np.float32(1))])])
    return x if function == "log1p" else maker.add("Div", [x, maker.constant(np.float32(np.log(10)))])


def _at_a_known_opset(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)
    if OLDEST <= opset <= NEWEST:
        return model
    try:
        return onnx.version_converter.convert_version(model, CONVERTED)
    except (RuntimeError, ValueError, onnx.version_converter.ConvertError) as error:
        what = f"opset {opset} cannot be converted to {CONVERTED}: {str(error).strip().splitlines()[0][:200]}"
        raise ModelError(what, where=where, remedy=f"export it with an opset from {OLDEST} to {NEWEST}") from error


def _input(graph: onnx.GraphProto, where: str) -> onnx.ValueInfoProto:
    """The one input that is not a weight."""
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        names = ", ".join(_plain(value.name) for value in inputs) or "none"
        raise ModelError(f"it has the inputs {names}, where one is needed", where=where, remedy="export it with one")
    return inputs[0]


def _output(graph: onnx.GraphProto, preparation: Preparation, where: str) -> onnx.ValueInfoProto:
    outputs = {_plain(value.name): value for value in graph.output}
    wanted = preparation.output or ("phase" if "phase" in outputs else "")
    if not wanted and len(outputs) == 1:
        return next(iter(outputs.values()))
    if wanted not in outputs:
        what = f"it has the outputs {', '.join(outputs)}"
        raise ModelError(what, where=where, remedy="name the one of the phase with --output-name")
    return outputs[wanted]


def _layout(
    value: onnx.ValueInfoProto, what: str, where: str, channels: bool = False
) -> tuple[int | None, tuple[int, int], Literal["nhw", "nchw", "nhwc"]]:
    """Batch size (None: any), (h, w), and the order of the axes."""
    kind = value.type.tensor_type
    sides = [side.dim_value if side.HasField("dim_value") else 0 for side in kind.shape.dim]
    shown = f"{what} {_plain(value.name)} of shape {[side or None for side in sides]}"
    if kind.elem_type != TensorProto.FLOAT:
        raise ModelError(f"{shown} is not of float32", where=where, remedy="export it in float32")
    if len(sides) == 3 and min(sides[1:]) > 0:
        return sides[0] or None, (sides[1], sides[2]), "nhw"
    if len(sides) == 4 and min(sides[1:]) > 0:
        if sides[1] == 1 or (channels and sides[3] > 4):
            return sides[0] or None, (sides[2], sides[3]), "nchw"
        if sides[3] == 1 or channels:
            return sides[0] or None, (sides[1], sides[2]), "nhwc"
    needed = "[N, 1, h, w], [N, h, w] or [N, h, w, 1] with fixed h and w is needed"
    raise ModelError(f"{shown}; {needed}", where=where, remedy="export it again with such a shape")


def _one_channel(
    maker: GraphNodes,
    chosen: onnx.ValueInfoProto,
    preparation: Preparation,
    sides: tuple[int, int],
    form: str,
    where: str,
) -> str:
    """The output as [N, 1, h, w]."""
    dims = [side.dim_value for side in chosen.type.tensor_type.shape.dim]
    channels = {"nhw": 1, "nchw": dims[1], "nhwc": dims[-1]}[form]
    channel = preparation.channel
    if channel is None and channels > 1:
        what = f"output {_plain(chosen.name)} has {channels} channels"
        raise ModelError(what, where=where, remedy="say which of them is the phase, from 0: --channel N")
    if channel is not None and not 0 <= channel < channels:
        what = f"channel {channel} of output {_plain(chosen.name)}, which has {channels}"
        raise ModelError(what, where=where, remedy="channels count from 0")
    y = chosen.name
    if channels > 1:
        axis = 1 if form == "nchw" else 3
        y = maker.add("Gather", [y, maker.constant(np.array([channel], np.int64))], axis=axis)
    if form == "nchw":
        return y
    return maker.add("Reshape", [y, maker.constant(np.array([-1, 1, *sides], np.int64))])


def _plain(name: str) -> str:
    return name.removeprefix(OWN)[:60]
