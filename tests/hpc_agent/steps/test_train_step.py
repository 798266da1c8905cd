"""Networks are trained on the corpus, stored and judged: once, whatever is killed when."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from step_helpers import RECIPE, Arguments, folder, labelled, of, stored, training, true_reconstruction
from training_scans import small_scan

from ptychostream.errors import (
    TrainingError,
)
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.training_data import Source, build_corpus
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.steps import train_step
from ptychostream.hpc_agent.steps.judge_step import judge_step
from ptychostream.hpc_agent.steps.training_state import load_state, save_state
from ptychostream.hpc_agent.training.checkpoint import load_checkpoint, save_checkpoint
from ptychostream.hpc_agent.training.networks import make_network
from ptychostream.hpc_agent.training.training import TrainingState, train
from ptychostream.model.model_file import load_model
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.slow


def test_a_network_is_trained_and_stored_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled(work)
    told: list[Arguments] = []
    result = train_step.train_step(**training(work, epochs=2), progress=told.append)
    model = ModelStore(work / "models").get(result["sha256"])
    assert [each["epoch"] for each in told] == [1, 2]
    assert told[1].keys() == {"epoch", "epochs", "train_loss", "val_loss", "corpus_pairs", "seconds"}
    assert result["corpus_pairs"] == told[0]["corpus_pairs"] == 80
    assert result["validation_loss"] == min(each["val_loss"] for each in told)
    assert model.metrics["validation_loss"] == result["validation_loss"] and model.parents == ()
    contract = load_model(model.path).contract
    assert contract.name == "0" and contract.golden is not None and contract.training.scans == ["small-0"]
    assert contract.training.ssim == result["ssim"]
    assert load_checkpoint(str(model.checkpoint))[1] == result["sha256"]
    assert sorted(path.name for path in Path(folder(work)).iterdir()) == ["reconstruction.h5", "train-0.json"]
    json.dumps(result)
    with monkeypatch.context() as patch:
        patch.setattr(train_step, "train", lambda *_, **__: pytest.fail("trained again"))
        assert train_step.train_step(**training(work, epochs=2)) == result
    again = train_step.train_step(**training(work, name="0-1"))
    assert again["sha256"] != result["sha256"]


def test_a_model_that_was_trained_but_not_stored_is_stored(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled(work)

    class Killed(BaseException):
        pass

    def killed(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(ModelStore, "add", killed)
        with pytest.raises(Killed):
            train_step.train_step(**training(work))
    assert ModelStore(work / "models").models() == []
    monkeypatch.setattr(train_step, "train", lambda *_, **__: pytest.fail("trained again"))
    result = train_step.train_step(**training(work))
    assert [model.sha256 for model in ModelStore(work / "models").models()] == [result["sha256"]]


def test_a_training_that_was_cut_off_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    corpus = build_corpus([Source(*small_scan())], (16, 16))
    options = train_step.TrainStepOptions(**{**RECIPE, "epochs": 3, "dose": {"factor": 0.5}})
    whole = train(corpus, options)

    class Killed(BaseException):
        pass

    def keep(state: TrainingState) -> None:
        save_state(tmp_path / "s", state, "task")
        if len(state.history) == 1:
            raise Killed

    with pytest.raises(Killed):
        train(corpus, options, on_state=keep)
    assert load_state(tmp_path / "s", "another task") is None
    state = load_state(tmp_path / "s", "task")
    assert state is not None and len(state.history) == 1
    resumed = train(corpus, options, state=state)
    assert [e.validation_loss for e in resumed.history] == [e.validation_loss for e in whole.history]
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name])
    assert resumed.history[1].seconds > state.history[0].seconds
    (tmp_path / "s").write_bytes((tmp_path / "s").read_bytes()[:1000])
    assert load_state(tmp_path / "s", "task") is None
    assert load_state(tmp_path / "none", "task") is None


def test_the_best_epoch_before_the_cut_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = build_corpus([Source(*small_scan())], (16, 16))
    options = train_step.TrainStepOptions(**{**RECIPE, "epochs": 2})
    states: list[TrainingState] = []
    first = train(corpus, options, on_state=states.append)
    better = replace(states[-1].history[0], validation_loss=1e-6)
    weights = {name: value * 0 for name, value in first.network.state_dict().items()}
    state = TrainingState([better], states[-1].network, weights, states[-1].optimiser)
    resumed = train(corpus, options, state=state)
    assert resumed.best == better and len(resumed.history) == 2
    assert all((value == 0).all() for value in resumed.network.state_dict().values())


def test_nothing_is_stored_of_a_loss_that_is_not_finite(work: Path) -> None:
    labelled(work)
    with h5py.File(work / "corpus" / "0.h5", "r+") as file:
        file["phase"][:] = np.nan
    with pytest.raises(TrainingError, match="not finite"):
        train_step.train_step(**training(work))
    assert ModelStore(work / "models").models() == []


def test_a_warm_start_is_taken_where_it_fits(work: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelled(work)
    sha256 = stored(work)
    start = {"warm_start": str(work / "m.pt"), "parent": sha256}
    told: dict[str, list[Arguments]] = {"warm": [], "cold": [], "other": []}
    warm = train_step.train_step(**training(work, "warm"), **start, progress=told["warm"].append)
    cold = train_step.train_step(**training(work, "cold", warm=False), **start, progress=told["cold"].append)
    assert warm["parents"] == [sha256] and cold["parents"] == []
    assert told["warm"][0]["train_loss"] < 0.9 * told["cold"][0]["train_loss"]
    save_checkpoint(work / "other.pt", make_network("ptychonn", 2), "x")
    other = train_step.train_step(
        **training(work, "other"), warm_start=str(work / "other.pt"), parent="x", progress=told["other"].append
    )
    assert other["parents"] == [] and "not started from" in caplog.text
    assert told["other"][0]["train_loss"] == told["cold"][0]["train_loss"]
    with pytest.raises(TrainingError, match="No such file"):
        train_step.train_step(**training(work, "none"), warm_start=str(work / "none.pt"))


def test_without_weights_the_stored_models_are_tried_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labelled(work)
    sha256 = stored(work)
    trial = {"bootstrap": {"epochs": 1, "margin": 0.0}}
    job = train_step.TrainJob(**training(work, **trial))
    train_step.prepare_training(job)
    from ptychostream.hpc_agent.steps import training_start

    monkeypatch.setattr(training_start, "choose_start", lambda *_, **__: pytest.fail("tried again"))
    result = train_step.train_step(**training(work, **trial))
    assert result["parents"] == [sha256] and result["bootstrap"]["start"] == sha256
    assert sha256 in result["bootstrap"]["tried"]
    assert not list(Path(folder(work)).glob("*-start*"))


def test_frames_without_counts_are_not_taken_for_others(work: Path) -> None:
    scan, _ = small_scan()
    counts = scan.counts.copy()
    counts[3] = 0
    write_scan(work / "0.h5", replace(scan, counts=counts))
    assert labelled(work)["pairs"] == 79
    seen: list[np.ndarray] = []
    real = train_step.judge_frames

    def judge(network: Any, contract: Any, source: Source, frames: np.ndarray) -> Any:
        seen.append(frames)
        return real(network, contract, source, frames)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_step, "judge_frames", judge)
        train_step.train_step(**training(work))
    aside = CorpusStore(work / "corpus").validation("0")
    np.testing.assert_array_equal(seen[0], np.delete(np.arange(80), 3)[aside])


def test_a_network_is_judged_and_its_predecessor_beside_it(work: Path) -> None:
    sha256 = stored(work)
    reconstruction = true_reconstruction(work)
    models = ModelStore(work / "models")
    arguments = {**of(work), "folder": folder(work), "reconstruction": reconstruction}
    model = {"model": str(models.get(sha256).path), "checkpoint": str(models.get(sha256).checkpoint)}
    judged = judge_step(**arguments, **model)
    assert judged["model"] == sha256 and judged["frames"] == 80 and judged["covered"] > 0.9
    assert 0.5 < judged["pearson"] < 1 and judged["ssim_1px"] > judged["ssim"] > 0.05
    assert json.loads((work / "scans/0/judged.json").read_text())["result"] == judged
    assert Path(judged["figure"]).read_bytes().startswith(b"\x89PNG")
    assert judged["previous"] is None

    labelled(work)
    fresh = train_step.train_step(**training(work))["sha256"]
    other = {"model": str(models.get(fresh).path), "checkpoint": str(models.get(fresh).checkpoint)}
    both = judge_step(**arguments, **model, previous=other)
    assert {**both, "previous": None} == judged
    assert both["previous"]["model"] == fresh and both["previous"]["pearson"] < both["pearson"]
    (work / "broken.onnx").write_bytes(b"cut")
    alone = judge_step(**arguments, **model, previous={"model": str(work / "broken.onnx"), "checkpoint": None})
    assert alone == judged
    few = judge_step(**arguments, **model, options={"frames": 20})
    assert few["frames"] == 20


def test_a_model_without_its_weights_is_judged_all_the_same(work: Path) -> None:
    sha256 = stored(work)
    arguments = {**of(work), "reconstruction": true_reconstruction(work), "model": str(work / "m.onnx")}
    save_checkpoint(work / "foreign.pt", make_network("ptychonn2", 2), "another")
    found = [
        judge_step(**arguments, folder=folder(work, name), checkpoint=weights)
        for name, weights in (("a", str(work / "m.pt")), ("b", None), ("c", str(work / "foreign.pt")))
    ]
    assert {each["model"] for each in found} == {sha256}
    assert found[1]["ssim"] == pytest.approx(found[0]["ssim"], abs=1e-4)
    assert found[2]["ssim"] == found[1]["ssim"]
