"""The model slot with a real pipeline and a real engine: whatever fails leaves the running model untouched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_model import tiny_contract, tiny_graph, write_tiny
from untried_maker import UntriedMaker

from ptychostream.errors import EngineError, ModelError
from ptychostream.frames.frames import Frame
from ptychostream.ioc.model.model_slot import EngineWish, Maker, ModelSlot, SlotState
from ptychostream.model.contract import CONTRACT_KEY, ModelContract
from ptychostream.plugins.engines.plain import plain_contract
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions

ORT = EngineWish("ONNXRuntime", "float32", 4)


class Bench:
    """A pipeline with a slot, and frames to see which model runs."""

    def __init__(
        self, folder: Path, wish: EngineWish = ORT, directory: Path | None = None, maker: Maker | None = None
    ) -> None:
        self.maker = maker or UntriedMaker(folder / "cache", 1)
        self.pipeline = Pipeline(PipelineSettings(batch=4, max_latency_s=0.005), AttributePositions("x", "y"))
        self.pipeline.start()
        self.states: list[SlotState] = []
        self.slot = ModelSlot(
            self.maker,
            self.pipeline.swap_engine,
            plain_contract((16, 16), 10e-9),
            wish=wish,
            directory=directory,
            max_bytes=1_000_000,
            on_change=lambda: self.states.append(self.slot.state) if hasattr(self, "slot") else None,
        )
        self._next = 0

    def phase_of_ones(self) -> float:
        """What the live model makes of a frame of ones."""
        self._next += 1
        scan = f"s{self._next}"
        counts = np.ones((16, 16), np.uint16)
        self.pipeline.submit(Frame(scan, self._next, float(self._next), counts, {"x": 0.0, "y": 0.0}))
        self.pipeline.end_scan(scan).result(10)
        patch = self.pipeline.snapshot().patch
        assert patch is not None
        assert patch.scan == scan, self.pipeline.snapshot().message
        return float(patch.phase.mean())


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    assert made.pipeline.stop(10)


def test_a_model_goes_live_through_every_state(bench: Bench, tmp_path: Path) -> None:
    sha = write_tiny(tmp_path / "a.onnx", gain=0.01, name="a")
    bench.slot.load(tmp_path / "a.onnx")
    assert bench.states == [SlotState.STAGING, SlotState.CHECKING, SlotState.BUILDING, SlotState.LIVE]
    live = bench.slot.live
    assert live is not None
    assert (live.sha256, live.engine, live.batch) == (sha, "ONNXRuntime", 4)
    assert bench.slot.sha_of("a") == sha
    assert bench.phase_of_ones() == pytest.approx(0.01, abs=1e-4)


def test_a_file_that_is_not_the_expected_one_is_refused(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "pushed.onnx"
    sha = write_tiny(path, gain=0.02, name="pushed")
    bench.slot.load(path, sha)
    live = bench.slot.live
    assert live is not None
    assert (live.sha256, live.path) == (sha, str(path))
    write_tiny(path, gain=0.03, name="other")
    with pytest.raises(ModelError, match="the file was changed"):
        bench.slot.load(path, sha)
    assert bench.slot.live is live


def test_rollback_goes_back_and_forth(bench: Bench, tmp_path: Path) -> None:
    for name, gain in (("a", 0.01), ("b", 0.03)):
        write_tiny(tmp_path / f"{name}.onnx", gain=gain, name=name)
        bench.slot.load(tmp_path / f"{name}.onnx")
    assert bench.phase_of_ones() == pytest.approx(0.03, abs=1e-4)
    (tmp_path / "a.onnx").unlink()  # the slot keeps the bytes
    bench.slot.rollback()
    assert bench.phase_of_ones() == pytest.approx(0.01, abs=1e-4)
    bench.slot.rollback()
    assert bench.phase_of_ones() == pytest.approx(0.03, abs=1e-4)


def test_rollback_without_a_previous_model_says_so(bench: Bench) -> None:
    with pytest.raises(ModelError, match="no previous model"):
        bench.slot.rollback()
    assert bench.slot.state is SlotState.NO_MODEL


def spoil(kind: str, path: Path) -> None:
    """Write a model that must be refused."""
    if kind == "missing":
        return
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "huge":
        path.write_bytes(b"\0" * 1_000_001)
    elif kind == "garbage":
        path.write_bytes(b"not a model at all" * 10)
    elif kind == "lying golden pair":
        write_tiny(path, gain=0.02, name="liar", lie=0.1)
    elif kind == "nan weights":
        save(path, tiny_graph(gain=float("nan")), tiny_contract(gain=0.02))
    elif kind == "wrong shape":
        save(path, tiny_graph(output_size=8), tiny_contract())
    elif kind == "wrong opset":
        graph = tiny_graph()
        graph.opset_import[0].version = 5
        save(path, graph, tiny_contract())
    elif kind == "no contract":
        onnx.save(tiny_graph(), path)


def save(path: Path, graph: onnx.ModelProto, contract: ModelContract) -> None:
    graph.metadata_props.add(key=CONTRACT_KEY, value=contract.to_json())
    path.write_bytes(graph.SerializeToString())


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "No such file"),
        ("empty", "0 bytes"),
        ("huge", "limit"),
        ("garbage", "ONNX"),
        ("lying golden pair", "golden pair"),
        ("nan weights", "not finite"),
        ("wrong shape", "shape|phase|infer"),
        ("wrong opset", "opset"),
        ("no contract", "contract"),
    ],
)
def test_a_refused_model_leaves_the_running_one(bench: Bench, tmp_path: Path, kind: str, says: str) -> None:
    write_tiny(tmp_path / "good.onnx", gain=0.01, name="good")
    bench.slot.load(tmp_path / "good.onnx")
    before = bench.slot.live
    spoil(kind, tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match=says):
        bench.slot.load(tmp_path / "bad.onnx")
    assert bench.slot.live is before
    assert bench.slot.state is SlotState.FAILED
    assert bench.slot.message.startswith("loading")
    assert bench.slot.previous is None
    assert bench.slot.sha_of("good") == before.sha256
    assert bench.phase_of_ones() == pytest.approx(0.01, abs=1e-4)


def test_the_first_model_refused_leaves_no_model(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        bench.slot.load(tmp_path / "nowhere.onnx")
    assert bench.slot.state is SlotState.NO_MODEL


def test_models_outside_the_models_folder_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    write_tiny(tmp_path / "outside.onnx")
    (folder / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    write_tiny(folder / "inside.onnx")
    bench = Bench(tmp_path, directory=folder)
    for path in (tmp_path / "outside.onnx", "../outside.onnx", "link.onnx"):
        with pytest.raises(ModelError, match="models folder"):
            bench.slot.load(path)
    bench.slot.load("inside.onnx")
    assert bench.slot.state is SlotState.LIVE
    assert bench.pipeline.stop(10)


def test_an_engine_that_is_not_there_leaves_the_running_one(bench: Bench, tmp_path: Path) -> None:
    write_tiny(tmp_path / "a.onnx")
    bench.slot.load(tmp_path / "a.onnx")
    with pytest.raises(EngineError):
        bench.slot.use_engine(name="TensorRT")
    assert bench.slot.wish == ORT
    assert bench.slot.live is not None
    assert bench.slot.live.engine == "ONNXRuntime"
    bench.slot.use_engine(batch=2)
    assert bench.slot.live.batch == 2
    assert bench.phase_of_ones() == pytest.approx(0.01, abs=1e-4)


def test_engine_none_runs_without_a_model_and_gives_way_to_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, wish=EngineWish("None", "auto", 4))
    bench.slot.run_plain()
    assert bench.slot.state is SlotState.LIVE
    assert bench.phase_of_ones() == pytest.approx(1.0)
    bench.slot.use_engine(name="ONNXRuntime")  # no model yet: it runs on
    assert bench.phase_of_ones() == pytest.approx(1.0)
    write_tiny(tmp_path / "a.onnx", gain=0.02)
    bench.slot.load(tmp_path / "a.onnx")
    assert bench.phase_of_ones() == pytest.approx(0.02, abs=1e-4)
    assert bench.pipeline.stop(10)


class NotingMaker(UntriedMaker):
    """Notes the sidecar of each trial."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "cache", 1)
        self.sidecars: list[bytes | None] = []

    def try_out(
        self, wish: EngineWish, data: bytes, sidecar: bytes | None, path: Path, give_up: threading.Event
    ) -> None:
        super().try_out(wish, data, sidecar, path, give_up)
        self.sidecars.append(sidecar)


@pytest.mark.parametrize("inside", [True, False])
def test_a_change_of_the_engine_is_tried_with_the_contract_where_the_file_has_it(tmp_path: Path, inside: bool) -> None:
    """A trial that the model passed when it was loaded counts again: it is of the same bytes and the same sidecar."""
    maker = NotingMaker(tmp_path)
    bench = Bench(tmp_path, maker=maker)
    path = tmp_path / "a.onnx"
    if inside:
        write_tiny(path)
    else:
        path.write_bytes(tiny_graph().SerializeToString())
        path.with_suffix(".json").write_text(tiny_contract().to_json(), encoding="utf-8")
    bench.slot.load(path)
    bench.slot.use_engine(batch=2)
    first, again = maker.sidecars
    if inside:
        assert first is None and again is None
    else:
        assert first is not None and again is not None
        assert ModelContract.from_json(first) == ModelContract.from_json(again)
    assert bench.slot.live is not None and bench.slot.live.batch == 2
    assert bench.pipeline.stop(10)
