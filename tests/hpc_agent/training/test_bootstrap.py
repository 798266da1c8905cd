"""Where training starts from: the best stored model that fits, if it is ahead of a fresh network."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_scans import small_scan

from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.training_data import Corpus, Source, build_corpus, measure_normalisation
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.training.bootstrap import SCRATCH, BootstrapOptions, choose_start, decide, fits, mean_counts
from ptychostream.hpc_agent.training.checkpoint import save_checkpoint
from ptychostream.hpc_agent.training.export import export
from ptychostream.hpc_agent.training.networks import Network, make_network
from ptychostream.hpc_agent.training.training import TrainingOptions, train, validation_loss
from ptychostream.model.contract import ModelContract

pytestmark = pytest.mark.slow

OPTIONS = TrainingOptions(batch=20, precision="float32", device="cpu")
TRIAL = BootstrapOptions(epochs=1, pairs=80)
ENERGY = 10_000.0


@cache
def pairs(seeds: Sequence[int]) -> Corpus:
    return build_corpus([Source(*small_scan(seed=seed)) for seed in seeds], (16, 16))


@cache
def trained() -> Network:
    """What other samples of the same beamline have taught."""
    return train(pairs((0, 1)), OPTIONS.model_copy(update={"epochs": 8})).network


@cache
def ignorant() -> Network:
    """Of the right kind, and taught nothing; its weights are far from small."""
    network = make_network("ptychonn2", 2, measure_normalisation(pairs((0,)).sample(80)))
    for parameter in network.parameters():
        parameter.data.mul_(4)
    return network.eval()


def contract(corpus: Corpus, name: str = "net", **changes: object) -> ModelContract:
    found = ModelContract(
        name=name,
        network="ptychonn2",
        input_shape=corpus.input_shape,
        output_shape=corpus.output_shape,
        object_pixel_m=corpus.pixel_m,
        energy_ev=ENERGY,
        mean_counts=mean_counts(corpus),
    )
    return found.model_copy(update=changes)


def add(store: ModelStore, folder: Path, network: Network, name: str, own: bool = True, **changes: object) -> str:
    """Put a network into the store; its checkpoint names another model where it is not its `own`."""
    onnx, checkpoint = folder / f"{name}.onnx", folder / f"{name}.pt"
    corpus = pairs((0, 1))
    sha256 = export(network, contract(corpus, name, **changes), corpus.counts[:2].astype(np.float32), onnx)
    save_checkpoint(checkpoint, network, sha256 if own else "0" * 64)
    return store.add(onnx, checkpoint)


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def test_training_starts_from_a_model_that_knows_something(store: ModelStore, tmp_path: Path) -> None:
    new = pairs((5,))
    bad = add(store, tmp_path, ignorant(), "ignorant")
    good = add(store, tmp_path, trained(), "trained")
    told: list[str] = []
    start = choose_start(new, store, OPTIONS, TRIAL, energy_ev=ENERGY, on_step=told.append)
    assert start.sha256 == good and start.parents == [good]
    assert start.checkpoint == store.get(good).checkpoint
    assert start.as_stored[good] < start.as_stored[bad]
    assert set(start.tried) == {good, SCRATCH}  # the best alone is trained
    assert start.tried[good] <= (1 - TRIAL.margin) * start.tried[SCRATCH]
    assert good[:12] in start.reason and any("ignorant" in text for text in told)
    # and what it gives is what training takes
    assert start.network is not None
    first = train(new, OPTIONS.model_copy(update={"epochs": 1}), initial=start.network).history[0]
    assert first.validation_loss < start.tried[SCRATCH]
    metrics = json.loads(json.dumps(start.metrics()))
    assert metrics["start"] == good and set(metrics["as_stored"]) == {good, bad}


def test_training_starts_afresh_where_the_stored_model_is_no_better(store: ModelStore, tmp_path: Path) -> None:
    bad = add(store, tmp_path, ignorant(), "ignorant")
    start = choose_start(pairs((5,)), store, OPTIONS, TRIAL)
    assert (start.sha256, start.checkpoint, start.network, start.parents) == ("", None, None, [])
    assert set(start.as_stored) == {bad} and set(start.tried) == {bad, SCRATCH}
    assert start.reason.startswith("from scratch: ")


def test_models_of_other_optics_are_not_tried(store: ModelStore, tmp_path: Path) -> None:
    corpus = pairs((5,))
    add(store, tmp_path, trained(), "energy", energy_ev=2 * ENERGY)
    add(store, tmp_path, trained(), "pixel", object_pixel_m=2 * corpus.pixel_m)
    start = choose_start(corpus, store, OPTIONS, TRIAL, energy_ev=ENERGY)
    assert start.as_stored == {} and "no stored model fits" in start.reason
    assert choose_start(corpus, ModelStore(tmp_path / "none"), OPTIONS).reason == start.reason


def test_what_cannot_be_read_is_passed_over(store: ModelStore, tmp_path: Path) -> None:
    foreign = add(store, tmp_path, trained(), "foreign", own=False)
    torn = add(store, tmp_path, trained(), "torn")
    (store.root / torn / "model.pt").write_bytes(b"torn")
    add_without = tmp_path / "bare.onnx"
    export(trained(), contract(pairs((0, 1)), "bare"), pairs((0,)).counts[:2].astype(np.float32), add_without)
    store.add(add_without)
    start = choose_start(pairs((5,)), store, OPTIONS, TRIAL)
    assert start.sha256 == "" and list(start.as_stored) == [foreign] and math.isnan(start.as_stored[foreign])
    assert start.metrics()["as_stored"] == {foreign: None}


def test_a_model_that_was_rolled_back_is_passed_over_unless_it_is_pinned(store: ModelStore, tmp_path: Path) -> None:
    name = add(store, tmp_path, trained(), "trained")
    few = TRIAL.model_copy(update={"pairs": 20})
    assert set(choose_start(pairs((5,)), store, OPTIONS, few).as_stored) == {name}
    store.mark_rolled_back(name, "worse")
    assert choose_start(pairs((5,)), store, OPTIONS, few).as_stored == {}
    store.pin(name)
    assert set(choose_start(pairs((5,)), store, OPTIONS, few).as_stored) == {name}


def test_the_newest_are_tried_where_there_are_many(store: ModelStore, tmp_path: Path) -> None:
    names = [add(store, tmp_path, trained(), f"net{number}") for number in range(3)]
    few = TRIAL.model_copy(update={"candidates": 2, "pairs": 20})
    assert set(choose_start(pairs((5,)), store, OPTIONS, few).as_stored) == set(names[1:])
    none = TRIAL.model_copy(update={"candidates": 0})
    assert choose_start(pairs((5,)), store, OPTIONS, none).as_stored == {}


def test_a_model_is_tried_at_the_dose_it_was_trained_for(store: ModelStore, tmp_path: Path) -> None:
    """Counts that are ten times as many say the same to a network whose scale is set by them."""
    name = add(store, tmp_path, trained(), "trained")
    corpus = pairs((5,))
    brighter = dataclasses.replace(corpus, counts=corpus.counts.astype(np.float32) * 10)
    small = BootstrapOptions(epochs=1, pairs=20, margin=0)
    one, ten = (choose_start(c, store, OPTIONS, small) for c in (corpus, brighter))
    assert ten.as_stored[name] == pytest.approx(one.as_stored[name], rel=1e-3)
    assert one.network is not None and ten.network is not None
    assert ten.network.normalisation[0] == pytest.approx(one.network.normalisation[0].item() / 10, rel=1e-3)


def test_pairs_set_aside_are_what_it_is_judged_by(store: ModelStore, tmp_path: Path) -> None:
    """The corpus from the disk, its own validation pairs, and a part of it alone."""
    name = add(store, tmp_path, trained(), "trained")
    stored = CorpusStore(tmp_path / "corpus")
    stored.append("scan 0", pairs((0,)))  # which the model knows: it is ahead whatever the processor rounds
    with stored.opened() as (opened, aside, _):
        corpus = dataclasses.replace(opened, validation=aside)
        slow = OPTIONS.model_copy(update={"learning_rate": 1e-5})  # scratch learns nothing
        start = choose_start(corpus, store, slow, BootstrapOptions(epochs=1, margin=0))
        assert start.network is not None
        assert start.as_stored[name] == pytest.approx(validation_loss(start.network, corpus, OPTIONS), rel=1e-6)
        small = choose_start(corpus, store, slow, BootstrapOptions(epochs=1, pairs=20))
    assert math.isfinite(small.tried[SCRATCH]) and small.tried[SCRATCH] != start.tried[SCRATCH]


def test_a_trial_that_fails_is_no_reason_to_fail(store: ModelStore, tmp_path: Path) -> None:
    add(store, tmp_path, trained(), "trained")
    wild = OPTIONS.model_copy(update={"learning_rate": 1e30})
    start = choose_start(pairs((5,)), store, wild, TRIAL)
    assert start.sha256 == "" and start.metrics()["tried"][SCRATCH] is None


def test_however_short_the_time_both_are_tried(store: ModelStore, tmp_path: Path) -> None:
    name = add(store, tmp_path, trained(), "trained")
    start = choose_start(pairs((5,)), store, OPTIONS, TRIAL.model_copy(update={"time_limit_s": 1e-9}))
    assert math.isfinite(start.tried[name]) and math.isfinite(start.tried[SCRATCH])


losses = st.one_of(st.floats(0.001, 10), st.just(math.nan), st.just(math.inf))


@given(stored=st.dictionaries(st.sampled_from(["a" * 64, "b" * 64, "c" * 64]), losses), scratch=losses)
def test_the_decision(stored: dict[str, float], scratch: float) -> None:
    margin = 0.1
    name, reason = decide({**stored, SCRATCH: scratch}, margin)
    sound = {key: loss for key, loss in stored.items() if math.isfinite(loss)}
    if name:
        assert stored[name] == min(sound.values())
        assert not math.isfinite(scratch) or stored[name] <= (1 - margin) * scratch
        assert name[:12] in reason
    else:
        assert reason.startswith("from scratch")
        assert not sound or min(sound.values()) > (1 - margin) * scratch


def test_the_margin() -> None:
    assert decide({"a": 0.91, SCRATCH: 1.0}, 0.1)[0] == ""
    assert decide({"a": 0.89, SCRATCH: 1.0}, 0.1)[0] == "a"
    assert decide({"a": 0.99, SCRATCH: 1.0}, 0.0)[0] == "a"
    assert decide({SCRATCH: 1.0}, 0.1)[0] == "" == decide({}, 0.1)[0]


@pytest.mark.parametrize(
    ("changes", "energy_ev", "wanted"),
    [
        ({}, ENERGY, True),
        ({}, None, True),
        ({"energy_ev": None}, ENERGY, True),
        ({}, 1.04 * ENERGY, True),
        ({}, 1.06 * ENERGY, False),
        ({"network": "ptychonn"}, ENERGY, False),
        ({"input_shape": (64, 64)}, ENERGY, False),
        ({"output_shape": (32, 32)}, ENERGY, False),
    ],
)
def test_what_fits(changes: dict[str, object], energy_ev: float | None, wanted: bool) -> None:
    corpus = pairs((5,))
    assert fits(contract(corpus, **changes), corpus, "ptychonn2", energy_ev, BootstrapOptions()) is wanted


@pytest.mark.parametrize(("factor", "wanted"), [(1.04, True), (0.97, True), (1.06, False), (0.9, False)])
def test_which_pixel_fits(factor: float, wanted: bool) -> None:
    corpus = pairs((5,))
    made = contract(corpus, object_pixel_m=factor * corpus.pixel_m)
    assert fits(made, corpus, "ptychonn2", ENERGY, BootstrapOptions()) is wanted
