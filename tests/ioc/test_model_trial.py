"""A model is tried in a child first, and a rollback waits neither for a trial nor for a build."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from test_model_slot import ORT, Bench
from tiny_model import tiny_graph, write_tiny

from ptychostream.errors import EngineError, ModelError
from ptychostream.ioc.model.engine_maker import EngineMaker
from ptychostream.ioc.model.model_slot import EngineWish, SlotState
from ptychostream.model.contract import ModelContract
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines import Engine
from ptychostream.plugins.trial.order import EngineOrder
from ptychostream.plugins.trial.trial import try_model
from ptychostream.processes.bounded import Bounds

pytestmark = pytest.mark.slow  # most start a process

TIME_S = 30.0
BOUNDS = Bounds(2 << 30, 120.0)


class HeldMaker:
    """Builds as the IOC does, but a trial or a build of the model `held` waits until it is let go."""

    def __init__(self, folder: Path, held: str, where: str) -> None:
        self.bounds = BOUNDS
        self.built: list[str] = []
        self.arrived, self.go_on = threading.Event(), threading.Event()
        self._inner = EngineMaker(folder / "cache", 1, bounds=BOUNDS)
        self._held, self._where = held, where

    def __call__(self, wish: EngineWish, model: ModelFile | None, contract: ModelContract) -> Engine:
        if self._where == "build" and contract.name == self._held:
            self.arrived.set()
            assert self.go_on.wait(TIME_S)
        self.built.append(contract.name)
        return self._inner(wish, model, contract)

    def try_out(
        self,
        wish: EngineWish,  # noqa: ARG002 - the interface
        data: bytes,  # noqa: ARG002
        sidecar: bytes | None,  # noqa: ARG002
        path: Path,
        give_up: threading.Event,
    ) -> None:
        if self._where == "trial" and path.stem == self._held:
            self.arrived.set()
            if give_up.wait(TIME_S):
                raise EngineError("its trial was given up")


@pytest.fixture(params=["trial", "build"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(tmp_path, maker=HeldMaker(tmp_path, "c", request.param))
    for name, gain in (("a", 0.01), ("b", 0.02), ("c", 0.03), ("d", 0.04)):
        write_tiny(tmp_path / f"{name}.onnx", gain=gain, name=name)
    yield made
    assert isinstance(made.maker, HeldMaker)
    made.maker.go_on.set()
    assert made.pipeline.stop(10)


def test_a_rollback_goes_before_what_is_under_way_and_what_waits(bench: Bench, tmp_path: Path) -> None:
    maker = bench.maker
    assert isinstance(maker, HeldMaker)
    for name in "ab":
        bench.slot.load(tmp_path / f"{name}.onnx")
    with ThreadPoolExecutor(2) as threads:
        under_way = threads.submit(bench.slot.load, tmp_path / "c.onnx")
        assert maker.arrived.wait(TIME_S)
        waits = threads.submit(bench.slot.load, tmp_path / "d.onnx")
        while bench.slot._changes.waiting < 1:  # the second load has come
            threading.Event().wait(0.01)
        bench.slot.rollback()  # nothing lets the model go: a rollback that waited for it would not return
        assert bench.slot.live is not None
        assert bench.slot.live.contract.name == "a"
        for given_up in (under_way, waits):
            with pytest.raises(EngineError, match=r"gave way|given up"):
                given_up.result(TIME_S)
    assert maker.built == ["a", "b"]  # the engine of a was kept
    maker.go_on.set()
    assert bench.phase_of_ones() == pytest.approx(0.01, abs=1e-4)
    assert bench.slot.live.contract.name == "a"
    bench.slot.rollback()
    assert bench.phase_of_ones() == pytest.approx(0.02, abs=1e-4)


def test_a_rollback_to_nothing_disturbs_no_load(bench: Bench, tmp_path: Path) -> None:
    maker = bench.maker
    assert isinstance(maker, HeldMaker)
    with ThreadPoolExecutor(1) as threads:
        loads = threads.submit(bench.slot.load, tmp_path / "c.onnx")
        assert maker.arrived.wait(TIME_S)
        with pytest.raises(ModelError, match="no previous model"):
            bench.slot.rollback()
        assert not loads.done()
        assert bench.slot.state in (SlotState.CHECKING, SlotState.BUILDING)
        maker.go_on.set()
        if bench.slot.state is SlotState.BUILDING:
            loads.result(TIME_S)
            assert bench.slot.state is SlotState.LIVE
        else:
            bench.slot._changes.interrupt()


def test_engines_are_closed_when_neither_run_nor_kept(tmp_path: Path) -> None:
    closed: list[str] = []

    class Watched(HeldMaker):
        def __call__(self, wish: EngineWish, model: ModelFile | None, contract: ModelContract) -> Engine:
            engine = super().__call__(wish, model, contract)
            close = engine.close
            engine.close = lambda: (closed.append(contract.name), close())[1]  # type: ignore[method-assign]
            return engine

    bench = Bench(tmp_path, maker=Watched(tmp_path, "", ""))
    for name in "abc":
        write_tiny(tmp_path / f"{name}.onnx", gain=0.01, name=name)
        bench.slot.load(tmp_path / f"{name}.onnx")
    assert closed == ["a"]  # c runs, b is kept
    bench.slot.rollback()
    assert closed == ["a"]
    bench.slot.use_engine(batch=2)
    assert closed == ["a", "b"]  # b was built again for the other batch
    bench.slot.rollback()  # c was kept for batch 4: built again, too
    assert closed == ["a", "b", "c"]
    assert bench.slot.live is not None
    assert (bench.slot.live.contract.name, bench.slot.live.batch) == ("c", 2)
    assert bench.pipeline.stop(10)
    bench.slot.close()
    assert sorted(closed) == ["a", "b", "b", "c", "c"]


def order(folder: Path) -> EngineOrder:
    return EngineOrder("ONNXRuntime", 4, 4, "float32", str(folder / "cache"), 1)


def test_a_trial_builds_and_runs_the_model_elsewhere(tmp_path: Path) -> None:
    write_tiny(tmp_path / "good.onnx")
    data = (tmp_path / "good.onnx").read_bytes()
    try_model(data, None, tmp_path / "good.onnx", order(tmp_path), BOUNDS)
    marks = list((tmp_path / "cache").glob("trial-*.passed"))
    assert len(marks) == 1
    try_model(data, None, tmp_path / "good.onnx", order(tmp_path), Bounds(1, 0.001))  # passed before: no child
    write_tiny(tmp_path / "liar.onnx", lie=0.1)
    with pytest.raises(ModelError, match="golden pair"):
        try_model((tmp_path / "liar.onnx").read_bytes(), None, tmp_path / "liar.onnx", order(tmp_path), BOUNDS)
    with pytest.raises(ModelError, match="holds no model contract"):
        try_model(tiny_graph().SerializeToString(), None, tmp_path / "bare.onnx", order(tmp_path), BOUNDS)
    assert list((tmp_path / "cache").glob("trial-*.passed")) == marks


def test_a_trial_without_an_engine_checks_the_file(tmp_path: Path) -> None:
    write_tiny(tmp_path / "liar.onnx", lie=0.1)  # only an engine finds out
    alone = EngineOrder.none(str(tmp_path / "cache"))
    try_model((tmp_path / "liar.onnx").read_bytes(), None, tmp_path / "liar.onnx", alone, BOUNDS)
    with pytest.raises(ModelError, match="not an ONNX model"):
        try_model(b"no model", None, tmp_path / "no.onnx", alone, BOUNDS)


def test_a_trial_ends_at_its_limits(tmp_path: Path) -> None:
    write_tiny(tmp_path / "m.onnx")
    data = (tmp_path / "m.onnx").read_bytes()
    with pytest.raises(ModelError, match=r"its trial was not done within 0\.01 s"):
        try_model(data, None, tmp_path / "m.onnx", order(tmp_path), Bounds(2 << 30, 0.01))
    with pytest.raises(ModelError, match=r"its trial (needs|crashed|failed)"):
        try_model(data, None, tmp_path / "m.onnx", order(tmp_path), Bounds(8 << 20, 60.0))
    given_up = threading.Event()
    given_up.set()
    with pytest.raises(EngineError, match="given up"):
        try_model(data, None, tmp_path / "m.onnx", order(tmp_path), BOUNDS, given_up)


def test_the_slot_takes_nothing_whose_trial_failed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, maker=EngineMaker(tmp_path / "cache", 1, bounds=Bounds(2 << 30, 0.01)))
    write_tiny(tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="trial"):
        bench.slot.load(tmp_path / "m.onnx")
    assert bench.slot.live is None
    assert "not done within" in bench.slot.message
    assert bench.pipeline.stop(10)


def test_an_engine_that_is_never_ready_is_given_up_in_time(tmp_path: Path) -> None:
    maker = HeldMaker(tmp_path, "a", "build")
    maker.bounds = Bounds(2 << 30, 0.5)
    bench = Bench(tmp_path, wish=ORT, maker=maker)
    write_tiny(tmp_path / "a.onnx", gain=0.01, name="a")
    with pytest.raises(EngineError, match="not ready within"):
        bench.slot.load(tmp_path / "a.onnx")
    maker.go_on.set()  # it is ready too late, and does not take over
    assert bench.pipeline.stop(10)
    assert bench.slot.live is None
    assert np.isnan(bench.pipeline.snapshot().mean_counts) or bench.pipeline.snapshot().stitched == 0
