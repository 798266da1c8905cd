"""Writes a trained network as one ONNX file, with batch normalisation folded in, the contract and a golden pair.

The graph is written node by node, so that it does not depend on the version of an exporter. Every engine knows
its few operators since opset 13.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator
from torch import nn

from ptychostream.errors import ModelError
from ptychostream.hpc_agent.training.networks import ConvBlock, Decoder, Network
from ptychostream.model.contract import GoldenPair, ModelContract
from ptychostream.model.graph_nodes import GraphNodes
from ptychostream.model.model_file import write_model

OPSET = 17
"""Opset that TensorRT 8.5, the oldest engine, reads."""
EXPORT_TOLERANCE = 1e-4
"""rad rms between the ONNX graph and torch, both in float32."""


class _Graph(GraphNodes):
    """The parts of an encoder-decoder."""

    def convolution(self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32], name: str) -> str:
        inputs = [x, self.constant(weight, f"{name}.weight"), self.constant(bias, f"{name}.bias")]
        return self.add("Conv", inputs, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    def block(self, x: str, block: ConvBlock, name: str) -> str:
        for i in (0, 3):
            convolution, norm = block[i], block[i + 1]
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            x = self.add("Relu", [self.convolution(x, *fold(convolution, norm), name=f"{name}.{i // 3}")])
        return x

    def decoder(self, x: str, decoder: Decoder, name: str) -> str:
        for level, block in enumerate(decoder.blocks):
            x = self.block(x, block, f"{name}.{level}")
            x = self.add("Resize", [x, "", "enlarge"], mode="linear", coordinate_transformation_mode="half_pixel")
        last = decoder.last
        assert last.bias is not None
        return self.convolution(x, _numpy(last.weight), _numpy(last.bias), f"{name}.last")


def fold(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Weight and bias of one convolution that equals `convolution` followed by `norm` in inference."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    weight = convolution.weight.double() * gain[:, None, None, None]
    bias = norm.bias.double() - norm.running_mean.double() * gain
    return _numpy(weight), _numpy(bias)


def _numpy(tensor: torch.Tensor) -> NDArray[np.float32]:
    return tensor.detach().cpu().numpy().astype(np.float32)


def build_onnx(network: Network, input_shape: tuple[int, int]) -> onnx.ModelProto:
    """The network as an ONNX model: `counts` [N, 1, H, W] and `dose_scale` [1] in, a head's [N, 1, h, w] out each."""
    graph = _Graph()
    graph.constant(np.array([1, 1, 2, 2], dtype=np.float32), "enlarge")
    scale, gain, offset = (np.float32(value) for value in network.normalisation.tolist())
    factor = graph.add("Mul", ["dose_scale", graph.constant(np.array([scale]), "scale")])
    x = graph.add("Sqrt", [graph.add("Mul", ["counts", factor])])
    x = graph.add("Mul", [x, graph.constant(np.array([gain]), "gain")])
    x = graph.add("Add", [x, graph.constant(np.array([offset]), "offset")])
    if network.architecture.stem > 1:
        x = graph.add("SpaceToDepth", [x], blocksize=network.architecture.stem)
    for level, block in enumerate(network.encoder):
        x = graph.block(x, block, f"encoder.{level}")
        x = graph.add("MaxPool", [x], kernel_shape=[2, 2], strides=[2, 2])
    graph.constant(np.array([math.pi], dtype=np.float32), "pi")
    for head, decoder in network.decoders.items():
        y = graph.decoder(x, decoder, head)
        if network.shuffled > 1:
            y = graph.add("DepthToSpace", [y], blocksize=network.shuffled, mode="CRD")
        last = head if network.pooled == 1 else ""
        if head == "phase":
            y = graph.add("Mul", [graph.add("Tanh", [y]), "pi"], last)
        else:
            y = graph.add("Sigmoid", [y], last)
        if network.pooled > 1:
            sides = [network.pooled] * 2
            graph.add("AveragePool", [y], head, kernel_shape=sides, strides=sides)
    inputs = [_value("counts", input_shape), helper.make_tensor_value_info("dose_scale", TensorProto.FLOAT, [1])]
    outputs = [_value(head, network.output_shape(input_shape)) for head in network.heads]
    onnx_graph = helper.make_graph(graph.nodes, network.name, inputs, outputs, graph.weights)
    # IR version 8 is the one of opset 17; older runtimes refuse a newer number.
    model = helper.make_model(
        onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8, producer_name="ptychostream"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _value(name: str, shape: tuple[int, int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, *shape])


def predict(network: Network, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
    """[n, H, W] counts → [n, h, w] phase in rad, by torch in float32 on the network's device."""
    device = network.normalisation.device
    training = network.training
    network.eval()
    with torch.no_grad():
        phase = network(torch.from_numpy(counts).to(device)[:, None], dose_scale)["phase"]
    network.train(training)
    return _numpy(phase[:, 0])


def make_golden(network: Network, counts: NDArray[np.float32], dose_scale: float = 1.0) -> GoldenPair:
    """A golden pair from a few whole-numbered frames [n, H, W]; see `GoldenPair.of`."""
    return GoldenPair.of(counts, predict(network, counts, dose_scale), dose_scale)


def reference_infer(model: onnx.ModelProto, counts: NDArray[np.float32], dose_scale: float) -> NDArray[np.float32]:
    """Run an exported model through ONNX's own reference implementation, which needs no engine."""
    feeds = {"counts": counts[:, None], "dose_scale": np.array([dose_scale], dtype=np.float32)}
    phase: NDArray[np.float32] = ReferenceEvaluator(model).run(["phase"], feeds)[0]
    return phase[:, 0]


def export(network: Network, contract: ModelContract, golden_counts: NDArray[np.float32], path: str | Path) -> str:
    """Write `network` as one ONNX file with `contract`, its golden pair and parameter count filled in.

    The graph is first compared with torch on one frame, through ONNX's reference implementation.

    Parameters
    ----------
    network
        The trained network; its normalisation becomes part of the graph.
    contract
        The contract without golden pair and parameter count.
    golden_counts
        [n, H, W] float32 frames, preprocessed as `contract` says; two to four are enough.
    path
        The file to write; replaced atomically.

    Returns
    -------
    str
        The file's sha256.

    Raises
    ------
    ModelError
        The network's output is not finite, the graph differs from torch, or the file cannot be written.
    """
    if not np.isfinite(predict(network, golden_counts[:1])).all():
        remedy = "its training diverged: train again with a lower learning rate"
        raise ModelError("the network's output is not finite", where=str(path), remedy=remedy)
    golden = make_golden(network, golden_counts)
    full = contract.model_copy(update={"golden": golden, "parameters": network.parameter_count()})
    model = build_onnx(network, contract.input_shape)
    frame = golden_counts[:1]
    rms = float(np.sqrt(np.mean((reference_infer(model, frame, 1.0) - predict(network, frame)) ** 2)))
    if not rms <= EXPORT_TOLERANCE:
        what = f"the ONNX graph differs from torch by {rms:.3g} rad rms"
        raise ModelError(what, where=str(path), remedy="report it with the versions of torch and onnx")
    return write_model(path, model, full)
