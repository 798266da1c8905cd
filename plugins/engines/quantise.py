"""Quantise convolutions to eight bits, calibrated on the contract's golden frames.

This is for processors with 8-bit dot products (VNNI) and without fast bfloat16. There it is about twice as fast, and
the golden pair measures the loss of accuracy. Weights are symmetric with one scale per output channel. Activations
after a ReLU are unsigned with one scale per layer, from the largest value in the golden frames. The first convolution,
whose input has the detector's dynamic range, and the last, whose output is the phase, are not quantised.

The result is ONNX with pairs of QuantizeLinear and DequantizeLinear, which every runtime fuses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from ptychostream.errors import EngineError
from ptychostream.model.contract import GoldenPair
from ptychostream.plugins.engines.graph import add_constant, attributes, constants, prune, replace_nodes

MIN_CHANNELS = 8
"""Fewest input and output channels of a quantised convolution. It excludes the last one, whose output is the phase."""
HEADROOM = 1.75
"""Headroom of the scale, so that frames brighter than the golden ones are not clipped. A finer scale is worse as soon
as a frame has 1.2 times the largest activation of the golden frames. This one is valid up to three times the dose."""

RunGraph = Callable[[onnx.ModelProto, list[str], NDArray[np.float32], float], Mapping[str, NDArray[np.float32]]]
"""(model, names of tensors, counts [n, H, W], dose_scale) → values of these tensors in float32."""


def quantise(model: onnx.ModelProto, golden: GoldenPair | None, run: RunGraph) -> None:
    """Rewrite the inner convolutions of `model` to 8-bit integers, in place.

    Raises
    ------
    EngineError
        There are no golden frames for the calibration, or no convolution can be quantised.
    """
    if golden is None:
        remedy = "export the model with a golden pair, or choose another precision"
        raise EngineError("int8 is calibrated on golden frames, the contract has none", where="int8", remedy=remedy)
    weights = constants(model.graph)
    convolutions = [node for node in model.graph.node if _worthwhile(node, weights)]
    names = sorted({node.input[0] for node in convolutions})
    activations = run(model, names, golden.counts.unpack().astype(np.float32), golden.dose_scale)
    scales = {name: activation_scale(values) for name, values in activations.items() if values.min() >= 0}
    chosen = {node.output[0] for node in convolutions if node.input[0] in scales}
    if not chosen:
        remedy = "choose another precision"
        raise EngineError("the model has no convolution that can be quantised", where="int8", remedy=remedy)
    _quantise_weights(model.graph, chosen, weights)
    _quantise_activations(model.graph, chosen, scales)
    prune(model.graph)


def activation_scale(values: NDArray[np.float32]) -> float:
    """Step of an unsigned 8-bit code for values ≥ 0. Values above 255 steps are clipped."""
    return (float(values.max()) or 1.0) * HEADROOM / 255


def quantise_weight(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise weights [out, in, kh, kw] to integers in ±127. Returns them and their scales [out]."""
    top = np.abs(weight).max(axis=(1, 2, 3))
    scale = np.where(top > 0, top / 127, 1).astype(np.float32)
    return np.rint(weight / scale[:, None, None, None]).astype(np.int8), scale


def _worthwhile(node: onnx.NodeProto, weights: Mapping[str, NDArray[np.float32]]) -> bool:
    if node.op_type != "Conv" or attributes(node).get("group", 1) != 1 or node.input[1] not in weights:
        return False
    return min(weights[node.input[1]].shape[:2]) >= MIN_CHANNELS


def _quantise_weights(graph: onnx.GraphProto, chosen: set[str], weights: Mapping[str, NDArray[np.float32]]) -> None:
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        if node.output[0] in chosen:
            w = node.input[1]
            if w not in done:
                integers, scale = quantise_weight(weights[w])
                code = add_constant(graph, f"{w}/code", integers)
                step = add_constant(graph, f"{w}/step", scale)
                zero = add_constant(graph, f"{w}/zero", np.zeros(len(scale), dtype=np.int8))
                nodes.append(helper.make_node("DequantizeLinear", [code, step, zero], [f"{w}/coded"], axis=0))
                done.add(w)
            node.input[1] = f"{w}/coded"
        nodes.append(node)
    replace_nodes(graph, nodes)


def _quantise_activations(graph: onnx.GraphProto, chosen: set[str], scales: Mapping[str, float]) -> None:
    """Quantise each activation at its source. The chosen convolutions read the quantised values."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.output[0] in chosen:
            node.input[0] = f"{node.input[0]}/coded"
        nodes.append(node)
        for x in scales.keys() & set(node.output):
            step = add_constant(graph, f"{x}/step", np.array(scales[x], dtype=np.float32))
            zero = add_constant(graph, f"{x}/zero", np.array(0, dtype=np.uint8))
            nodes.append(helper.make_node("QuantizeLinear", [x, step, zero], [f"{x}/code"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{x}/code", step, zero], [f"{x}/coded"]))
    replace_nodes(graph, nodes)
