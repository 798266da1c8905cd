"""Inference engines: they agree, they do not mix frames, they say what is missing, they start quickly again."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engine_models import SIDE, counts_of, make_model, make_proto, reference
from folders import HELPERS
from hypothesis import given, settings
from hypothesis import strategies as st

from ptychostream.errors import ConfigError, EngineError
from ptychostream.model.model_file import ModelFile, check_golden
from ptychostream.plugins.engines import Engine, create_engine, engine_names, probe_engines, probing, registry
from ptychostream.processes.hardware import has_nvidia_gpu

# Engine, precision, tolerance in rad rms: the table of docs/reference/engines.md.
TOLERANCES = [
    ("OpenVINO", "float32", 1e-5),
    ("OpenVINO", "bfloat16", 0.02),
    ("OpenVINO", "int8", 0.05),
    ("ONNXRuntime", "float32", 1e-5),
    ("Torch", "float32", 1e-5),
    ("Torch", "bfloat16", 0.02),
]
BATCH = 8
ENGINES = [pytest.param(name, precision, id=f"{name}-{precision}") for name, precision, _ in TOLERANCES]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def frames() -> Any:
    return counts_of(BATCH)


@pytest.fixture(scope="module")
def engines(model: ModelFile) -> Iterator[dict[tuple[str, str], Engine]]:
    threads = {"Torch": 1}  # it spins where other work waits for the cores
    made = {
        (name, p): create_engine(name, model, batch=BATCH, precision=p, threads=threads.get(name))
        for name, p, _ in TOLERANCES
    }
    yield made
    for engine in made.values():
        engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("dose", [1.0, 7.5])
def test_agrees_with_the_reference(
    engines: dict[tuple[str, str], Engine], frames: Any, name: str, precision: str, tolerance: float, dose: float
) -> None:
    counts = frames / np.float32(dose)  # as bright, scaled, as the golden frames: int8 clips what is much brighter
    expected = reference(make_proto(), counts, dose)
    assert expected.std() > 0.1, "the model must say something for agreement to mean something"
    phase = engines[name, precision].infer(counts, dose)
    assert phase.dtype == np.float32
    assert np.sqrt(np.mean((phase - expected) ** 2)) < tolerance
    assert engines[name, precision].precision == precision


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), ENGINES)
def test_a_frame_does_not_depend_on_its_neighbours(
    engines: dict[tuple[str, str], Engine], frames: Any, name: str, precision: str
) -> None:
    engine = engines[name, precision]
    alone = np.concatenate([engine.infer(frames[i : i + 1]).copy() for i in range(BATCH)])

    @settings(max_examples=8, deadline=None)
    @given(st.lists(st.integers(0, BATCH - 1), min_size=1, max_size=BATCH))
    def check(order: list[int]) -> None:
        np.testing.assert_array_equal(engine.infer(frames[order]), alone[order])

    check()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision"), ENGINES)
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_frame_does_not_depend_on_the_threads_nor_on_how_many_batches_go_in_one_call(
    engines: dict[tuple[str, str], Engine], model: ModelFile, frames: Any, name: str, precision: str, threads: int
) -> None:
    expected = engines[name, precision].infer(frames)
    engine = create_engine(name, model, batch=3 * BATCH, chunk=BATCH, precision=precision, threads=threads)
    many = engine.infer(np.concatenate([frames[::-1], frames, frames[:3]]))
    np.testing.assert_array_equal(many[BATCH : 2 * BATCH], expected)
    np.testing.assert_array_equal(many[:BATCH], expected[::-1])
    engine.close()


@pytest.mark.parametrize(("name", "precision"), ENGINES)
def test_infer_allocates_no_new_output(
    engines: dict[tuple[str, str], Engine], frames: Any, name: str, precision: str
) -> None:
    engine = engines[name, precision]
    first = engine.infer(frames)
    assert np.shares_memory(first, engine.infer(frames[:3]))


@pytest.mark.parametrize(("name", "precision"), ENGINES)
def test_golden_pair_passes_and_a_lying_one_does_not(
    engines: dict[tuple[str, str], Engine], model: ModelFile, name: str, precision: str
) -> None:
    engine = engines[name, precision]
    assert check_golden(model.contract, engine.infer) < 0.05
    with pytest.raises(Exception, match="differs by"):
        check_golden(model.contract, lambda counts, dose: -engine.infer(counts, dose))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OpenVINO", "ONNXRuntime", "Torch"])
def test_foreign_model_of_fixed_batch_without_dose_input(tmp_path: Path, frames: Any, name: str) -> None:
    proto = make_proto(dose=False, batch=3)
    foreign = make_model(tmp_path, proto)
    assert foreign.fixed_batch == 3
    engine = create_engine(name, foreign, batch=BATCH, precision="float32")
    for n in (1, 3, 4, BATCH):
        padded = np.zeros((9, SIDE, SIDE), np.float32)
        padded[:n] = frames[:n] * np.float32(2.5)
        expected = np.concatenate([reference(proto, padded[i : i + 3]) for i in (0, 3, 6)])[:n]
        np.testing.assert_allclose(engine.infer(frames[:n], 2.5), expected, atol=1e-4)
    engine.close()


def test_padding_is_dark_whatever_came_before(tmp_path: Path, frames: Any) -> None:
    """Seen through a model that, unlike any good one, mixes the frames of a batch."""
    mixing = make_model(tmp_path, make_proto(extra="Softmax", axis=0), golden=False)
    engine, fresh = (create_engine("ONNXRuntime", mixing, batch=BATCH) for _ in range(2))
    engine.infer(frames)
    np.testing.assert_array_equal(engine.infer(frames[:3]), fresh.infer(frames[:3]))


@pytest.mark.parametrize(("name", "precision"), ENGINES)
def test_refuses_what_does_not_fit(
    engines: dict[tuple[str, str], Engine], frames: Any, name: str, precision: str
) -> None:
    engine = engines[name, precision]
    for bad in (np.zeros((BATCH + 1, SIDE, SIDE), np.float32), np.zeros((1, SIDE, SIDE + 1), np.float32), frames[0]):
        with pytest.raises(EngineError, match=f"at most {BATCH} frames of {SIDE}×{SIDE}"):
            engine.infer(bad)
    for dose in (0.0, -1.0, float("nan")):
        with pytest.raises(EngineError, match="dose_scale"):
            engine.infer(frames, dose)
    assert engine.infer(frames[:0]).shape == (0, SIDE, SIDE)


@pytest.mark.parametrize("name", ["OpenVINO", "ONNXRuntime", "Torch", "none"])
def test_closed_engine_refuses(model: ModelFile, frames: Any, name: str) -> None:
    engine = create_engine(name, model, batch=BATCH)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(frames)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OpenVINO", "ONNXRuntime", "Torch"])
def test_threads_are_limited(tmp_path: Path, name: str) -> None:
    model = make_model(tmp_path, make_proto(side=128), golden=False)
    code = f"""
