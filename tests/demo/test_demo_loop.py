"""The loop of the demonstration: its plan, its reading of the agent's journal, its record, figure and report."""

from __future__ import annotations

import json
import math
import sqlite3
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ptychostream.config import load_settings
from ptychostream.demo.agent_settings import write_agent_settings
from ptychostream.demo.journal_view import JournalView, read_journal
from ptychostream.demo.loop import LoopOutcome
from ptychostream.demo.loop_figure import images_figure, loop_figure
from ptychostream.demo.loop_place import prepare_folder
from ptychostream.demo.loop_plan import LoopPlan, Stage, stage_over
from ptychostream.demo.loop_record import LoopRecord, ScanTaken, assemble
from ptychostream.demo.processes import DemoError
from ptychostream.demo.report import Report, write_html, write_json
from ptychostream.demo.run import LOOP_PLAN, Demo
from ptychostream.errors import DropCause
from ptychostream.hpc_agent.agent_process import check_options
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy import Mode, PolicyState
from ptychostream.hpc_agent.settings import AgentSettings
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.figures import save_figure

BEGIN = 1_700_000_000.0
FIRST, SECOND = "a" * 64, "b" * 64
PLAN = LoopPlan((Stage("letters", 2, 4, "judged"), Stage("shapes", 2, 4, "suspended")))


