"""Every fault, done for real to real processes: a detector, a network, an IOC with ONNX Runtime, CA and PVA clients.

One set of processes suffers them all, one after the other: each must be over when the next begins.
"""

from __future__ import annotations

import random
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from epics_env import EpicsEnv, wait_until
from fault_tools import pva_client, small_disk

from ptychostream.benchmarks.soak.soak_clock import compiler
from ptychostream.benchmarks.soak.soak_faults import FAULTS, Fault, fault
from ptychostream.benchmarks.soak.soak_rounds import Round, play, steady
from ptychostream.benchmarks.soak.soak_source import scan_name
from ptychostream.benchmarks.soak.soak_stage import PREFIX, Stage
from ptychostream.plugins.flow.batcher import frames_at_once
from ptychostream.plugins.pipeline_settings import PipelineSettings

pytestmark = pytest.mark.server

PATIENCE_S = 60.0
HOLD_S = {"network stalled": 1.5, "network cut": 1.5, "client frozen": 1.5, "disk full": 3.0}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("faults")) as made:
        steady(made)
        yield made


def suffer(stage: Stage, one: Fault | None) -> Round:
    """A round with the fault; recovered, however slowly, and every frame accounted for."""
    hold_s = HOLD_S.get(one.name, 1.2) if one else None
    done = play(
        stage, one, random.Random(7), hold_s=hold_s, margin_s=0.7, recovery_limit_s=PATIENCE_S, patience_s=PATIENCE_S
    )
    assert done.violations == []
    now = stage.figures()
    assert now.received == now.stitched + sum(now.dropped.values())
    assert now.pending == now.error == 0
    assert done.sent == done.received - done.duplicates + done.missed + done.unseen
    return done


@contextmanager
def one_scan(stage: Stage) -> Iterator[int]:
    """The detector sends a scan; it ends with the block, whatever happens there, so that the next test has its own."""
    scan = stage.begin_scan()
    try:
        yield scan
    finally:
        stage.end_scan()


def test_a_scan_in_peace_is_stitched_to_its_last_frame(stage: Stage) -> None:
    done = suffer(stage, None)
    assert done.sent == done.received == done.stitched > 100
    assert (done.missed, done.unseen, done.duplicates) == (0, 0, 0)
    assert stage.ioc.memory("VmLck") == 0  # EPICS base locks the whole of a privileged user's process


def test_detector_killed_and_restarted_in_another_scan(stage: Stage) -> None:
    scan = stage.journal.allowed + 1
    done = suffer(stage, fault("detector killed"))
    assert stage.scan == scan + 1  # the killed one's, and the new one's
    assert stage.value("ScanID_RBV") == scan_name(stage.scan)
    # what came was stitched, to the new detector's last frame; what it sent before it was found again, and what was
    # on its way from the killed one, no gap in the ids can tell of
    assert done.stitched == done.received - done.duplicates
    assert stage.value("UniqueId_RBV") == stage.journal.sent(stage.scan) - 1
    assert done.missed == 0
    assert suffer(stage, None).unseen == 0


def test_ioc_killed_in_mid_scan_goes_on_with_its_setpoints(stage: Stage) -> None:
    with pva_client(stage.environment) as client:
        client.put(f"{PREFIX}SSIMTolerance", 0.375)
    wait_until(lambda: "SSIMTolerance 0.375" in stage.autosave.read_text(), 10, "the setpoint on disk")
    life = stage.lives
    done = suffer(stage, fault("IOC killed"))
    assert stage.lives == life + 1
    assert stage.value("SSIMTolerance") == 0.375
    # the scan goes on with what comes; what came before is not this process's to count
    assert stage.value("ScanID_RBV") == scan_name(stage.scan)
    assert done.stitched > 50
    assert done.missed == 0
    assert done.unseen > 0


def test_network_that_stands_still_loses_nothing_that_is_not_counted(stage: Stage) -> None:
    done = suffer(stage, fault("network stalled"))
    assert done.sent == done.stitched + done.missed + sum(done.dropped.values()) - done.duplicates


