"""Model files: what is refused, and that it is said why; what a foreign model needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from engine_models import counts_of, make_model, make_proto, reference
from onnx import TensorProto, helper, numpy_helper

from ptychostream.errors import ModelError
from ptychostream.model.contract import (
    CONTRACT_KEY,
    CONTRACT_VERSION,
    GoldenPair,
    ModelContract,
    PackedArray,
    Preprocessing,
)
from ptychostream.model.model_file import check_golden, load_model, write_model

SIDE = 32


def contract(**changes: object) -> ModelContract:
    values = {"name": "m", "input_shape": (SIDE, SIDE), "output_shape": (SIDE, SIDE), "object_pixel_m": 1e-8}
    return ModelContract.model_validate(values | changes)


def save(path: Path, proto: onnx.ModelProto, given: ModelContract | None = None) -> Path:
    """Write a model as somebody else might: nothing is checked."""
    if given is not None:
        proto.metadata_props.add(key=CONTRACT_KEY, value=given.to_json())
    path.write_bytes(proto.SerializeToString())
    return path


def test_a_written_model_reads_back(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    again = load_model(model.path)
    assert again == model
    assert again.inputs == ("counts", "dose_scale")
    assert again.has_dose_scale
    assert again.dose_shape == (1,)
    assert again.fixed_batch is None
    assert again.amplitude_output == "amplitude"
    assert again.opset == 17


def test_writing_is_atomic_and_returns_the_sha(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    sha = write_model(path, make_proto(), contract())
    assert load_model(path).sha256 == sha
    before = path.read_bytes()
    with pytest.raises(ModelError, match="opset 9"):
        write_model(path, make_proto(opset=9), contract())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match="cannot be written"):
        write_model(tmp_path / "file" / "m.onnx", make_proto(), contract())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"hello", "not an ONNX model"),
        (b"{}", "not an ONNX model"),
        (b"\x00" * 64, "not an ONNX model"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(path)
    assert caught.value.where == str(path)
    assert caught.value.remedy


def test_a_truncated_model_is_refused(tmp_path: Path) -> None:
    path = make_model(tmp_path).path
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_model(path)


def test_a_graph_that_does_not_add_up_is_refused(tmp_path: Path) -> None:
    proto = make_proto()
    proto.graph.node[4].input[0] = "nowhere"
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(save(tmp_path / "m.onnx", proto, contract()))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelError):
            load_model(path)


def test_the_size_limit_is_checked_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: reading it would take the machine down
    with pytest.raises(ModelError, match="limit of 268,435,456"):
        load_model(path)
    model = make_model(tmp_path)
    with pytest.raises(ModelError, match="limit of 100"):
        load_model(model.path, max_bytes=100)


@pytest.mark.parametrize("opset", [9, 22])
def test_an_opset_out_of_range_is_refused(tmp_path: Path, opset: int) -> None:
    proto = make_proto()
    node = helper.make_node("Relu", ["counts"], ["phase"])
    del proto.graph.node[:], proto.graph.initializer[:], proto.graph.output[1:], proto.graph.input[1:]
    proto.graph.node.append(node)
    proto.opset_import[0].version = opset
    with pytest.raises(ModelError, match=f"opset {opset} is outside 11 to 21"):
        load_model(save(tmp_path / "m.onnx", proto, contract()))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, bad: float) -> None:
    proto = make_proto()
    tensor = proto.graph.initializer[3]
    values = numpy_helper.to_array(tensor).copy()
    values.flat[-1] = bad
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    with pytest.raises(ModelError, match=f"weights '{tensor.name}' are not finite"):
        load_model(save(tmp_path / "m.onnx", proto, contract()))


def test_weights_in_another_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    proto = make_proto()
    proto.metadata_props.add(key=CONTRACT_KEY, value=contract().to_json())
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    for folder in (Path.cwd(), tmp_path):  # where the other file can be found, and where not
        monkeypatch.chdir(folder)
        with pytest.raises(ModelError, match="lie in another file"):
            load_model(path)


def _two_inputs(proto: onnx.ModelProto) -> None:
    proto.graph.input[1].name = "exposure"
    for node in proto.graph.node:
        node.input[:] = ["exposure" if name == "dose_scale" else name for name in node.input]


def _dose_vector(proto: onnx.ModelProto) -> None:
    proto.graph.input[1].CopyFrom(helper.make_tensor_value_info("dose_scale", TensorProto.FLOAT, [SIDE]))


def _half_input(proto: onnx.ModelProto) -> None:
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    proto.graph.node.insert(0, helper.make_node("Cast", ["counts"], ["cast"], to=TensorProto.FLOAT))
    proto.graph.node[1].input[0] = "cast"


def _half_output(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "full"
    proto.graph.node.append(helper.make_node("Cast", ["full"], ["phase"], to=TensorProto.FLOAT16))
    proto.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _unnamed_outputs(proto: onnx.ModelProto) -> None:
    proto.graph.node[-1].output[0] = "first"
    proto.graph.output[0].name = "first"


def _flat(proto: onnx.ModelProto) -> None:
    del proto.graph.node[:], proto.graph.initializer[:], proto.graph.output[1:], proto.graph.input[1:]
    proto.graph.node.append(helper.make_node("Relu", ["counts"], ["phase"]))
    for value, name in ((proto.graph.input[0], "counts"), (proto.graph.output[0], "phase")):
        value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIDE * SIDE]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_two_inputs, r"inputs \['counts', 'exposure'\]"),
        (_dose_vector, "dose_scale has shape"),
        (_half_input, "input 'counts' is not float32"),
        (_half_output, "output 'phase' is not float32"),
        (_unnamed_outputs, r"outputs \['first', 'amplitude'\]"),
        (_flat, "'counts' has shape"),
    ],
)
def test_a_graph_that_cannot_be_streamed_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], message: str
) -> None:
    proto = make_proto()
    change(proto)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(save(tmp_path / "m.onnx", proto, contract()))
    assert caught.value.remedy


def packed(array: object, dtype: str = "f4") -> PackedArray:
    return PackedArray.pack(np.asarray(array, dtype=dtype))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (contract(input_shape=(SIDE, 64)), r"'counts' has shape \[None, 1, 32, 32\], .* \[N, 1, 32, 64\]"),
        (contract(output_shape=(16, 16)), "'phase' has shape"),
        (contract(input_shape=(0, SIDE)), "must be positive"),
        (contract(preprocessing=Preprocessing(crop=(0, 0, 64, 64), bin=4)), "preprocessing gives 16×16"),
        (contract(patch_weight=packed(np.ones((16, 16)))), "patch_weight"),
        (contract(patch_weight=packed(np.zeros((SIDE, SIDE)))), "patch_weight"),
        (contract(patch_weight=packed(np.full((SIDE, SIDE), -1))), "patch_weight"),
        (contract(patch_weight=packed(np.full((SIDE, SIDE), np.nan))), "patch_weight"),
        (
            contract(golden=GoldenPair(counts=packed(np.ones((2, 16, 16))), phase=packed(np.ones((2, SIDE, SIDE))))),
            "golden pair",
        ),
    ],
)
def test_a_contract_that_contradicts_itself_or_the_graph_is_refused(
    tmp_path: Path, given: ModelContract, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(save(tmp_path / "m.onnx", make_proto(), given))


def test_a_crop_that_is_turned_fits_the_turned_shape(tmp_path: Path) -> None:
    given = contract(preprocessing=Preprocessing(crop=(2, 3, 64, 64), bin=2, rot90=1))
    assert load_model(save(tmp_path / "m.onnx", make_proto(), given)).contract == given


def test_a_foreign_model_needs_a_sidecar(tmp_path: Path) -> None:
    path = save(tmp_path / "foreign.onnx", make_proto(dose=False, batch=4))
    with pytest.raises(ModelError, match="no model contract") as caught:
        load_model(path)
    assert "foreign.json" in caught.value.remedy
    path.with_suffix(".json").write_text(contract(name="foreign").to_json())
    model = load_model(path)
    assert model.contract.name == "foreign"
    assert model.fixed_batch == 4
    assert model.inputs == ("counts",)
    assert not model.has_dose_scale
    with pytest.raises(ModelError, match="no model contract"):
        load_model(path, sidecar=False)


def test_a_sidecar_is_not_looked_at_where_the_file_has_its_contract(tmp_path: Path) -> None:
    model = make_model(tmp_path)
    model.path.with_suffix(".json").write_text("")
    assert load_model(model.path).contract == model.contract


def test_a_bad_sidecar_is_named_with_its_field(tmp_path: Path) -> None:
    path = save(tmp_path / "foreign.onnx", make_proto())
    path.with_suffix(".json").write_text('{"name": "m", "input_shape": [32], "output_shape": [32, 32]}')
    with pytest.raises(ModelError, match=r"foreign\.json: input_shape"):
        load_model(path)


def test_an_even_older_or_newer_contract_is_refused(tmp_path: Path) -> None:
    proto = make_proto()
    newer = contract().to_json().replace(f'"version":{CONTRACT_VERSION}', f'"version":{CONTRACT_VERSION + 1}')
    proto.metadata_props.add(key=CONTRACT_KEY, value=newer)
    with pytest.raises(ModelError, match="version"):
        load_model(save(tmp_path / "m.onnx", proto))


@pytest.mark.slow
def test_the_golden_pair_holds_for_the_model_and_not_for_another(tmp_path: Path) -> None:
    proto = make_proto()
    model = make_model(tmp_path, proto)
    assert check_golden(model.contract, lambda counts, dose: reference(proto, counts, dose)) < 1e-5
    with pytest.raises(ModelError, match="rad rms, tolerance"):
        check_golden(model.contract, lambda counts, dose: reference(proto, counts[:, ::-1], dose))
    with pytest.raises(ModelError, match="rad rms"):
        check_golden(model.contract, lambda counts, _: np.full(counts.shape, np.nan, np.float32))
    with pytest.raises(ModelError, match="shape"):
        check_golden(model.contract, lambda counts, _: counts[:, ::2])


def test_a_lying_golden_pair_is_found(tmp_path: Path) -> None:
    proto = make_proto()
    counts = counts_of(2)
    lie = GoldenPair(counts=PackedArray.pack(counts), phase=PackedArray.pack(reference(proto, counts) + 0.1))
    write_model(tmp_path / "m.onnx", proto, contract(golden=lie))
    model = load_model(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"0\.1 rad rms, tolerance 0\.05 rad"):
        check_golden(model.contract, lambda counts, dose: reference(proto, counts, dose))


def test_without_a_golden_pair_nothing_is_run(tmp_path: Path) -> None:
    model = make_model(tmp_path, golden=False)
    assert check_golden(model.contract, lambda *_: pytest.fail("was run")) == 0.0
