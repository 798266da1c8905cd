"""Broken models at the model slot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from ptychostream.errors import PtychostreamError
from ptychostream.ioc.model.engine_maker import EngineMaker
from ptychostream.ioc.model.model_slot import EngineWish, ModelSlot
from ptychostream.model.contract import CONTRACT_KEY, GoldenPair, ModelContract, PackedArray
from ptychostream.plugins.engines.plain import plain_contract
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions
from ptychostream.processes.bounded import Bounds

Act = Callable[[], str]
_SIDE = 128
_AMPLE = Bounds(4 << 30, 60.0)


def refusal(action: Callable[[], object]) -> str:
    """What the error of the action says; the action must fail."""
    try:
        action()
    except PtychostreamError as error:
        return str(error)
    raise AssertionError("it was taken")


def a_model(path: Path, gain: float = 0.01, lie: float = 0.0, operator: str = "Mul") -> Path:
    """Write phase = counts · dose_scale · gain with a golden pair that is off by `lie`, unchecked."""

    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, _SIDE, _SIDE])

    nodes = [
        helper.make_node("Mul", ["counts", "dose_scale"], ["scaled"]),
        helper.make_node(operator, ["scaled", "gain"], ["phase"]),
    ]
    dose = helper.make_tensor_value_info("dose_scale", TensorProto.FLOAT, [1])
    weights = [numpy_helper.from_array(np.array([gain], np.float32), "gain")]
    graph = helper.make_graph(nodes, "small", [value("counts"), dose], [value("phase")], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    counts = np.random.default_rng(0).integers(0, 50, (2, _SIDE, _SIDE)).astype(np.float32)
    phase = counts * np.float32(gain if np.isfinite(gain) else 0.0) + np.float32(lie)
    golden = GoldenPair(counts=PackedArray.pack(counts), phase=PackedArray.pack(phase), tolerance=0.01)
    shape = (_SIDE, _SIDE)
    contract = ModelContract(name="small", input_shape=shape, output_shape=shape, object_pixel_m=1e-8, golden=golden)
    model.metadata_props.add(key=CONTRACT_KEY, value=contract.to_json())
    path.write_bytes(model.SerializeToString())
    return path


def _loading(folder: Path, path: Path, bounds: Bounds = _AMPLE) -> Act:
    pipeline = Pipeline(PipelineSettings(), AttributePositions("x", "y"))
    pipeline.start()
    slot = ModelSlot(
        EngineMaker(folder / "cache", 1, bounds=bounds),
        pipeline.swap_engine,
        plain_contract((_SIDE, _SIDE), 1e-8),
        wish=EngineWish("ONNXRuntime", "float32", 8),
    )
    return lambda: refusal(lambda: slot.load(path))


def noise(folder: Path) -> Act:
    """Random bytes."""
    path = folder / "noise.onnx"
    path.write_bytes(np.random.default_rng(1).bytes(1 << 20))
    return _loading(folder, path)


def too_large(folder: Path) -> Act:
    """A sparse file beyond the limit."""
    path = folder / "large.onnx"
    with path.open("wb") as file:
        file.truncate(300 << 20)
    return _loading(folder, path)


def foreign_operator(folder: Path) -> Act:
    """An operator that no network of this kind has."""
    return _loading(folder, a_model(folder / "foreign.onnx", operator="BitShift"))


def not_finite(folder: Path) -> Act:
    """A weight that is NaN."""
    return _loading(folder, a_model(folder / "nan.onnx", gain=float("nan")))


def lying(folder: Path) -> Act:
    """A golden pair that the model does not give."""
    return _loading(folder, a_model(folder / "liar.onnx", lie=0.5))


def too_slow(folder: Path) -> Act:
    """A sound model with little time."""
    return _loading(folder, a_model(folder / "sound.onnx"), Bounds(4 << 30, 0.2))


def too_hungry(folder: Path) -> Act:
    """A sound model with little memory."""
    return _loading(folder, a_model(folder / "sound.onnx"), Bounds(64 << 20, 60.0))
