"""The agent's heavy steps on small real scans: done once however often begun, and honest about what cannot be done."""

from __future__ import annotations

import json
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from step_helpers import RECIPE, Arguments, folder, labelled, of, reconstructed, training
from still_edge import StillEdge
from training_scans import small_scan

from ptychostream.errors import (
    ConfigError,
    ReconstructionError,
)
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.disk_room import DiskRoom
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy import ModelPushed, PolicySettings
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.scan_work import ScanWork
from ptychostream.hpc_agent.scans.collect import CollectSettings, ScanEvent, collect
from ptychostream.hpc_agent.steps import command as steps_command
from ptychostream.hpc_agent.steps import reconstruct_step, train_step
from ptychostream.hpc_agent.steps.label_step import label_step
from ptychostream.hpc_agent.work_settings import WorkSettings
from ptychostream.scans.phase_file import write_phase_image
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.slow

# reconstruct


def test_a_reconstruction_is_written_once(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Arguments] = []
    first = reconstructed(work, progress=told.append)
    assert not first["diverged"] and first["warm_start"] == [] and first["iterations"] == 10
    assert read_reconstruction(first["reconstruction"]).r_factor == first["r_factor"] < 0.03
    assert Path(first["picture"]).read_bytes().startswith(b"\x89PNG")
    assert [each["iteration"] for each in told] == list(range(1, 11))
    json.dumps(first)
    runs: list[int] = []
    real = reconstruct_step.reconstruct
    monkeypatch.setattr(
        reconstruct_step, "reconstruct", lambda *args, **words: (runs.append(1), real(*args, **words))[1]
    )
    assert reconstructed(work) == first and not runs
    Path(first["picture"]).unlink()
    assert reconstructed(work) == first and Path(first["picture"]).exists() and not runs
    before = Path(first["picture"]).read_bytes()
    assert reconstructed(work, options={"iterations": 3})["iterations"] == 3
    assert len(runs) == 1 and Path(first["picture"]).read_bytes() != before
    Path(first["reconstruction"]).write_bytes(b"cut")
    assert reconstructed(work)["r_factor"] == first["r_factor"]
    write_scan(work / "0.h5", small_scan(seed=1)[0])
    assert reconstructed(work)["r_factor"] != first["r_factor"]
    assert len(runs) == 3


def test_a_scan_that_diverges_is_told_and_leaves_nothing_to_learn_from(work: Path) -> None:
    made = reconstructed(work, options={"iterations": 10, "object_step": 20.0})
    assert made["diverged"] and "diverged: R" in made["reason"] and made["reconstruction"] is None
    assert not (work / "scans" / "0" / "reconstruction.h5").exists()
    judged = reconstructed(work, options={"iterations": 10, "limits": {"contrast": 10.0}})
    assert judged["diverged"] and "flat" in judged["reason"]
    assert Path(judged["reconstruction"]).name == "diverged.h5" and Path(judged["picture"]).exists()
    assert not (work / "scans" / "0" / "reconstruction.h5").exists()
    json.dumps([made, judged])


def starts(work: Path) -> dict[str, str | None]:
    """A perfect canvas, and the reconstruction of another scan."""
    write_phase_image(work / "canvas.h5", small_scan()[1].phase_image())
    write_scan(work / "1.h5", small_scan(seed=1)[0])
    return {"canvas": str(work / "canvas.h5"), "reconstruction": reconstructed(work, "1")["reconstruction"]}


def test_a_start_is_taken(work: Path) -> None:
    options = {"iterations": 10, "warm_iterations": 4}
    cold = reconstructed(work, options=options)
    initial = starts(work)
    assert reconstructed(work, options=options, initial=initial) == cold  # what is finished stays
    Path(cold["reconstruction"]).unlink()
    warm = reconstructed(work, options=options, initial=initial)
    assert warm["warm_start"] == ["canvas", "probe"] and warm["iterations"] == 4
    assert warm["r_factor"] < cold["r_factor"]


