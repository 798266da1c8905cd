"""Run an ONNX graph as a torch module, with the operators of convolutional encoder-decoders.

Convolutions and matrix products run in the chosen precision. Other operators run in the type of torch's promotion, so
the normalisation of large counts before the first convolution stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import onnx
import torch
from torch import Tensor, nn
from torch.nn import functional

from ptychostream.errors import EngineError
from ptychostream.plugins.engines.graph import attributes, constants, opset

Value: TypeAlias = "Tensor | None"
Step = Callable[[list[Value]], "Tensor | tuple[Tensor, ...]"]
Static = Callable[[int], Any]
"""Returns the numpy constant of an input, or None if the input is not constant."""

ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div, "Pow": torch.pow,
    "Sqrt": torch.sqrt, "Exp": torch.exp, "Log": torch.log, "Abs": torch.abs, "Neg": torch.neg,
    "Relu": functional.relu, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid, "Identity": lambda x: x,
    "Max": torch.maximum, "Min": torch.minimum,
}  # fmt: skip
DTYPES = {
    onnx.TensorProto.FLOAT: torch.float32,
    onnx.TensorProto.FLOAT16: torch.float16,
    onnx.TensorProto.BFLOAT16: torch.bfloat16,
}


class OnnxModule(nn.Module):  # type: ignore[misc]
    """Runs an ONNX graph node by node. Tensors are found by index, not by name.

    Parameters
    ----------
    model
        A checked model with one output.
    inputs
        Names of the graph's inputs in the order of the arguments of `forward`.
    dtype
        Type of the convolutions.
    where
        Place to name in errors.

    Raises
    ------
    EngineError
        The graph has an operator, or an attribute of one, that is not supported.
    """

    def __init__(self, model: onnx.ModelProto, inputs: list[str], dtype: torch.dtype, where: str) -> None:
        super().__init__()
        self._where = where
        self._dtype = dtype
        self._places: dict[str, int] = {name: place for place, name in enumerate(inputs)}
        self._opset = opset(model)
        self._constants = constants(model.graph)
        self._buffer_places: list[tuple[int, str]] = []
        for name, value in self._constants.items():
            self._keep(name, torch.from_numpy(np.array(value)))
        self._steps: list[tuple[Step, list[int], list[int]]] = []
        for node in model.graph.node:
            if node.op_type != "Constant":
                self._steps.append((self._step(node), self._inputs(node), [self._place(o) for o in node.output]))
        self._output = self._places[model.graph.output[0].name]

    def forward(self, *inputs: Tensor) -> Tensor:
        """The graph's output for its inputs."""
        values: list[Value] = [None] * (len(self._places) + 1)
        values[: len(inputs)] = inputs
        for place, name in self._buffer_places:
            values[place] = getattr(self, name)
        for step, sources, targets in self._steps:
            results = step([values[source] for source in sources])
            for target, result in zip(targets, results if isinstance(results, tuple) else (results,), strict=True):
                values[target] = result
        output = values[self._output]
        assert output is not None
        return output

    def _place(self, name: str) -> int:
        return self._places.setdefault(name, len(self._places))

    def _inputs(self, node: onnx.NodeProto) -> list[int]:
        """Indices of a node's inputs. An absent input has the index after the last tensor, which stays None."""
        return [self._places[name] if name else -1 for name in node.input]

    def _keep(self, name: str, value: Tensor) -> None:
        buffer = f"constant_{len(self._buffer_places)}"
        self.register_buffer(buffer, value)
        self._buffer_places.append((self._place(name), buffer))

    def _step(self, node: onnx.NodeProto) -> Step:
        found = attributes(node)

        def static(index: int) -> Any:
            name = node.input[index] if index < len(node.input) else ""
            return self._constants.get(name)

        if node.op_type in ELEMENTWISE:
            return _elementwise(ELEMENTWISE[node.op_type])
        if node.op_type in ("Conv", "ConvTranspose"):
            self._prepare_weights(node)
            return _convolution(node.op_type == "ConvTranspose", found, self._refuse)
        build = BUILDERS.get(node.op_type)
        if build is None:
            raise self._refuse(f"operator {node.op_type}")
        return build(found, static, self._refuse)

    def _prepare_weights(self, node: onnx.NodeProto) -> None:
        for name in node.input[1:]:
            if name not in self._constants:
                raise self._refuse(f"{node.op_type} with weights that are computed")
            buffer = dict(self._buffer_places)[self._places[name]]
            value = getattr(self, buffer).to(self._dtype)
            setattr(self, buffer, value.contiguous(memory_format=torch.channels_last) if value.ndim == 4 else value)

    def _refuse(self, what: str) -> EngineError:
        remedy = "use OpenVINO, ONNX Runtime or TensorRT for this model"
        return EngineError(
            f"{what} (opset {self._opset}) is not known to the torch engine", where=self._where, remedy=remedy
        )