def test_network_that_closes_connections_shows_as_missed_frames(stage: Stage) -> None:
    """In an IOC, too, that was started in mid-scan a moment ago: its accounts are whole again."""
    done = suffer(stage, fault("network cut"))
    assert done.missed > 50  # the detector went on for 1.5 s at 200 frames/s
    assert done.received - done.duplicates + done.missed == done.sent


def test_frozen_image_client_holds_nobody_up_and_costs_no_memory(stage: Stage) -> None:
    suffer(stage, None)
    before = stage.ioc.memory("VmRSS")
    with one_scan(stage):
        images, frozen = (one.latest()["images"] for one in (stage.image_client, stage.frozen_client))
        stage.frozen_client.send(signal.SIGSTOP)

        def told() -> str:
            return f"{images} images before, now {stage.image_client.latest()}; the IOC has {stage.figures()}"

        try:
            wait_until(lambda: stage.image_client.latest()["images"] > images + 10, 30, told)
            assert stage.frozen_client.latest()["images"] <= frozen + 1
            grown = stage.ioc.memory("VmRSS") - before
        finally:
            stage.frozen_client.send(signal.SIGCONT)
        assert grown < 32 << 20
        wait_until(lambda: stage.frozen_client.latest()["images"] > frozen + 1, 30, "images at the frozen client")
    stage.settle()


needs_compiler = pytest.mark.skipif(
    compiler() is None, reason="a process's clock is stepped by a small library, and no C compiler is here"
)


@needs_compiler
def test_clock_of_the_ioc_set_forth_and_back_while_it_streams(stage: Stage) -> None:
    assert stage.clock is not None
    before = stage.figures()
    with one_scan(stage) as scan:
        wait_until(lambda: stage.value("ScanID_RBV") == scan_name(scan), 20, "the scan")
        for offset_s in (10_800.0, 0.0):
            stage.clock.offset_s = offset_s
            at = stage.figures().stitched
            images, beat = stage.image_client.latest()["images"], stage.value("HEARTBEAT")
            wait_until(lambda: stage.figures().stitched > at + 100, 20, "frames stitched after the step")  # noqa: B023
            wait_until(lambda: stage.image_client.latest()["images"] > images, 20, "images after the step")  # noqa: B023
            wait_until(lambda: stage.value("HEARTBEAT") > beat + 1, 20, "heartbeats after the step")  # noqa: B023
    after = stage.settle()
    assert after.stitched - before.stitched == stage.journal.sent(scan)
    assert after.missed == before.missed


@needs_compiler
def test_detector_is_found_again_after_the_clock_was_set_back(stage: Stage) -> None:
    """A client library that waits by the time of day searches for nobody until that has caught up."""
    assert stage.clock is not None
    stage.clock.offset_s = -7200.0
    try:
        assert suffer(stage, fault("network cut")).missed > 50
    finally:
        stage.clock.offset_s = 0.0


def test_time_stamps_of_the_detector_stepped(stage: Stage) -> None:
    done = suffer(stage, fault("detector clock stepped"))
    assert done.stitched == done.sent


def test_engine_that_raises_once_costs_one_call(stage: Stage) -> None:
    """The one call that the log tells of, and no other. Where frames wait, several batches of eight go in one call."""
    log = stage.ioc.log_path
    before = log.stat().st_size
    done = suffer(stage, fault("engine raises once"))
    (in_the_call,) = re.findall(r"batch of (\d+) frames failed", log.read_bytes()[before:].decode(errors="replace"))
    assert done.dropped["Engine"] == int(in_the_call)
    assert 1 <= done.dropped["Engine"] <= frames_at_once(8, PipelineSettings().backlog_batches)
    assert done.stitched + done.dropped["Engine"] == done.sent