def test_a_start_that_cannot_be_used_is_left_out(work: Path) -> None:
    initial = starts(work)
    last = read_reconstruction(str(initial["reconstruction"]))
    for probe in (last.probe[:, :16, :16], last.probe * np.nan, last.probe * 0):
        write_reconstruction(work / "other.h5", replace(last, probe=probe.astype(np.complex64)))
        made = reconstructed(work, initial={"canvas": str(work / "none.h5"), "reconstruction": str(work / "other.h5")})
        assert made["warm_start"] == [] and not made["diverged"]
        Path(made["reconstruction"]).unlink()
    write_reconstruction(work / "other.h5", replace(last, pixel_m=1.1 * last.pixel_m))
    made = reconstructed(work, initial={"canvas": str(work / "other.h5"), "reconstruction": str(work / "other.h5")})
    assert made["warm_start"] == []


def test_a_start_that_leads_astray_is_given_up(work: Path) -> None:
    random = np.random.default_rng(0)
    last = small_scan()[1]
    noise = (random.normal(size=last.probe.shape) + 1j * random.normal(size=last.probe.shape)).astype(np.complex64)
    write_reconstruction(work / "noise.h5", replace(last, probe=noise))
    options = {"iterations": 3, "limits": {"r_factor": 0.04}}
    made = reconstructed(work, options=options, initial={"canvas": None, "reconstruction": str(work / "noise.h5")})
    assert not made["diverged"] and made["warm_start"] == []
    strict = {"iterations": 3, "limits": {"r_factor": 0.001}}
    assert reconstructed(work, options=strict)["diverged"]


def test_pixels_that_the_file_does_not_name_are_drawn(work: Path) -> None:
    picture = Path(folder(work)) / "mask.png"
    reconstructed(work)
    assert not picture.exists()
    scan = small_scan()[0]
    counts = scan.counts.copy()
    counts[:, 4, 4:6] = 50_000
    path = of(work)["scan"]
    write_scan(path, replace(scan, counts=counts))
    reconstructed(work)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert read_reconstruction(Path(folder(work)) / "reconstruction.h5").provenance["pixels"]["mark_pixels"] == 2


def test_options_that_are_wrong_are_named(work: Path) -> None:
    with pytest.raises(ConfigError, match=r"options of the step reconstruct: limits\.rise = 0"):
        reconstructed(work, options={"limits": {"rise": 0}})
    with pytest.raises(ConfigError, match="known are batch"):
        train_step.train_step(**training(work, epoch=3))


def test_scan_options_come_as_json_has_them(work: Path) -> None:
    axes = {"unit": "m", "swap_xy": True, "sign_x": 1, "sign_y": -1}
    arguments = json.loads(json.dumps({**of(work), "scan_options": {"axes": axes, "energy_ev": 9000.0}}))
    made = reconstruct_step.reconstruct_step(**arguments, folder=folder(work), options={"iterations": 1})
    found = read_reconstruction(made["reconstruction"])
    positions = small_scan()[0].positions_m
    np.testing.assert_allclose(found.positions_m[:, 0], positions[:, 1])
    np.testing.assert_allclose(found.positions_m[:, 1], -positions[:, 0])
    assert found.pixel_m == pytest.approx(small_scan()[1].pixel_m * 10_000 / 9000)


# label


def test_a_scan_is_labelled_once(work: Path) -> None:
    first = labelled(work, simulated=0.5)
    assert first == {"pairs": 120, "validation": 8, "left_out": 0, "corpus_pairs": 120, "corpus_scans": 1}
    before = {path.name: path.read_bytes() for path in (work / "corpus").iterdir()}
    assert labelled(work, simulated=0.5) == first
    assert {path.name: path.read_bytes() for path in (work / "corpus").iterdir()} == before
    write_scan(work / "1.h5", small_scan(seed=1)[0])
    assert labelled(work, "1") == {"pairs": 80, "validation": 8, "left_out": 0, "corpus_pairs": 200, "corpus_scans": 2}
    shard = CorpusStore(work / "corpus").shards()[1]
    assert shard.provenance["scan"] == str(work / "1.h5") and shard.provenance["r_factor"] == 0.01