import sys
sys.path.insert(0, {str(HELPERS)!r})
from pathlib import Path
from engine_models import counts_of
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines import create_engine
engine = create_engine({name!r}, load_model({str(model.path)!r}), threads=1)
assert engine.device.startswith("1 of "), engine.device
x = counts_of(8, side=128)
engine.infer(x)
import os

def used():  # CPU ticks of every thread of this process
    ticks = {{}}
    for task in os.listdir("/proc/self/task"):
        fields = open(f"/proc/self/task/{{task}}/stat").read().rsplit(")", 1)[1].split()
        ticks[task] = int(fields[11]) + int(fields[12])
    return ticks

before = used()
while sum(used().values()) - sum(before.values()) < 100:  # one second of work, however long it takes
    engine.infer(x)
spent = {{task: ticks - before.get(task, 0) for task, ticks in used().items()}}
workers = [task for task, ticks in spent.items() if ticks > 0.25 * sum(spent.values())]
assert len(workers) == 1, spent
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_zero_threads_and_batches_are_refused(model: ModelFile) -> None:
    for bad in ({"threads": 0}, {"batch": 0}):
        with pytest.raises(EngineError, match="at least 1"):
            create_engine("OpenVINO", model, **bad)


def test_none_passes_counts_on(frames: Any) -> None:
    engine = create_engine("none", None, shape=(SIDE, SIDE), batch=BATCH)
    np.testing.assert_array_equal(engine.infer(frames[:5], 2.0), frames[:5] * 2)
    assert engine.output_shape == (SIDE, SIDE)
    with pytest.raises(EngineError, match="shape"):
        create_engine("none", None)