def test_engine_that_always_raises_is_counted_and_said(stage: Stage) -> None:
    with one_scan(stage):
        before = stage.figures()
        fault("engine raises always").strike(stage, random.Random())
        try:
            wait_until(lambda: stage.figures().dropped["Engine"] > before.dropped["Engine"] + 50, 20, "Engine drops")
            assert "engine" in str(stage.value("StatusMessage_RBV")).lower()
        finally:
            fault("engine raises always").heal(stage, random.Random())
    stage.settle()
    done = suffer(stage, None)
    assert done.stitched == done.sent


def test_runaway_axis_cannot_grow_the_canvas(stage: Stage) -> None:
    before = stage.ioc.memory("VmRSS")
    done = suffer(stage, fault("runaway axis"))
    assert done.stitched + done.dropped["NoPosition"] == done.sent
    assert stage.ioc.memory("VmRSS") - before < 64 << 20


def test_memory_that_is_refused_costs_the_frames_that_asked_for_it(stage: Stage) -> None:
    done = suffer(stage, fault("memory limit"))
    assert done.stitched + sum(done.dropped.values()) == done.sent
    assert 0 < sum(done.dropped.values()) < done.sent


def test_files_that_cannot_be_written_alarm_and_the_stream_goes_on(stage: Stage) -> None:
    done = suffer(stage, fault("disk full"))
    assert done.stitched == done.sent
    wait_until(lambda: stage.value("AutosaveStatus_RBV") == 0, 20, "setpoints saved again")


def test_the_clients_saw_the_law_hold_and_their_puts_follow(stage: Stage) -> None:
    wait_until(lambda: stage.writer.latest().get("puts", 0) > 5, 30, "puts")
    assert stage.monitor.latest()["violations"] == 0
    assert stage.monitor.latest()["updates"] > 100
    assert stage.writer.latest()["wrong"] == 0


def test_every_fault_of_the_soak_is_tested_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    direct = {"client frozen": "frozen_client.send(signal.SIGSTOP)", "IOC clock stepped": "clock.offset_s"}
    assert [one.name for one in FAULTS if direct.get(one.name, f'fault("{one.name}")') not in text] == []


def test_autosave_on_a_full_disk_keeps_the_old_file_and_recovers(tmp_path: Path) -> None:
    """ENOSPC of a file system of its own, filled to the last byte."""
    folder = tmp_path / "small"
    folder.mkdir()
    wrapper = small_disk(folder)
    if wrapper is None:
        pytest.skip("this system does not let a user mount; the size limit on files stands for it above")
    words = [sys.executable, "-m", "ptychostream", "ioc", "--prefix", "full:", "--engine", "none"]
    words += ["--autosave", str(folder / "setpoints.sav")]
    with EpicsEnv() as env, env.start(*wrapper, *words, env=env.server_env()) as ioc:
        disk = Path(f"/proc/{ioc.popen.pid}/root{folder}")

        def saved(text: str) -> bool:
            return (disk / "setpoints.sav").exists() and text in (disk / "setpoints.sav").read_text()

        def answers() -> bool:
            assert ioc.popen.poll() is None, ioc.output
            try:
                return env.caget("full:ModelState_RBV", timeout=0.5) == 4
            except TimeoutError:
                return False

        wait_until(answers, 60, lambda: ioc.output)
        env.caput("full:SSIMTolerance", 0.125)
        wait_until(lambda: saved("SSIMTolerance 0.125"), 10, "the first file")
        with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space left"):
            while True:
                filler.write(bytes(4096))
        env.caput("full:SSIMTolerance", 0.25)
        wait_until(lambda: env.caget("full:AutosaveStatus_RBV") == 1, 10, "the alarm")
        assert env.pvget("full:AutosaveStatus_RBV").alarm.severity > 0
        kept = (disk / "setpoints.sav").read_text()
        assert "SSIMTolerance 0.125" in kept
        assert kept.endswith("<END>\n")
        (disk / "filler").unlink()
        wait_until(lambda: saved("SSIMTolerance 0.25"), 10, "the second file")
        wait_until(lambda: env.caget("full:AutosaveStatus_RBV") == 0, 10, "the alarm's end")
        assert [path.name for path in disk.iterdir() if ".tmp." in path.name] == []
        assert ioc.stop() == 0, ioc.output
