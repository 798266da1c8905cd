"""Which graphs are admitted: each thing that a network of this kind does not need is refused by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_model import tiny_contract, tiny_graph

from ptychostream.errors import ModelError
from ptychostream.model.admitted import MAX_ELEMENTS, OPERATORS, check_graph
from ptychostream.model.contract import GoldenPair, PackedArray
from ptychostream.model.model_file import MAX_GOLDEN_PIXELS, write_model


def _branch(name: str) -> onnx.GraphProto:
    output = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([helper.make_node("Identity", ["gain"], [name])], name, [], [output])


def conditional(model: onnx.ModelProto) -> None:
    node = helper.make_node("If", ["choice"], ["more"], then_branch=_branch("a"), else_branch=_branch("b"))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "choice"))
    model.graph.node.append(node)


def graph_in_a_plain_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("body", _branch("a")))


def function(model: onnx.ModelProto) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "mine", ["x"], ["y"], nodes, [helper.make_opsetid("", 17)]))


def foreign_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "RandomNormal"


def weights_elsewhere(model: onnx.ModelProto) -> None:
    weight = model.graph.initializer[0]
    weight.external_data.add(key="location", value="weights.bin")
    weight.data_location = TensorProto.EXTERNAL


def weights_of_a_node_elsewhere(model: onnx.ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(2, np.float32), "c")
    tensor.external_data.add(key="location", value="c.bin")
    model.graph.node.append(helper.make_node("Constant", [], ["more"], value=tensor))


def sparse(model: onnx.ModelProto) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "p")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))


def training(model: onnx.ModelProto) -> None:
    model.training_info.add()


def many_nodes(model: onnx.ModelProto) -> None:
    model.graph.node.extend([helper.make_node("Identity", ["gain"], [f"n{i}"]) for i in range(5000)])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (conditional, "'If' is not admitted"),
        (graph_in_a_plain_node, "'Mul' holds a graph"),
        (function, "functions of its own"),
        (foreign_domain, "domain 'com.example'"),
        (foreign_operator, "of the domain 'com.example'"),
        (unknown_operator, "'RandomNormal' is not admitted"),
        (weights_elsewhere, "in another file"),
        (weights_of_a_node_elsewhere, "in another file"),
        (sparse, "sparse weights"),
        (training, "training information"),
        (many_nodes, "5,002 nodes"),
    ],
)
def test_what_no_such_network_needs_is_refused_by_its_name(
    change: Callable[[onnx.ModelProto], None], said: str, tmp_path: Path
) -> None:
    model = tiny_graph()
    check_graph(model, "m.onnx")
    change(model)
    with pytest.raises(ModelError, match=said) as refused:
        write_model(tmp_path / "m.onnx", model, tiny_contract())
    assert refused.value.remedy
    assert not list(tmp_path.iterdir())


def test_an_intermediate_array_of_unreasonable_size_is_refused(tmp_path: Path) -> None:
    model = tiny_graph()
    side = int(MAX_ELEMENTS**0.5) + 1
    shape = numpy_helper.from_array(np.array([1, 1, side, side], np.int64), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("Expand", ["gain", "shape"], ["large"]))
    with pytest.raises(ModelError, match=rf"'large' has 1 × 1 × {side} × {side} elements"):
        write_model(tmp_path / "m.onnx", model, tiny_contract())


def test_a_long_name_in_a_message_is_cut_and_escaped() -> None:
    model = tiny_graph()
    model.graph.node[0].op_type = "\x1b[31m" + "A" * 1000
    with pytest.raises(ModelError) as refused:
        check_graph(model, "m.onnx")
    assert "\x1b" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.slow
def test_a_golden_pair_of_too_many_frames_is_refused(tmp_path: Path) -> None:
    frames = MAX_GOLDEN_PIXELS // 256 + 1
    counts = PackedArray.pack(np.zeros((frames, 16, 16), np.uint8))
    phase = PackedArray.pack(np.zeros((frames, 16, 16), np.float16))
    contract = tiny_contract().model_copy(update={"golden": GoldenPair(counts=counts, phase=phase)})
    with pytest.raises(ModelError, match="golden pair of more than"):
        write_model(tmp_path / "m.onnx", tiny_graph(), contract)


def test_every_admitted_operator_is_one_of_onnx() -> None:
    known = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert known >= OPERATORS