Refuse = Callable[[str], EngineError]
Builder = Callable[[dict[str, Any], Static, Refuse], Step]


def _tensor(value: Value) -> Tensor:
    assert value is not None
    return value


def _elementwise(function: Callable[..., Tensor]) -> Step:
    return lambda values: function(*(_tensor(value) for value in values))


def _padding(found: dict[str, Any], refuse: Refuse) -> tuple[tuple[int, int], list[int] | None]:
    """Symmetric padding for torch, and the padding that must be applied before, or None."""
    if found.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise refuse(f"auto_pad {found['auto_pad'].decode()}")
    top, left, bottom, right = found.get("pads", [0, 0, 0, 0])
    if (top, left) == (bottom, right):
        return (top, left), None
    return (0, 0), [left, right, top, bottom]


def _convolution(transposed: bool, found: dict[str, Any], refuse: Refuse) -> Step:
    if len(found.get("kernel_shape", [0, 0])) != 2:
        raise refuse("a convolution that is not of images")
    padding, before = _padding(found, refuse)
    common = {
        "stride": tuple(found.get("strides", (1, 1))),
        "padding": padding,
        "dilation": tuple(found.get("dilations", (1, 1))),
        "groups": found.get("group", 1),
    }
    if transposed:
        if before is not None or "output_shape" in found:
            raise refuse("ConvTranspose with uneven padding or a given output shape")
        common["output_padding"] = tuple(found.get("output_padding", (0, 0)))
    function = functional.conv_transpose2d if transposed else functional.conv2d

    def run(values: list[Value]) -> Tensor:
        x, weight = _tensor(values[0]), _tensor(values[1])
        x = x.to(weight.dtype)
        if before is not None:
            x = functional.pad(x, before)
        return function(x, weight, values[2] if len(values) > 2 else None, **common)

    return run


def _max_pool(found: dict[str, Any], _static: Static, refuse: Refuse) -> Step:
    padding, before = _padding(found, refuse)
    if before is not None or found.get("storage_order", 0):
        raise refuse("MaxPool with uneven padding or column order")
    kernel = tuple(found["kernel_shape"])
    common: dict[str, Any] = {
        "stride": tuple(found.get("strides", (1, 1))),
        "padding": padding,
        "dilation": tuple(found.get("dilations", (1, 1))),
        "ceil_mode": bool(found.get("ceil_mode", 0)),
    }
    return lambda values: functional.max_pool2d(_tensor(values[0]), kernel, **common)


def _average_pool(found: dict[str, Any], _static: Static, refuse: Refuse) -> Step:
    padding, before = _padding(found, refuse)
    if before is not None or set(found.get("dilations", [1])) != {1}:
        raise refuse("AveragePool with uneven padding or dilation")
    kernel = tuple(found["kernel_shape"])
    common: dict[str, Any] = {
        "stride": tuple(found.get("strides", (1, 1))),
        "padding": padding,
        "ceil_mode": bool(found.get("ceil_mode", 0)),
        "count_include_pad": bool(found.get("count_include_pad", 0)),
    }
    return lambda values: functional.avg_pool2d(_tensor(values[0]), kernel, **common)


