"""What is done to a graph before a runtime sees it, and the cache of what the runtime makes of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from engine_models import counts_of, make_model, make_proto, reference
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.model.model_file import ModelFile, check_golden
from ptychostream.plugins.engines import create_engine
from ptychostream.plugins.engines.graph import streaming_graph
from ptychostream.plugins.engines.quantise import activation_scale, quantise_weight
from ptychostream.plugins.engines.subpixel import merge_last_enlargement


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def frames() -> Any:
    return counts_of(8)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_cached_engine_is_used_again(
    model: ModelFile, frames: Any, tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptychostream.plugins.engines import openvino_engine

    def create() -> Any:
        engine = create_engine("OpenVINO", model, precision=precision, cache_dir=tmp_path)
        phase = engine.infer(frames).copy()
        engine.close()
        return phase

    phase = create()
    (path,) = tmp_path.iterdir()
    before = path.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(openvino_engine.OpenVinoEngine, "_build", lambda *_: pytest.fail("built again"))
        np.testing.assert_array_equal(create(), phase)
    assert path.stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "foreign"])
def test_damaged_cache_is_built_again(
    model: ModelFile, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptychostream.plugins.engines import cache, openvino_engine

    create_engine("OpenVINO", model, cache_dir=tmp_path).close()
    (path,) = tmp_path.iterdir()
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    foreign = b"engine of another runtime"
    path.write_bytes(
        {
            "truncate": good[:-100],
            "flip": bytes(flipped),
            "empty": b"",
            "foreign": cache.MAGIC + hashlib.sha256(foreign).digest() + foreign,
        }[damage]
    )
    engine = create_engine("OpenVINO", model, cache_dir=tmp_path)
    assert check_golden(model.contract, engine.infer) < 0.05
    engine.close()
    assert "building it again" in caplog.text
    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_build", lambda *_: pytest.fail("not replaced"))
    create_engine("OpenVINO", model, cache_dir=tmp_path).close()


@pytest.mark.slow
def test_cache_keys_differ_by_what_matters(model: ModelFile, tmp_path: Path) -> None:
    other = make_model(tmp_path, make_proto(width=24), name="other")
    folder = tmp_path / "cache"
    plain = {"precision": "float32"}
    options: list[dict[str, Any]] = [plain, {"precision": "int8"}, {**plain, "threads": 1}]
    for which, some in [*((model, each) for each in options), (other, plain)]:
        create_engine("OpenVINO", which, cache_dir=folder, **some).close()
    assert len(list(folder.iterdir())) == 4
    automatic = create_engine("OpenVINO", model, cache_dir=folder)
    automatic.close()
    assert len(list(folder.iterdir())) == 4 + (automatic.precision != "float32")


@pytest.mark.slow
def test_a_cache_that_cannot_be_written_costs_a_warning(
    model: ModelFile, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    create_engine("OpenVINO", model, cache_dir=blocked / "cache").close()
    assert "not cached" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 17, 18])
def test_merged_enlargement_is_exact_to_the_last_pixel(opset: int) -> None:
    proto = make_proto(opset=opset, batch=2)
    merged = onnx.ModelProto()
    merged.CopyFrom(proto)
    assert merge_last_enlargement(merged)
    onnx.checker.check_model(merged, full_check=True)
    assert any(node.op_type == "DepthToSpace" for node in merged.graph.node)
    counts = counts_of(2)
    np.testing.assert_allclose(reference(merged, counts), reference(proto, counts), atol=2e-5)


def test_only_a_bilinear_doubling_before_few_channels_is_merged() -> None:
    for change in ("align_corners", "asymmetric"):
        proto = make_proto(batch=1)
        for node in proto.graph.node:
            for attribute in node.attribute:
                if attribute.name == "coordinate_transformation_mode":
                    attribute.s = change.encode()
        before = proto.SerializeToString()
        assert not merge_last_enlargement(proto)
        assert proto.SerializeToString() == before


def test_streaming_graph_keeps_the_phase_alone(model: ModelFile) -> None:
    before = model.parsed.SerializeToString()
    graph = streaming_graph(model, 4).graph
    assert model.parsed.SerializeToString() == before
    assert [value.name for value in graph.output] == ["phase"]
    assert not any(node.op_type == "Sigmoid" for node in graph.node)
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_quantisation_steps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight = (rng.standard_normal((4, 3, 3, 3)) * rng.uniform(1e-6, 10)).astype(np.float32)
    code, scale = quantise_weight(weight)
    assert np.all(np.abs(code * scale[:, None, None, None] - weight) <= scale[:, None, None, None] * 0.501)
    values = np.abs(rng.standard_normal(5000)).astype(np.float32)
    step = activation_scale(values)
    brighter = 1.5 * values
    coded = np.minimum(np.rint(brighter / step), 255) * step
    assert np.abs(coded - brighter).max() <= 0.501 * step, "brighter frames are not clipped"
    assert activation_scale(np.zeros(10, np.float32)) > 0