def test_auto_takes_the_fastest_and_says_why(model: ModelFile, caplog: pytest.LogCaptureFixture) -> None:
    statuses = probe_engines()
    first = next(status for status in statuses if status.available)
    with caplog.at_level(logging.INFO):
        engine = create_engine("auto", model)
    assert engine.name == first.name
    assert "fastest that is here" in engine.reason
    for status in statuses[: statuses.index(first)]:
        assert f"{status.name}: {status.reason}" in engine.reason
    assert engine.name in caplog.text
    assert engine.reason in caplog.text
    engine.close()


@pytest.mark.skipif(has_nvidia_gpu(), reason="a GPU engine comes first here")
def test_auto_goes_on_when_the_fastest_does_not_start(
    model: ModelFile, frames: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ptychostream.plugins.engines import openvino_engine

    def fail(*_: object) -> None:
        raise EngineError("broken on purpose")

    monkeypatch.setattr(openvino_engine.OpenVinoEngine, "_load", fail)
    engine = create_engine("Auto", model)
    assert engine.name == "ONNXRuntime"
    assert "OpenVINO: broken on purpose" in engine.reason
    engine.close()
    with pytest.raises(EngineError, match="broken on purpose"):
        create_engine("OpenVINO", model)


def test_auto_with_no_engine_at_all(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    assert not any(status.available for status in probe_engines())
    with pytest.raises(EngineError, match=r"openvino is not installed: pip install 'ptychostream\[edge\]'"):
        create_engine("Auto", model)


def test_unknown_engine_names_what_is_here(model: ModelFile) -> None:
    with pytest.raises(EngineError, match="unknown engine 'tensorflow'") as caught:
        create_engine("tensorflow", model)
    here = [status.name for status in probe_engines() if status.available]
    assert all(name in caught.value.remedy for name in [*here, *engine_names()])


def test_missing_runtime_names_the_remedy(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without_openvino(name: str, package: str | None = None) -> Any:
        return None if name == "openvino" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_openvino)
    with pytest.raises(EngineError, match=r"openvino is not installed: pip install 'ptychostream\[edge\]'"):
        create_engine("OpenVINO", model)


def test_runtime_that_does_not_load(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = probing.Candidate("OpenVINO", "no_such_module", "Nothing", probing._probe_openvino)
    monkeypatch.setattr(registry, "candidates", lambda: [broken])
    with pytest.raises(EngineError, match="does not load"):
        create_engine("OpenVINO", model)


def test_a_gpu_engine_without_a_gpu(model: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "has_nvidia_gpu", lambda: False)
    monkeypatch.setattr(probing, "_installed", lambda _: True)
    monkeypatch.setattr(probing, "find_module", lambda: "tensorrt")
    for name in ("TensorRT", "TorchCUDA"):
        with pytest.raises(EngineError, match="no NVIDIA GPU here"):
            create_engine(name, model)


@pytest.mark.parametrize("onnx_gpu", [False, True])
def test_ranking_where_there_is_a_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, onnx_gpu: bool) -> None:
    monkeypatch.setattr(probing, "has_nvidia_gpu", lambda: True)
    monkeypatch.setattr(probing, "_installed", lambda module: module != "pycuda")
    monkeypatch.setattr(probing, "find_module", lambda: "tensorrt")
    monkeypatch.setattr(probing, "_package_folder", lambda _: tmp_path)
    (tmp_path / "version.py").write_text("__version__ = '2.9'\ncuda: Optional[str] = '12.8'\n")
    if onnx_gpu:
        (tmp_path / "capi").mkdir()
        (tmp_path / "capi" / "libonnxruntime_providers_cuda.so").touch()
    found = {status.name: status for status in probe_engines()}
    last = ["ONNXRuntime", "OpenVINO"] if onnx_gpu else ["OpenVINO", "ONNXRuntime"]
    assert list(found) == ["TensorRT", "TorchCUDA", *last, "Torch"]
    assert not found["TensorRT"].available
    assert "pip install pycuda" in found["TensorRT"].reason
    assert found["TorchCUDA"].device == "NVIDIA GPU"
    assert found["ONNXRuntime"].device == ("NVIDIA GPU" if onnx_gpu else "CPU")
    (tmp_path / "version.py").write_text("__version__ = '2.9'\ncuda: Optional[str] = None\n")
    assert "without CUDA" in next(status for status in probe_engines() if status.name == "TorchCUDA").reason


def test_unsupported_precision_names_the_others(model: ModelFile) -> None:
    with pytest.raises(EngineError, match="'float16' is not supported") as caught:
        create_engine("OpenVINO", model, precision="float16")
    assert "bfloat16" in caught.value.remedy


def test_int8_without_golden_frames(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="golden"):
        create_engine("OpenVINO", make_model(tmp_path, golden=False), precision="int8")


@pytest.mark.slow
def test_torch_refuses_an_operator_by_name(tmp_path: Path) -> None:
    strange = make_model(tmp_path, make_proto(extra="Erf"))
    with pytest.raises(EngineError, match="operator Erf"):
        create_engine("Torch", strange)
    create_engine("OpenVINO", strange).close()


@pytest.mark.slow
def test_probing_and_the_cpu_engine_load_no_torch(model: ModelFile) -> None:
    code = f"""
import sys
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines import create_engine, probe_engines
probe_engines()
heavy = {{"torch", "openvino", "onnxruntime", "tensorrt", "tensorrt_rtx_bindings", "pycuda"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
create_engine("OpenVINO", load_model({str(model.path)!r}))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "precision", "tolerance"), TOLERANCES)
def test_every_engine_runs_the_network_with_a_stem(name: str, precision: str, tolerance: float, tmp_path: Path) -> None:
    from ptychostream.benchmarks.inference import patterns, random_model

    model = random_model("swiftnn", 64, tmp_path)
    counts = patterns(BATCH, 64)
    with closing(create_engine("ONNXRuntime", model, batch=BATCH, precision="float32")) as exact:
        expected = exact.infer(counts)
    with closing(create_engine(name, model, batch=BATCH, precision=precision, threads=1)) as engine:
        phase = engine.infer(counts)
    assert np.sqrt(np.mean((phase - expected) ** 2)) < tolerance < 0.5 * expected.std()


@pytest.mark.slow
def test_bench_inference_reports_every_engine(model: ModelFile, capsys: pytest.CaptureFixture[str]) -> None:
    from ptychostream.benchmarks import inference

    parser = argparse.ArgumentParser()
    inference.add_arguments(parser)
    quick = [
        "--json",
        "--batches",
        "2",
        "--networks",
        "ptychonn2",
        "--size",
        "32",
        "--rounds",
        "2",
        "--seconds",
        "0.01",
        "--threads",
        "1",
    ]
    assert inference.run(parser.parse_args(quick)) == 0
    report = json.loads(capsys.readouterr().out)
    rows = {(row["engine"], row["precision"], row["batch"]): row for row in report["results"]}
    assert {key[:2] for key in rows} >= {(name, precision) for name, precision, _ in TOLERANCES}
    for (name, precision, batch), row in rows.items():
        assert batch == 2
        assert row["frames_per_second"] > 0
        assert len(row["rounds"]) == 2
        assert row["ratio"] == 1 if (name, precision) == inference.BASELINE else row["ratio"] > 0
        assert row["rms_rad"] < (1e-4 if precision == "float32" else 0.2) < row["reference_std_rad"]
    inference.run(parser.parse_args([*quick, "--model", str(model.path)]))
    assert {row["network"] for row in json.loads(capsys.readouterr().out)["results"]} == {model.contract.name}
    for bad in (["--batches", "0"], ["--batches", "x"], ["--networks", "resnet"]):
        with pytest.raises(ConfigError):
            inference.run(parser.parse_args(bad))