def _resize(found: dict[str, Any], static: Static, refuse: Refuse) -> Step:
    modes = {b"linear": "bilinear", b"nearest": "nearest"}
    mode = modes.get(found.get("mode", b"nearest"))
    transformation = found.get("coordinate_transformation_mode", b"half_pixel")
    # torch's nearest is asymmetric and rounds down; its bilinear is half-pixel, or aligns the corners.
    known = {
        "bilinear": (b"half_pixel", b"pytorch_half_pixel", b"align_corners"),
        "nearest": (b"asymmetric",),
    }.get(mode or "", ())
    floor = mode != "nearest" or found.get("nearest_mode", b"round_prefer_floor") == b"floor"
    if transformation not in known or not floor or found.get("antialias", 0) or "axes" in found:
        raise refuse(f"Resize {found.get('mode', b'nearest').decode()} {transformation.decode()}")
    common: dict[str, Any] = {"mode": mode}
    if mode == "bilinear":
        common["align_corners"] = transformation == b"align_corners"
    scales, sizes = static(2), static(3)
    if scales is not None and len(scales) == 4 and tuple(scales[:2]) == (1, 1):
        common["scale_factor"] = tuple(float(scale) for scale in scales[2:])
    elif sizes is not None and len(sizes) == 4:
        common["size"] = tuple(int(size) for size in sizes[2:])
    else:
        raise refuse("Resize by computed scales")
    return lambda values: functional.interpolate(_tensor(values[0]), **common)


def _concat(found: dict[str, Any], _static: Static, _refuse: Refuse) -> Step:
    return lambda values: torch.cat([_tensor(value) for value in values], dim=found["axis"])


def _cast(found: dict[str, Any], _static: Static, refuse: Refuse) -> Step:
    dtype = DTYPES.get(found["to"])
    if dtype is None:
        raise refuse("Cast to integers")
    return lambda values: _tensor(values[0]).to(dtype)


def _leaky_relu(found: dict[str, Any], _static: Static, _refuse: Refuse) -> Step:
    return lambda values: functional.leaky_relu(_tensor(values[0]), found.get("alpha", 0.01))


def _clip(_found: dict[str, Any], static: Static, _refuse: Refuse) -> Step:
    low, high = (None if (limit := static(i)) is None else float(limit) for i in (1, 2))
    return lambda values: torch.clamp(_tensor(values[0]), low, high)


def _batch_norm(found: dict[str, Any], _static: Static, refuse: Refuse) -> Step:
    if found.get("training_mode", 0):
        raise refuse("BatchNormalization in training mode")
    epsilon = found.get("epsilon", 1e-5)

    def run(values: list[Value]) -> Tensor:
        x, gain, offset, mean, variance = (_tensor(value) for value in values)
        return functional.batch_norm(x.float(), mean, variance, gain, offset, eps=epsilon)

    return run


def _transpose(found: dict[str, Any], _static: Static, _refuse: Refuse) -> Step:
    return lambda values: _tensor(values[0]).permute(*found["perm"])


def _reshape(_found: dict[str, Any], static: Static, refuse: Refuse) -> Step:
    shape = static(1)
    if shape is None or 0 in shape:
        raise refuse("Reshape to a computed or copied shape")
    sides = [int(side) for side in shape]
    return lambda values: _tensor(values[0]).reshape(sides)


def _depth_to_space(found: dict[str, Any], _static: Static, refuse: Refuse) -> Step:
    if found.get("mode", b"DCR") != b"CRD":
        raise refuse("DepthToSpace in DCR order")
    return lambda values: functional.pixel_shuffle(_tensor(values[0]), found["blocksize"])


def _space_to_depth(found: dict[str, Any], _static: Static, _refuse: Refuse) -> Step:
    side = int(found["blocksize"])

    def run(values: list[Value]) -> Tensor:
        x = _tensor(values[0])
        frames, channels, height, width = x.shape
        squares = x.reshape(frames, channels, height // side, side, width // side, side)
        return squares.permute(0, 3, 5, 1, 2, 4).reshape(frames, -1, height // side, width // side)

    return run


BUILDERS: dict[str, Builder] = {
    "MaxPool": _max_pool, "AveragePool": _average_pool, "Resize": _resize, "Concat": _concat, "Cast": _cast,
    "LeakyRelu": _leaky_relu, "Clip": _clip, "BatchNormalization": _batch_norm, "Transpose": _transpose,
    "Reshape": _reshape, "DepthToSpace": _depth_to_space, "SpaceToDepth": _space_to_depth,
}  # fmt: skip
