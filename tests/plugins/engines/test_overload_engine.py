"""An engine that takes several batches at once gives every frame, bit for bit, what it gives it in one batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from engine_models import counts_of, make_model

from ptychostream.errors import EngineError
from ptychostream.ioc.model.engine_maker import EngineMaker
from ptychostream.ioc.model.model_slot import EngineWish
from ptychostream.model.model_file import ModelFile
from ptychostream.plugins.engines import create_engine
from ptychostream.plugins.engines.base import BatchedEngine

BATCH = 4


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelFile:
    return make_model(tmp_path_factory.mktemp("model"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["OpenVINO", "ONNXRuntime", "Torch"])
def test_a_frame_is_the_same_in_a_call_of_any_size(model: ModelFile, name: str) -> None:
    frames = counts_of(4 * BATCH)
    small = create_engine(name, model, batch=BATCH, threads=1)
    large = create_engine(name, model, batch=4 * BATCH, chunk=BATCH, threads=1)
    try:
        assert large.batch == 4 * BATCH
        single = np.concatenate([small.infer(frames[i : i + BATCH]).copy() for i in range(0, 4 * BATCH, BATCH)])
        for count in (1, BATCH, BATCH + 1, 3 * BATCH, 4 * BATCH):
            np.testing.assert_array_equal(large.infer(frames[:count]), single[:count])
        np.testing.assert_array_equal(large.infer(frames[::-1]), single[::-1])
        with pytest.raises(EngineError, match="at most 16"):
            large.infer(counts_of(4 * BATCH + 1))
    finally:
        small.close()
        large.close()


def test_a_part_of_a_call_runs_only_its_chunks(model: ModelFile) -> None:
    engine = create_engine("ONNXRuntime", model, batch=4 * BATCH, chunk=BATCH, threads=1)
    assert isinstance(engine, BatchedEngine)
    runs: list[int] = []
    run = engine._run
    engine._run = lambda count: (runs.append(count), run(count))  # type: ignore[method-assign, assignment, func-returns-value]
    for count in (1, BATCH, BATCH + 1, 4 * BATCH):
        engine.infer(counts_of(count))
    assert runs == [1, 1, 2, 4]
    engine.close()


def test_the_ioc_builds_engines_for_a_backlog(model: ModelFile, tmp_path: Path) -> None:
    maker = EngineMaker(tmp_path, 1)
    engine = maker(EngineWish("ONNXRuntime", "float32", BATCH, backlog_batches=3), model, model.contract)
    assert engine.batch == 3 * BATCH
    engine.close()


def test_a_chunk_of_nothing_is_refused(model: ModelFile) -> None:
    with pytest.raises(EngineError, match="chunk 0"):
        create_engine("ONNXRuntime", model, batch=4, chunk=0)