def agent_at_work(path: Path) -> None:
    """A journal as the agent writes it: bootstrap on one scan, one within tolerance, one that retrains, then rest."""
    journal = Journal(path)

    def done(scan: str, step: str, result: object, at_s: float) -> None:
        journal.begin(scan, step, BEGIN + at_s)
        journal.finish(scan, step, result, BEGIN + at_s)

    def train(scan: str, sha256: str, pairs: int, loss: float, at_s: float) -> None:
        done(scan, "label", {"pairs": 400, "corpus_pairs": pairs, "corpus_scans": pairs // 400}, at_s)
        done(scan, "train", {"sha256": sha256, "validation_loss": loss, "seconds": 8.0, "epochs": 12}, at_s + 10)

    def judge(scan: str, model: str, ssim_1px: float, at_s: float) -> None:
        result = {"model": model, "ssim_1px": ssim_1px, "ssim": ssim_1px - 0.1, "pearson": 0.9}
        done(scan, "judge", result, at_s)

    active, resting = PolicyState(Mode.ACTIVE), PolicyState(Mode.SUSPENDED, 2)
    journal.enter("letters_0001", {"scan_id": "letters_0001"}, BEGIN + 10)
    journal.decide("letters_0001", "plan", PolicyState(), {"train": True}, "no model is live", BEGIN + 10)
    train("letters_0001", FIRST, 400, 0.2, 15)
    journal.keep_policy(active, "the first model is live", BEGIN + 27)
    journal.close_scan("letters_0001", "trained on")
    journal.enter("letters_0002", {"scan_id": "letters_0002"}, BEGIN + 35)
    judge("letters_0002", FIRST, 0.85, 40)
    journal.close_scan("letters_0002", "judged")
    journal.enter("shapes_0003", {"scan_id": "shapes_0003"}, BEGIN + 60)
    judge("shapes_0003", FIRST, 0.45, 65)
    journal.decide("shapes_0003", "verdict", active, {"train": True}, "mismatch 0.550: retrain", BEGIN + 65)
    train("shapes_0003", SECOND, 800, 0.15, 70)
    journal.want_push(SECOND)
    journal.close_scan("shapes_0003", "trained on")
    journal.keep_policy(resting, "2 scans in a row: suspend", BEGIN + 110)
    journal.close()


def taken(scan: str, at_s: float, version: str) -> ScanTaken:
    complete_s = BEGIN + at_s
    stitched = 400 if version else 0
    return ScanTaken(scan, scan[:-5], complete_s - 5, complete_s, version, 400, stitched, 400 - stitched, 0)


LIVES = [(BEGIN + 27, FIRST, "letters_0001"), (BEGIN + 84, SECOND, "shapes_0003")]


def record_of(journal: JournalView, lives: list[tuple[float, str, str]] = LIVES) -> LoopRecord:
    scans = [
        taken("letters_0001", 10, ""),
        taken("letters_0002", 35, "letters_0001"),
        taken("shapes_0003", 60, "letters_0001"),
    ]
    return assemble(
        journal,
        scans,
        lives,
        began_s=BEGIN,
        ended_s=BEGIN + 120,
        first_mode=(BEGIN + 5, "Bootstrap"),
        losses=[(BEGIN + 18 + number, 0.5 / (1 + number)) for number in range(8)],
        tolerance=[(BEGIN, 0.1), (BEGIN + 2, 0.2)],
    )


def test_the_journal_is_read_as_the_agent_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    assert read_journal(path) == JournalView()
    agent_at_work(path)
    journal = read_journal(path)
    assert [scan.key for scan in journal.scans] == ["letters_0001", "letters_0002", "shapes_0003"]
    assert [mode for _, mode, _ in journal.transitions] == ["Active", "Suspended"]
    first = journal.scan("letters_0001")
    assert first is not None
    assert first.steps["plan"].message == "no model is live"
    assert first.result("train") == {"sha256": FIRST, "validation_loss": 0.2, "seconds": 8.0, "epochs": 12}
    assert first.result("judge") is None
    assert not journal.through("shapes_0003"), "its model is not at the edge yet"
    writer = Journal(path)
    writer.pushed(SECOND)
    assert read_journal(path).through("shapes_0003"), "readable while the agent has it open"
    assert not read_journal(path).through("shapes_0004")
    writer.close()


def test_a_journal_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    journal.close()
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version=99")
    with pytest.raises(DemoError, match="version 99"):
        read_journal(path)


def test_the_record_tells_what_happened(tmp_path: Path) -> None:
    agent_at_work(tmp_path / "journal.sqlite")
    told = record_of(read_journal(tmp_path / "journal.sqlite")).to_json()
    json.dumps(told, allow_nan=False)
    assert told["model_versions"] == ["letters_0001", "shapes_0003"]
    assert told["push_seconds"] == [17.0, 24.0]
    assert [(change["state"], change["time"] - BEGIN) for change in told["policy"]] == [
        ("Bootstrap", 5.0),
        ("Active", 27.0),
        ("Suspended", 110.0),
    ]
    assert [(entry["scan"], entry["version"], entry["value"]) for entry in told["ssim"]] == [
        ("letters_0002", "letters_0001", 0.85),
        ("shapes_0003", "letters_0001", 0.45),
    ]
    assert told["corpus_pairs"] == 800
    assert [entry["reason"] for entry in told["decisions"]] == ["no model is live", "mismatch 0.550: retrain"]


def test_a_model_that_the_edge_went_back_to_is_no_push(tmp_path: Path) -> None:
    agent_at_work(tmp_path / "journal.sqlite")
    record = record_of(read_journal(tmp_path / "journal.sqlite"), [*LIVES, (BEGIN + 100, FIRST, "letters_0001")])
    told = record.to_json()
    assert told["model_versions"] == ["letters_0001", "shapes_0003", "letters_0001"]
    assert told["push_seconds"] == [17.0, 24.0]
    json.dumps(told, allow_nan=False)
    assert "back" in {text.get_text() for axes in loop_figure(record).axes for text in axes.texts}


@pytest.mark.slow
def test_figure_and_report_show_it(tmp_path: Path) -> None:
    agent_at_work(tmp_path / "journal.sqlite")
    record = record_of(read_journal(tmp_path / "journal.sqlite"))
    figure = loop_figure(record)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"0.45\nletters_0001", "sample: letters", "new sample: shapes", "Bootstrap", "24 s"} <= texts
    save_figure(figure, tmp_path / "loop.png")
    with Image.open(tmp_path / "loop.png") as image:
        assert min(image.size) > 1000
    report = Report(
        dataset="simulated-64",
        frames={"sent": 1200, "received": 1200, "stitched": 800, "dropped": {c.value: 0 for c in DropCause}},
        rate_hz=100.0,
        latency_ms={"p50": 1.0, "p95": 2.0, "p99": 3.0},
        engine="none",
        model_version="shapes_0003",
        training_frames=800,
        simulated_ratio=0.0,
        loop=record.to_json(),
    )
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for text in ("retrained: shapes_0003", "0.450 (0.350)", "2 scans in a row: suspend", "data:image/png;base64,"):
        assert text in page
    assert "Live phase of" not in page, "no scan was compared"
    json.dumps(asdict(report), allow_nan=False)


def test_figures_that_are_not_known_are_shown_as_not_known(tmp_path: Path) -> None:
    report = Report(
        dataset="scan 247",
        frames={"sent": 10, "received": 10, "stitched": 10, "dropped": {c.value: 0 for c in DropCause}},
        rate_hz=math.nan,
        latency_ms={"p50": math.nan, "p95": math.nan, "p99": math.nan},
        engine="none",
        model_version="m",
        training_frames=1,
        simulated_ratio=0.0,
        ssim_heldout=0.5,
        ssim_heldout_1px=math.nan,
    )
    write_json(report, tmp_path / "report.json")
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    assert (found["rate_hz"], found["latency_ms"]["p50"], found["r_factor"]) == (None, None, None)
    write_html(report, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("not known") == 7, "rate, three latencies, R, Pearson, SSIM at one pixel"
    assert "nan" not in page.replace("resonance", "")


def test_an_empty_loop_still_has_a_figure() -> None:
    loop_figure(LoopRecord(BEGIN, BEGIN + 1))


def test_live_images_stand_above_their_reconstructions() -> None:
    random = np.random.default_rng(0)
    phase = np.cumsum(random.normal(0, 0.1, (40, 40)), axis=1).astype(np.float32)
    image = PhaseImage(phase, np.ones((40, 40), np.float32), (0.0, 0.0), 20e-9)
    figure = images_figure([("first", image, image), ("second", image, None)])
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 0]


def test_a_stage_ends_when_its_purpose_is_reached() -> None:
    letters, shapes = PLAN.stages
    assert not stage_over(letters, 1, within=True, suspended=False), "not before its least"
    assert stage_over(letters, 2, within=True, suspended=False)
    assert not stage_over(letters, 2, within=False, suspended=False)
    assert stage_over(letters, 4, within=False, suspended=False), "nor after its most"
    assert not stage_over(shapes, 2, within=True, suspended=False)
    assert stage_over(shapes, 2, within=True, suspended=True)
    assert not stage_over(shapes, 2, within=False, suspended=True), "a scan that was passed over shows nothing"


@pytest.mark.slow
def test_the_agents_settings_are_what_the_agent_takes(tmp_path: Path) -> None:
    path = tmp_path / "agent.toml"
    write_agent_settings(path, PLAN, 'b"l:', tmp_path / "canvases", cores=2)
    settings = load_settings(AgentSettings, path, {})
    check_options(settings)
    assert settings.watch.complete_pv == 'b"l:Complete_RBV'
    assert settings.steps.train["time_limit_s"] == PLAN.training_limit_s
    assert settings.runner.nice == 10
    assert settings.steps.canvases == tmp_path / "canvases"


def test_only_a_folder_of_its_own_is_emptied(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "new")
    (tmp_path / "new" / "agent.toml").write_text("")
    (tmp_path / "new" / "old").write_text("")
    prepare_folder(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
    (tmp_path / "new" / "thesis.txt").write_text("")
    with pytest.raises(DemoError, match="not of the demonstration"):
        prepare_folder(tmp_path / "new")
    assert (tmp_path / "new" / "thesis.txt").exists()


def test_quick_is_the_loop_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent_at_work(tmp_path / "journal.sqlite")
    journal = read_journal(tmp_path / "journal.sqlite")
    counts = {f"Dropped{cause.value}_RBV": 0 for cause in DropCause}
    counts |= {f"Frames{name}_RBV": 0 for name in ("Received", "Stitched", "Pending", "Missed")}
    figures = {"engine": "none", "model_version": "", "latency_ms": {}, "rate_hz": 0.0, "counts": counts}
    outcome = LoopOutcome(record_of(journal), journal, {}, figures, stopped=False)
    plans: list[LoopPlan] = []

    def show(plan: LoopPlan, *_: object) -> tuple[LoopOutcome, float]:
        plans.append(plan)
        return outcome, 1.0

    monkeypatch.setattr("ptychostream.demo.run.show_loop", show)
    monkeypatch.setattr(Demo, "_one_scan", lambda _: pytest.fail("the real scan is not part of it"))
    Demo(tmp_path / "out", quick=True).run()
    assert plans == [LOOP_PLAN] and not plans[0].endless
    told = json.loads((tmp_path / "out" / "report.json").read_text())["loop"]
    assert {"model_versions", "policy", "ssim", "corpus_pairs"} <= told.keys()
    assert {"time", "state", "reason"} <= told["policy"][0].keys()
    assert {"scan", "version", "value"} <= told["ssim"][0].keys()
