"""Scans collected in a child: the same results and faults, and no file takes the agent with it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from scan_samples import FRAMES, PATIENT, QUICK, a_file, crashing, end_of_opening

from ptychostream.hpc_agent.scans.collect import CollectSettings, ScanEvent, collect
from ptychostream.hpc_agent.scans.collect_apart import collect_apart
from ptychostream.hpc_agent.scans.scan_checks import CollectError, ScanFault
from ptychostream.positions.positions import AxisConfig
from ptychostream.scans.scan_files import ScanOptions

pytestmark = pytest.mark.server

TIMEOUT_S = 60.0


def unreadable(path: Path, settings: CollectSettings) -> str:
    with pytest.raises(CollectError) as caught:
        collect_apart(ScanEvent("", str(path)), settings, threading.Event())
    assert caught.value.fault is ScanFault.UNREADABLE
    assert caught.value.where == str(path)
    assert caught.value.remedy
    return str(caught.value)


def test_what_is_collected_is_the_same(tmp_path: Path) -> None:
    settings = CollectSettings(
        quiet_s=0.1, scan=ScanOptions(axes=AxisConfig(sign_x=-1), distance_m=2.0), path_map={"/there": str(tmp_path)}
    )
    event = ScanEvent("s1", f"/there/{a_file(tmp_path).name}", energy_ev=1.005e4, frames=FRAMES)
    assert collect_apart(event, settings, threading.Event()) == collect(event, settings)


def test_faults_have_their_names(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    for event, fault in (
        (ScanEvent("other", str(path)), ScanFault.WRONG_SCAN),
        (ScanEvent("s1", str(path), frames=FRAMES + 1), ScanFault.TRUNCATED),
        (ScanEvent("s1", str(tmp_path / "none.h5")), ScanFault.MISSING),
        (ScanEvent("s1"), ScanFault.MISSING),
    ):
        with pytest.raises(CollectError) as apart:
            collect_apart(event, QUICK, threading.Event())
        with pytest.raises(CollectError) as here:
            collect(event, QUICK)
        assert apart.value.fault is here.value.fault is fault
        assert (apart.value.where, apart.value.remedy) == (here.value.where, here.value.remedy)


@pytest.mark.parametrize("group", [b"incident_energy", b"distance"])
def test_a_file_that_crashes_hdf5_is_an_error_of_that_file(tmp_path: Path, group: bytes) -> None:
    path = crashing(tmp_path, group)
    # a later libhdf5 may say what it does not like
    assert ("SIGSEGV" in unreadable(path, QUICK)) == (end_of_opening(path) < 0)


@pytest.fixture
def endless(tmp_path: Path) -> Path:
    """What never comes back from being opened."""
    path = tmp_path / "scan.h5"
    os.mkfifo(path)
    return path


def test_what_never_comes_back_is_given_up(endless: Path) -> None:
    settings = QUICK.model_copy(update={"silence_s": 0.4})
    assert "was silent for 1 s" in unreadable(endless, settings)


def test_it_is_stopped(endless: Path) -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(CollectError, match="given up"):
        collect_apart(ScanEvent("s1", str(endless)), PATIENT, stop)


def test_frames_are_told_as_they_are_looked_at(tmp_path: Path) -> None:
    told: list[int] = []
    collect(ScanEvent("s1", str(a_file(tmp_path))), QUICK, on_frames=told.append)
    assert told == [FRAMES]