def test_what_came_to_nothing_never_reaches_the_corpus(work: Path) -> None:
    labelled(work)
    write_scan(work / "1.h5", small_scan(seed=1)[0])
    bad = work / "bad.h5"
    write_reconstruction(bad, replace(small_scan(seed=1)[1], errors=np.array([0.1, 0.02, 0.2, 0.3, 0.4])))
    with pytest.raises(ReconstructionError, match="rose again"):
        label_step(**of(work, "1"), reconstruction=str(bad), corpus=str(work / "corpus"), options={})
    assert [shard.key for shard in CorpusStore(work / "corpus").shards()] == ["0"]


def test_patches_are_as_large_as_the_corpus_has_them(work: Path) -> None:
    """However the probe of the next scan came out."""
    labelled(work)
    assert CorpusStore(work / "corpus").shards()[0].output_shape == (16, 16)
    write_scan(work / "1.h5", small_scan(seed=1)[0])
    path = work / "wide.h5"
    truth = small_scan(seed=1)[1]
    write_reconstruction(path, replace(truth, errors=np.array([0.01]), probe=np.ones_like(truth.probe)))
    label_step(**of(work, "1"), reconstruction=str(path), corpus=str(work / "corpus"), options={})
    label_step(**of(work, "1"), reconstruction=str(path), corpus=str(work / "other"), options={})
    assert CorpusStore(work / "corpus").shards()[1].output_shape == (16, 16)
    assert CorpusStore(work / "other").shards()[0].output_shape == (32, 32)


# as the agent calls them


class _Inline:
    """Runs the real steps here, on what JSON leaves of their arguments."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []

    def submit(self, step: str, arguments: Arguments, on_progress: Any = None) -> Future[Arguments]:
        told = {} if on_progress is None else {"progress": on_progress}
        ended: Future[Arguments] = Future()
        ended.set_result(
            json.loads(json.dumps(steps_command.step_function(step)(**json.loads(json.dumps(arguments)), **told)))
        )
        self.done.append((arguments["key"], step))
        return ended


def test_the_agent_s_arguments_are_those_of_the_steps(work: Path) -> None:
    write_scan(work / "1.h5", small_scan(seed=1)[0])
    runner, journal, models = _Inline(), Journal(work / "journal.sqlite"), ModelStore(work / "models")
    live: list[str] = []
    edge = StillEdge()
    told: list[Arguments] = []
    keeper = PolicyKeeper(journal, PolicySettings, lambda _: None)
    scan_work = ScanWork(
        journal,
        runner,
        models,
        WorkSettings(work, reconstruct={"iterations": 5}, train={**RECIPE, "epochs": 1}, judge={"device": "cpu"}),
        collect=lambda event: collect(event, CollectSettings(quiet_s=0)),
        edge=edge,
        policy=keeper,
        room=DiskRoom(work),
        report=lambda _: None,
        on_progress=told.append,
    )
    for number in "01":
        journal.enter(number, vars(ScanEvent(small_scan(seed=int(number))[0].scan_id, str(work / f"{number}.h5"))), 0.0)
        outcome = scan_work.work(journal.open_scans()[0], threading.Event())
        assert "model" in outcome, outcome
        live.append(journal.waiting_push)
        journal.pushed(live[-1])
        edge.live = live[-1]
        keeper.tell(ModelPushed())
    assert runner.done == [
        *(("0", step) for step in ("reconstruct", "label", "train")),
        *(("1", step) for step in ("reconstruct", "judge", "label", "train")),
    ]
    assert models.get(live[1]).parents == (live[0],)
    assert journal.steps("1")["reconstruct"].result["warm_start"] == ["probe"]
    assert journal.steps("1")["judge"].result["model"] == live[0]
    assert [each["epoch"] for each in told] == [1, 1]
