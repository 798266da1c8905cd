"""Scans as they complete: edges, PVs that come late, IOCs that are killed, scans that nobody watched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import pytest
from epics_env import EpicsEnv, Process, wait_until
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.config import load_settings
from ptychostream.errors import ConfigError
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.scans import watch_folder
from ptychostream.hpc_agent.scans.collect import ScanEvent
from ptychostream.hpc_agent.scans.transitions import Coherence, Transitions, coherence, frame_count, to_tell
from ptychostream.hpc_agent.scans.watch import ScanWatch, ScanWatchSettings
from ptychostream.hpc_agent.scans.watch_folder import FolderSettings, MissedScans, name_pattern
from ptychostream.statements.units import energy_ev

DATABASE = """
record(bo, "$(P)Complete") { field(ZNAM, "No") field(ONAM, "Yes") field(VAL, "$(COMPLETE=0)") field(PINI, "YES") }
record(bo, "$(P)Busy") { field(ZNAM, "Done") field(ONAM, "Acquiring") field(VAL, "$(BUSY=0)") field(PINI, "YES") }
record(longout, "$(P)Count") { field(VAL, "$(COUNT=0)") field(PINI, "YES") }
record(stringout, "$(P)ID") { field(VAL, "$(ID=)") field(PINI, "YES") }
record(lsi, "$(P)File") { field(SIZV, "300") field(INP, {const: "$(FILE=)"}) field(PINI, "YES") }
record(ao, "$(P)Energy") { field(VAL, "10.4") field(PINI, "YES") }
record(longout, "$(P)Frames") { field(VAL, "963") field(PINI, "YES") }
"""
SETTINGS: dict[str, Any] = {
    "complete_pv": "t:Complete",
    "id_pv": "t:ID",
    "file_pv": "t:File.VAL$",
    "energy_pv": "t:Energy",
    "frames_pv": "t:Frames",
    "settle_s": 0.5,
    "poll_s": 0.5,
    "timeout_s": 1.0,
}


# Pure


@pytest.mark.slow
@given(st.lists(st.integers(0, 1), min_size=1))
def test_rising_and_falling_edges_are_counted(values: list[int]) -> None:
    rising, falling = Transitions("rising"), Transitions("falling")
    seen = [(rising.take(value), falling.take(value)) for value in values]
    steps = list(pairwise(values))
    assert sum(up for up, _ in seen) == steps.count((0, 1))
    assert sum(down for _, down in seen) == steps.count((1, 0))
    assert rising.complete(None) == (values[-1] == 1)
    assert falling.complete(None) == (values[-1] == 0)


def test_a_counter_tells_of_missed_scans_and_starts_again_with_its_ioc() -> None:
    transitions = Transitions("counter")
    assert [transitions.take(value) for value in (7, 7, 8, 11, 0, 1)] == [False, False, True, True, False, True]
    assert transitions.missed == 2
    assert not transitions.complete(None) and not transitions.complete(1) and transitions.complete(7)


def test_words_are_edges_as_well() -> None:
    transitions = Transitions("falling")
    assert [transitions.take(word) for word in ("Acquiring", "Done", "Acquiring", "Idle")] == [False, True, False, True]


def test_what_belongs_together_and_what_is_left_over() -> None:
    before = ScanEvent("1", "1.h5")
    assert coherence(ScanEvent("2", "2.h5"), before) is Coherence.FRESH
    assert coherence(ScanEvent("2"), before) is Coherence.FRESH
    assert coherence(ScanEvent("", "2.h5"), before) is Coherence.FRESH
    assert coherence(ScanEvent("2", "1.h5"), before) is Coherence.STALE_FILE
    assert coherence(ScanEvent("1", "2.h5"), before) is Coherence.REPEATED
    assert coherence(before, before) is Coherence.DUPLICATE
    assert coherence(ScanEvent(""), before) is coherence(ScanEvent(""), None) is Coherence.NAMELESS
    assert to_tell(ScanEvent("2", "1.h5"), before) == ScanEvent("2", "")
    assert to_tell(ScanEvent("1", "2.h5"), before) == ScanEvent("1", "2.h5")
    assert to_tell(before, before) is None


def test_units_and_values_that_are_none() -> None:
    assert energy_ev(10.4, "keV") == pytest.approx(10400) and energy_ev(8000, "eV") == 8000
    assert energy_ev(0, "keV") is energy_ev(float("nan"), "eV") is energy_ev(None, "eV") is energy_ev("x", "eV") is None
    assert (frame_count(963), frame_count(0), frame_count(None)) == (963, None, None)


def test_one_pv_must_name_the_scan() -> None:
    with pytest.raises(ConfigError, match="needs id_pv, file_pv or both"):
        load_settings(ScanWatchSettings, None, {"complete_pv": "t:Complete"})


# A folder


def scan_file(path: Path, changed_s: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w"):
        pass
    os.utime(path, (changed_s, changed_s))


class Folder:
    """A folder that is watched, with a clock that the test sets and a journal."""

    def __init__(self, folder: Path, files: str, quiet_s: float = 30.0) -> None:
        self.now = 1000.0
        self.settings = FolderSettings(files=f"{folder}/{files}", quiet_s=quiet_s)
        self.journal = Journal(folder / "journal.sqlite")
        self.restart()

    def restart(self) -> None:
        self.missed = MissedScans(self.settings, self.journal, lambda: self.now)

    def look(self, after_s: float = 0.0) -> list[str]:
        """Ids of the scans that are found, each entered in the journal."""
        self.now += after_s
        found = self.missed.look()
        for each in found:
            self.missed.note(each)
        return [each.event.scan_id or Path(each.event.file).name for each in found]


def test_new_files_are_found_in_order_once_they_are_quiet(tmp_path: Path) -> None:
    scan_file(tmp_path / "a/s_0.h5", 50)
    folder = Folder(tmp_path, "*/s_{scan}.h5")
    assert folder.look() == [], "what was there is left alone"
    for name, changed in (("a/s_1.h5", 100), ("a/s_3.h5", 300), ("b/s_2.h5", 200), ("b/x.h5", 250)):
        scan_file(tmp_path / name, changed)
    assert folder.look() == [] and folder.look(29.0) == []
    scan_file(tmp_path / "b/s_4.h5", 400)
    assert folder.look(1.0) == ["1", "2", "3"]
    assert 0 < folder.missed.next_s <= 30
    assert folder.look(30.0) == ["4"] and folder.look(100.0) == []
    folder.restart()
    assert folder.look() == [] and folder.look(100.0) == [], "remembered over a restart"


def test_files_without_an_id_and_no_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "s_[0-9].h5", quiet_s=0)
    assert folder.look() == []
    scan_file(tmp_path / "s_1.h5", 100)
    scan_file(tmp_path / "s_x.h5", 100)
    assert folder.look() == ["s_1.h5"]
    assert MissedScans(FolderSettings(), folder.journal).look() == []


def test_neither_an_older_time_nor_a_clock_that_ran_ahead_hides_a_file(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "{scan}.h5")
    assert folder.look() == []
    scan_file(tmp_path / "ahead.h5", time.time() + 1e7)
    assert folder.look() == [] and folder.look(31.0) == ["ahead"]
    scan_file(tmp_path / "copied.h5", 1000.0)  # with the times of the original
    assert folder.look() == [] and folder.look(31.0) == ["copied"]
    scan_file(tmp_path / "copied.h5", 2000.0)  # written again
    assert folder.look() == [] and folder.look(31.0) == ["copied"]


def test_a_file_that_grows_is_not_taken(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "{scan}.npz")
    assert folder.look() == []
    for size in range(1, 6):
        (tmp_path / "1.npz").write_bytes(b"x" * size)
        assert folder.look(20.0) == []
    assert folder.look(29.0) == [] and folder.look(1.0) == ["1"]


def test_a_folder_that_is_mounted_late_keeps_its_old_files_to_itself(tmp_path: Path) -> None:
    folder = Folder(tmp_path, "disk/{scan}.h5", quiet_s=0)
    assert folder.look() == []
    scan_file(tmp_path / "disk/1.h5", 100)
    assert folder.look(100.0) == []
    scan_file(tmp_path / "disk/2.h5", 50)
    assert folder.look(100.0) == ["2"]


@pytest.mark.server
def test_a_file_that_is_still_written_is_named_once_and_found_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Folder(tmp_path, "{scan}.h5", quiet_s=10)
    assert folder.look() == []
    write = "import h5py, sys; file = h5py.File(sys.argv[1], 'w'); print(flush=True); sys.stdin.read(); file.close()"
    command = [sys.executable, "-c", write, str(tmp_path / "1.h5")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None and writer.stdout.readline()
        assert folder.look() == []
        scan_file(tmp_path / "2.h5", time.time() + 5)
        assert folder.look(10.0) == [] and folder.look(10.0) == ["2"], "it holds up no other file"
        for _ in range(200):
            assert folder.look(10.0) == []
    assert [record.getMessage() for record in caplog.records if "was not closed" in record.getMessage()] == [
        f"{tmp_path}/1.h5 has not changed for 10 s and was not closed: it is left until it changes"
    ]
    assert folder.look() == [] and folder.look(3600.0) == ["1"]


def test_a_broken_file_is_opened_less_and_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(tmp_path, "{scan}.h5", quiet_s=10)
    assert folder.look() == []
    (tmp_path / "1.h5").write_bytes(b"")  # its writer died
    tries: list[float] = []
    monkeypatch.setattr(watch_folder, "_closed", lambda _path: bool(tries.append(folder.now)))
    for _ in range(24 * 60):
        folder.look(60.0)
    assert 24 <= len(tries) <= 33, "in a day"


def test_templates_with_odd_characters() -> None:
    assert name_pattern("/a+b/{scan}(1).h5").fullmatch("/a+b/7(1).h5")
    assert not name_pattern("/a/{scan}.h5").fullmatch("/a/b/c.h5")
    assert name_pattern("/a/[!x]{scan}.h5").fullmatch("/a/y1.h5")


# A real IOC


class Beamline:
    """An IOC that can die, and what a watch heard of it."""

    def __init__(self, folder: Path, env: EpicsEnv) -> None:
        self.env = env
        self.server = env.server_env()
        self.database = folder / "scan.db"
        self.database.write_text(DATABASE)
        self.events: list[ScanEvent] = []
        self.returns = 0
        self.ioc: Process | None = None

    def start(self, **macros: Any) -> None:
        text = ",".join(["P=t:", *(f"{name}={value}" for name, value in macros.items())])
        command = (sys.executable, "-m", "pvxslibs.ioc", "-m", text, "-d", str(self.database))
        self.ioc = self.env.start(*command, env=self.server)
        wait_until(self._up, 30, lambda: f"the IOC: {self.ioc.output}")

    def _up(self) -> bool:
        try:
            self.env.caget("t:Frames", timeout=0.5)
        except TimeoutError:
            return False
        return True

    def kill(self) -> None:
        assert self.ioc is not None
        self.ioc.stop(signal.SIGKILL)
        self.ioc.__exit__()
        self.ioc = None

    def put(self, **values: Any) -> None:
        for name, value in values.items():
            self.env.caput(f"t:{name}.VAL$" if name == "File" else f"t:{name}", value)

    def scan(self, name: str) -> None:
        """One scan as a sequencer takes it."""
        self.put(Complete=0, Busy=1, ID=name, File=f"/data/{name}.h5")
        self.put(Count=self.env.caget("t:Count") + 1, Complete=1, Busy=0)

    def returned(self) -> None:
        self.returns += 1

    @contextmanager
    def watched(self, last: ScanEvent | None = None, **settings: Any) -> Iterator[ScanWatch]:
        with self.env.active():
            watch = ScanWatch(ScanWatchSettings(**{**SETTINGS, **settings}), self.events.append, last, self.returned)
            watch.start()
            try:
                yield watch
            finally:
                watch.stop()

    @property
    def names(self) -> list[str]:
        return [event.scan_id for event in self.events]

    def heard(self, *names: str) -> None:
        wait_until(lambda: self.names == list(names), 30, lambda: f"{names}: {self.events}")


@pytest.fixture
def beamline(tmp_path: Path) -> Iterator[Beamline]:
    with EpicsEnv() as env:
        beamline = Beamline(tmp_path, env)
        yield beamline
        if beamline.ioc is not None:
            beamline.kill()


def connected(watch: ScanWatch) -> Callable[[], bool]:
    return lambda: watch.connected


@pytest.mark.server
@pytest.mark.parametrize(("pv", "edge"), [("Complete", "rising"), ("Busy", "falling"), ("Count", "counter")])
def test_every_scan_is_told_once_over_restarts_of_the_ioc(beamline: Beamline, pv: str, edge: str) -> None:
    long = "x" * 35  # and its file is longer than a string of Channel Access
    beamline.start()
    with beamline.watched(complete_pv=f"t:{pv}", edge=edge) as watch:
        wait_until(connected(watch), 30, "the watch connects")
        beamline.scan(long)
        beamline.heard(long)
        assert beamline.events[0] == ScanEvent(long, f"/data/{long}.h5", pytest.approx(10400), 963)
        beamline.scan("2")
        beamline.heard(long, "2")
        beamline.kill()
        wait_until(lambda: not watch.connected, 30, "the watch sees the death")
        # scan 3 completed while the IOC could not be seen, then the IOC came back with its values
        beamline.start(COMPLETE=1, BUSY=0, COUNT=3, ID="3", FILE="/data/3.h5")
        beamline.heard(long, "2", "3")
        beamline.scan("4")
        beamline.heard(long, "2", "3", "4")
        assert beamline.returns == 2


@pytest.mark.server
def test_duplicates_are_not_told(beamline: Beamline) -> None:
    beamline.start(COMPLETE=1, ID="7", FILE="/data/7.h5")
    with beamline.watched(ScanEvent("7", "/data/7.h5")) as watch:
        wait_until(connected(watch), 30, "the watch connects")
        beamline.put(Complete=0)
        beamline.put(Complete=1)
        beamline.kill()
        wait_until(lambda: not watch.connected, 30, "the watch sees the death")
        beamline.start(COMPLETE=1, ID="7", FILE="/data/7.h5")
        wait_until(connected(watch), 30, "the watch connects")
        beamline.scan("8")
        beamline.heard("8")


@pytest.mark.server
def test_a_scan_that_completed_before_the_agent_came_is_caught_up_with(beamline: Beamline) -> None:
    beamline.start(COMPLETE=1, ID="7", FILE="/data/7.h5")
    with beamline.watched(ScanEvent("6", "/data/6.h5")):
        beamline.heard("7")
    with beamline.watched(ScanEvent("6", "/data/6.h5"), catch_up=False) as watch:
        wait_until(connected(watch), 30, "the watch connects")
        beamline.scan("8")
        beamline.heard("7", "8")


@pytest.mark.server
def test_a_scan_that_is_prepared_is_not_complete(beamline: Beamline) -> None:
    beamline.start(BUSY=0, ID="8", FILE="/data/7.h5")  # the file's name comes with the first frame
    with beamline.watched(ScanEvent("7", "/data/7.h5"), complete_pv="t:Busy", edge="falling") as watch:
        wait_until(connected(watch), 30, "the watch connects")
        beamline.put(Busy=1, File="/data/8.h5")
        beamline.put(Busy=0)
        beamline.heard("8")


@pytest.mark.server
def test_names_that_come_after_the_edge_are_waited_for(beamline: Beamline) -> None:
    beamline.start(ID="1", FILE="/data/1.h5")
    with beamline.watched(ScanEvent("1", "/data/1.h5"), settle_s=20.0) as watch:
        wait_until(connected(watch), 30, "the watch connects")
        beamline.put(Complete=1)
        beamline.put(ID="2")
        beamline.put(File="/data/2.h5")
        beamline.heard("2")
        assert beamline.events[0].file == "/data/2.h5"


@pytest.mark.server
def test_a_file_of_the_scan_before_is_never_taken_for_this_one(beamline: Beamline) -> None:
    beamline.start(ID="1", FILE="/data/1.h5")
    with beamline.watched(ScanEvent("1", "/data/1.h5")) as watch:
        wait_until(connected(watch), 30, "the watch connects")
        beamline.put(ID="2", Complete=1)
        beamline.heard("2")
        assert beamline.events[0].file == ""


@pytest.mark.server
def test_an_ioc_that_freezes_in_an_edge(beamline: Beamline) -> None:
    beamline.start()
    counted = {"complete_pv": "t:Count", "edge": "counter"}
    with beamline.watched(settle_s=60.0, timeout_s=0.5, **counted) as watch:
        wait_until(connected(watch), 30, "the watch connects")
        beamline.scan("1")
        beamline.heard("1")
        beamline.put(Count=2)  # the watch waits for another id now, and reads it again and again
        assert beamline.ioc is not None
        beamline.ioc.popen.send_signal(signal.SIGSTOP)
        wait_until(lambda: not watch.connected, 30, "the watch sees that nothing answers")
        beamline.ioc.popen.send_signal(signal.SIGCONT)
        beamline.put(ID="2", File="/data/2.h5")
        beamline.heard("1", "2")


@pytest.mark.server
def test_a_clean_stop_before_anything_is_there(beamline: Beamline) -> None:
    start = time.monotonic()
    with beamline.watched():
        pass
    assert time.monotonic() - start < 20
    assert beamline.events == [] and beamline.returns == 0
