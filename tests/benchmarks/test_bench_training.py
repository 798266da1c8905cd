"""`bench training`: what it says is measured, on corpora small enough for a test."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ptychostream.benchmarks.training import PlainLoop
from ptychostream.benchmarks.training_memory import synthetic_corpus, write_corpus
from ptychostream.cli.main import main
from ptychostream.errors import ConfigError
from ptychostream.hpc_agent.training.training import TrainingOptions, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Such small networks gain nothing by more, and on a busy machine they wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_speed_and_waiting_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--sizes", "16,32", "--batch", "4", "--steps", "3", "--rounds", "2", "--folder", str(tmp_path), "--json"]
    assert main(["bench", "training", *words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["size"] for row in report["speed"]] == [16, 32]
    for row in report["speed"]:
        assert row["pairs"] == 12 and len(row["turns"]) == 2
        assert row["plain"] > 0 and row["train"] > 0 and 0 <= row["waiting"] <= 1
        ratios = sorted(turn["train"] / turn["plain"] for turn in row["turns"])
        assert ratios[0] <= row["ratio"] <= ratios[-1]
        assert row["reached"] == (row["ratio"] >= 2 and row["waiting"] <= 0.1)
    assert list(tmp_path.iterdir()) == []


def test_memory_is_that_of_a_process_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--pairs", "1100", "--shape", "32x16", "--seconds", "2", "--folder", str(tmp_path), "--json"]
    assert main(["bench", "training", *words]) == 0
    memory = json.loads(capsys.readouterr().out)["memory"]
    assert memory["pairs"] == 1100 and memory["shape"] == [32, 16]
    assert 1100 * 32 * 16 * 6 < memory["corpus_bytes"] < 2 * 1100 * 32 * 16 * 6
    assert 50e6 < memory["before_training_bytes"] < memory["peak_bytes"] < 4 * 2**30
    assert memory["reached"] is True and memory["pairs_per_s"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["--pairs", "1000000000"], "are free"),
        (["--pairs", "10", "--shape", "128"], "--shape 128"),
        (["--sizes", "20"], "multiples of 16"),
        (["--rounds", "0"], "1 or more"),
    ],
)
def test_what_cannot_be_measured_is_said(
    words: list[str], why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "training", "--folder", str(tmp_path), *words]) == 2
    assert why in capsys.readouterr().err


def test_the_plain_loop_learns_what_training_learns() -> None:
    """It is no straw man: the same network and loss, one epoch of the same pairs."""
    corpus = synthetic_corpus(96, (16, 16))
    torch.manual_seed(0)
    plain = PlainLoop(corpus, "ptychonn2", 8, torch.device("cpu"))

    def loss() -> float:
        plain.network.eval()
        with torch.no_grad():
            phase = plain.network(torch.from_numpy(corpus.counts.astype(np.float32))[:, None])["phase"]
        plain.network.train()
        weight = torch.from_numpy(corpus.weights[0])
        difference = (phase[:, 0] - torch.from_numpy(corpus.phase)).abs()
        return float((weight * difference).sum() / (weight.sum() * len(corpus)))

    before = loss()
    for _ in range(4):
        assert plain.rate(96) > 0
    ours = train(
        dataclasses.replace(corpus, validation=np.arange(96) >= 88),
        TrainingOptions(batch=8, epochs=4, schedule="onecycle", precision="float32", device="cpu"),
    )
    assert loss() < 0.97 * before
    assert math.isclose(loss(), ours.best.training_loss, rel_tol=0.3)


def test_the_corpus_has_every_pair(tmp_path: Path) -> None:
    told: list[int] = []
    store = write_corpus(tmp_path, 2100, (16, 16), told.append)
    assert told == [1000, 2000, 2100] and len(store) == 2100
    with pytest.raises(ConfigError, match="GB"):
        write_corpus(tmp_path, 10**9, (128, 128), told.append)
