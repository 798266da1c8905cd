"""Raw recordings keep updates as they came, say what a disk or a server lost, and are read as what they meant."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from epics_env import EpicsEnv, wait_until
from folders import CORPUS
from raw_samples import SMALL, small

from ptychostream.errors import ScanFileError
from ptychostream.rawpva.encoding import ANYTHING, array, encode, scalar, structure
from ptychostream.rawpva.raw_server import RawServer
from ptychostream.rawpva.raw_updates import RawFile, RawWriter
from ptychostream.rawpva.raw_values import RawUpdate, WireType, WireUpdate, WireUpdates
from ptychostream.recording.raw_record import RawRecorded, RawRecordSettings, record_raw

TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as environment:
        yield environment


def test_updates_are_kept_as_they_came(tmp_path: Path) -> None:
    """In either byte order, with types that an earlier update has numbered, and only what changed."""
    of = structure("t", n=scalar("int32"), x=array("uint16"), v=ANYTHING)
    described, inner = of.pack(), structure("in", k=scalar("int16"))
    bodies = [
        b"\x01\x01"
        + b"\x00\x00\x01\x02"
        + b"\x02\x00\x03\x00\x04"
        + b"\xfd\x00\x07"
        + inner.pack()
        + b"\x00\x05"
        + b"\0",
        b"\x01\x02" + b"\x00\x00\x01\x03" + b"\0",
        b"\x01\x08" + b"\xfe\x00\x07" + b"\x00\x06" + b"\x01\x08",
    ]
    values = [
        {"n": 258, "x": [3, 4], "v": (inner, {"k": 5})},
        {"n": 259, "x": [3, 4], "v": (inner, {"k": 5})},
        {"n": 259, "x": [3, 4], "v": (inner, {"k": 6})},
    ]
    path = tmp_path / "x.pvaraw"
    big = WireType(True, described)
    updates = [WireUpdate(number, memoryview(body)) for number, body in enumerate(bodies)]
    for _ in range(2):  # a second recording is added to the first
        with RawWriter(path, "t:wire") as writer:
            writer.write_as_came(WireUpdates(big, updates[:1]))
            writer.write_as_came(WireUpdates(big, updates[1:]))
    with RawFile(path) as recording:
        assert recording.updates == 6
        got = list(recording)
    assert [update.value for update in got] == [encode(of, value) for value in values] * 2
    assert [(update.changed, update.overrun, update.time_ns) for update in got[:3]] == [
        (0b111, 0, 0), (0b001, 0, 1), (0b100, 0b100, 2),
    ]  # fmt: skip
    assert [update.overrun for update in updates] == [False, False, True]


def test_as_came_that_makes_no_sense_is_damage(tmp_path: Path) -> None:
    described = SMALL.pack()
    for body in (b"\x01\x01\0\0", b"\x01\x01" + encode(SMALL) + b"\0\0", b""):
        path = tmp_path / f"{len(body)}.pvaraw"
        with RawWriter(path, "t:wire") as writer:
            writer.write_as_came(WireUpdates(WireType(False, described), [WireUpdate(0, body)]))
        with RawFile(path) as recording, pytest.raises(ScanFileError, match="the block at byte"):
            list(recording)


def test_a_file_of_the_first_version_is_read_and_not_added_to(tmp_path: Path) -> None:
    path = tmp_path / "first.pvaraw"
    path.write_bytes((CORPUS / "times.pvaraw").read_bytes())
    with RawFile(path) as recording:
        channel, updates = recording.channel, len(list(recording))
        assert (recording.version, updates) == (b"PVARAW1\n", recording.updates)
    with pytest.raises(ScanFileError, match="earlier version"):
        RawWriter(path, channel)


def test_a_disk_that_fails_behind_the_writer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(_: int) -> None:
        failed.set()
        raise OSError(errno.EIO, "the disk is gone")

    monkeypatch.setattr(os, "fdatasync", fail)
    writer = RawWriter(tmp_path / "x.pvaraw", "t:small", sync_s=0.01)
    assert failed.wait(TIMEOUT_S)

    def told() -> bool:
        try:
            writer.write(small(1))
        except ScanFileError as error:
            assert "the disk is gone" in str(error)
            return True
        return False

    wait_until(told, TIMEOUT_S, "the failure to be told")
    with pytest.raises(ScanFileError, match="the disk is gone"):
        writer.close()


def test_a_write_that_the_system_cuts_short_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def some(descriptor: int, parts: Sequence[bytes]) -> int:
        whole = b"".join(parts)
        return os.write(descriptor, whole[: len(whole) // 3])

    monkeypatch.setattr(os, "writev", some)
    path = tmp_path / "x.pvaraw"
    with RawWriter(path, "t:small") as writer:
        for number in range(3):
            writer.write(small(number))
    with RawFile(path) as recording:
        assert (list(recording), recording.torn) == ([small(number) for number in range(3)], 0)


def _frame(unique_id: int, overrun: bool = False) -> RawUpdate:
    of = structure("t", value=structure("in", a=scalar("int8"), b=scalar("str")), uniqueId=scalar("int32"))
    value = encode(of, {"value": {"a": 1, "b": "x" * (unique_id % 3)}, "uniqueId": unique_id})
    return RawUpdate(unique_id, of, 0b111, 0b111 if overrun else 0, value)


@pytest.mark.server
def test_what_overruns_swallowed_is_counted(env: EpicsEnv, tmp_path: Path) -> None:
    def recorded(channel: str, updates: list[RawUpdate]) -> RawRecorded:
        found: list[RawRecorded] = []
        settings = RawRecordSettings(frames=len(updates), seconds=TIMEOUT_S)
        path = tmp_path / channel
        with RawServer([channel], env.server_env()) as server:
            server.announce(channel, updates[0])
            recorder = threading.Thread(
                target=lambda: found.append(record_raw(channel, path, settings, threading.Event()))
            )
            recorder.start()
            wait_until(lambda: server.monitors(channel) == 1, TIMEOUT_S, "the recorder to subscribe")
            for update in updates:
                server.publish(channel, update)
            recorder.join()
        return found[0]

    with env.active():
        got = recorded("t:ids", [_frame(5), _frame(6), _frame(10, True), _frame(11), _frame(300, True)])
        assert (got.updates, got.overruns, got.missed) == (5, 2, 3 + 288)
        got = recorded("t:reset", [_frame(7), _frame(2, True)])
        assert (got.overruns, got.missed) == (1, 1)
        got = recorded("t:none", [small(1), small(9)._replace(overrun=0b11)])
        assert (got.overruns, got.missed) == (1, 1)
