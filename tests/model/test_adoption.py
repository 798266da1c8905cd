"""A network from elsewhere does after its adoption what its own script does, on every layout of its arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from scipy import ndimage

from ptychostream.errors import ModelError
from ptychostream.model.adoption import Preparation, adopt_graph

SIDE = 16


def foreign(form: str = "nchw", channels: int = 1, batch: str | int = "B", opset: int = 17) -> onnx.ModelProto:
    """A convolution and tanh, with the array order `form` outside; its names are those of the product's own graphs."""
    rng = np.random.default_rng(3)
    weights = [
        numpy_helper.from_array(rng.normal(size=(channels, 1, 3, 3)).astype(np.float32), "weight"),
        numpy_helper.from_array(np.array([-1, 1, SIDE, SIDE], np.int64), "inner"),
    ]
    nodes = [
        helper.make_node("Reshape", ["counts", "inner"], ["image"]),
        helper.make_node("Conv", ["image", "weight"], ["mixed"], pads=[1, 1, 1, 1]),
    ]
    shapes = {"nchw": [1, SIDE, SIDE], "nhw": [SIDE, SIDE], "nhwc": [SIDE, SIDE, 1]}
    outputs = {"nchw": [channels, SIDE, SIDE], "nhw": [SIDE, SIDE], "nhwc": [SIDE, SIDE, channels]}
    if form == "nchw":
        nodes.append(helper.make_node("Tanh", ["mixed"], ["out"]))
    elif form == "nhwc":
        nodes.append(helper.make_node("Transpose", ["mixed"], ["turned"], perm=[0, 2, 3, 1]))
        nodes.append(helper.make_node("Tanh", ["turned"], ["out"]))
    else:
        weights.append(numpy_helper.from_array(np.array([-1, SIDE, SIDE], np.int64), "outer"))
        nodes.append(helper.make_node("Reshape", ["mixed", "outer"], ["flat"]))
        nodes.append(helper.make_node("Tanh", ["flat"], ["out"]))
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "theirs",
        [value("counts", TensorProto.FLOAT, [batch, *shapes[form]])],
        [value("out", TensorProto.FLOAT, [batch, *outputs[form]])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, feeds: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    out: NDArray[np.float32] = session.run(None, feeds)[0]
    return out


def counts(frames: int, side: int = SIDE) -> NDArray[np.float32]:
    return np.random.default_rng(1).poisson(6, (frames, 1, side, side)).astype(np.float32)


def adopted(
    model: onnx.ModelProto, frames: NDArray[np.float32], dose: float = 1.0, **given: Any
) -> NDArray[np.float32]:
    made = adopt_graph(model, Preparation(**{"input_shape": frames.shape[2:], **given}), "theirs.onnx")
    assert [value.name for value in made.graph.input] == ["counts", "dose_scale"]
    assert [value.name for value in made.graph.output] == ["phase"]
    return run(made, {"counts": frames, "dose_scale": np.array([dose], np.float32)})


@pytest.mark.parametrize("form", ["nchw", "nhw", "nhwc"])
def test_any_order_of_its_axes_gives_the_same(form: str) -> None:
    frames = counts(3)
    expected = run(foreign(), {"counts": frames})
    np.testing.assert_allclose(adopted(foreign(form), frames), expected, atol=1e-6)


@pytest.mark.parametrize("form", ["nchw", "nhwc"])
def test_the_channel_that_is_named_is_the_phase(form: str) -> None:
    frames = counts(2)
    both = run(foreign("nchw", channels=2), {"counts": frames})
    for channel in (0, 1):
        phase = adopted(foreign(form, channels=2), frames, channel=channel)
        np.testing.assert_allclose(phase[:, 0], both[:, channel], atol=1e-6)
    with pytest.raises(ModelError, match="2 channels"):
        adopted(foreign(form, channels=2), frames)
    with pytest.raises(ModelError, match="channel 2"):
        adopted(foreign(form, channels=2), frames, channel=2)


@pytest.mark.parametrize("function", ["none", "sqrt", "log1p", "log10"])
def test_the_preparation_is_that_of_the_script(function: str) -> None:
    frames = counts(2)
    scaled = frames * np.float32(2.5)
    kept = np.where(scaled < 8, 0, scaled)
    made = {"none": lambda x: x, "sqrt": np.sqrt, "log1p": np.log1p, "log10": lambda x: np.log10(1 + x)}[function](kept)
    expected = math.pi * run(foreign(), {"counts": ((made - 1.5) / 0.7).astype(np.float32)})
    given = {"threshold": 8, "function": function, "mean": 1.5, "deviation": 0.7, "factor": math.pi}
    np.testing.assert_allclose(adopted(foreign(), frames, 2.5, **given), expected, atol=1e-5)


def test_frames_of_another_size_are_resized() -> None:
    frames = counts(2, 2 * SIDE)
    halved = frames.reshape(2, 1, SIDE, 2, SIDE, 2).mean(axis=(3, 5))
    np.testing.assert_allclose(adopted(foreign(), frames), run(foreign(), {"counts": halved}), atol=1e-5)
    small = counts(1, SIDE // 2)
    enlarged = ndimage.zoom(small[0, 0], 2, order=1, grid_mode=True, mode="nearest")
    expected = run(foreign(), {"counts": enlarged[None, None].astype(np.float32)})
    np.testing.assert_allclose(adopted(foreign(), small), expected, atol=1e-5)


def test_a_fixed_batch_stays_and_old_opsets_are_converted() -> None:
    made = adopt_graph(foreign(batch=4, opset=11), Preparation((SIDE, SIDE)), "theirs.onnx")
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4
    assert made.opset_import[0].version == 17


def test_what_does_not_fit_is_named() -> None:
    several = foreign()
    several.graph.output.append(helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["B", 1, SIDE, SIDE]))
    with pytest.raises(ModelError, match="outputs out, mixed") as caught:
        adopted(several, counts(1))
    assert "--output-name" in caught.value.remedy
    assert adopted(several, counts(1), output="mixed").shape == (1, 1, SIDE, SIDE)
    half = foreign()
    half.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    with pytest.raises(ModelError, match="not of float32"):
        adopted(half, counts(1))
    open_sides = foreign()
    open_sides.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    with pytest.raises(ModelError, match="with fixed h and w"):
        adopted(open_sides, counts(1))
    two = foreign()
    two.graph.input.append(helper.make_tensor_value_info("probe", TensorProto.FLOAT, [1]))
    with pytest.raises(ModelError, match="inputs counts, probe"):
        adopted(two, counts(1))
    looping = foreign()
    looping.graph.node[1].op_type = "Loop"
    with pytest.raises(ModelError, match="Loop"):
        adopted(looping, counts(1))
