"""A push in parts: one at a time, in order, never more than announced; and refusals that do not fill the log."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from ptychostream.errors import ModelError
from ptychostream.ioc.model.model_rpc_checks import PushRequest
from ptychostream.ioc.model.model_rpc_folder import PushedModels
from ptychostream.ioc.model.model_rpc_parts import PART_BYTES, Arrival, OtherPushError
from ptychostream.ioc.model.rare_log import RareLog
from ptychostream.model.shown import plain, shown

DATA = bytes(range(256)) * 10
SHA = hashlib.sha256(DATA).hexdigest()


class Bench:
    def __init__(self, folder: Path) -> None:
        self.now = 100.0
        self.folder = folder
        self.models = PushedModels(folder, 3)
        self.arrival = Arrival(self.models, lambda: self.now)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def part(start: int, stop: int, nonce: str = "n", size: int = len(DATA)) -> PushRequest:
    return PushRequest(DATA[start:stop], SHA, "m", nonce, "", "u", "h", size=size, offset=start)


def test_parts_in_order_become_the_file(bench: Bench) -> None:
    assert [bench.arrival.add(part(at, at + 1000)) for at in (0, 1000, 2000)] == [False, False, True]
    temporary, found = bench.arrival.finish()
    assert found == SHA
    path, new = bench.models.adopt(temporary, found)
    assert (path.read_bytes(), new, path.stem) == (DATA, True, SHA)
    bench.arrival.end()
    assert bench.files() == [f"{SHA}.onnx"]


def test_a_second_push_waits_until_the_first_is_over_or_silent(bench: Bench) -> None:
    bench.arrival.add(part(0, 1000))
    for other in (part(0, 1000, "other"), replace(part(0, 1000, "whole"), size=0)):
        with pytest.raises(OtherPushError, match="another push"):
            bench.arrival.add(other) if other.size else bench.arrival.claim(other)
    bench.now += 11.0
    assert bench.arrival.add(part(0, 1000, "other")) is False  # the first one is given up
    assert len(bench.files()) == 1
    with pytest.raises(OtherPushError, match="did not come"):
        bench.arrival.add(part(1000, 2000))
    bench.arrival.add(part(1000, len(DATA), "other"))  # complete: it is loaded, however long that takes
    bench.now += 1000.0
    with pytest.raises(OtherPushError, match="another push"):
        bench.arrival.add(part(0, 1000))
    with pytest.raises(OtherPushError, match="did not come"):  # nothing can be added to it
        bench.arrival.add(part(len(DATA), len(DATA) + 1, "other"))
    assert len(bench.files()) == 1
    bench.arrival.end()
    assert bench.files() == []
    assert bench.arrival.add(part(0, 1000)) is False


def test_a_push_whose_parts_stop_leaves_nothing_open_and_no_file_when_the_edge_ends(bench: Bench) -> None:
    bench.arrival.add(part(0, 1000))
    assert [file for file in Path("/proc/self/fd").iterdir() if bench.folder in file.resolve().parents] == []
    assert len(bench.files()) == 1
    bench.arrival.stop()
    assert bench.files() == []
    bench.arrival.add(part(0, len(DATA)))  # its last part has come: it is loaded, and ends by itself
    bench.arrival.stop()
    assert len(bench.files()) == 1
    assert bench.arrival.finish()[0].read_bytes() == DATA


def test_parts_out_of_order_and_beyond_the_size_are_refused(bench: Bench) -> None:
    bench.arrival.add(part(0, 1000))
    with pytest.raises(OtherPushError, match="did not come"):
        bench.arrival.add(part(1500, 2000))
    assert bench.arrival.add(part(1000, 1500)) is False  # the one that was due
    with pytest.raises(ModelError, match=r"1,060 bytes at 1,500 of 2,000"):
        bench.arrival.add(part(1500, len(DATA), size=2000))
    assert bench.files() == []
    with pytest.raises(OtherPushError):
        bench.arrival.add(part(1500, 2000))
    large = replace(part(0, 1), model=bytes(PART_BYTES + 1), size=PART_BYTES + 2)
    with pytest.raises(ModelError, match="parts of 1,048,576 bytes"):
        bench.arrival.add(large)
    with pytest.raises(ModelError, match="no sha256"):
        bench.arrival.add(replace(part(0, 1), sha256="../" + "0" * 61))


def test_refusals_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    rare = RareLog(logging.getLogger("refusals"), lambda: now[0])
    with caplog.at_level(logging.WARNING, logger="refusals"):
        for _ in range(100):
            rare.warn("a push is refused")
            now[0] += 0.25
        now[0] += 100.0
        rare.warn("the last")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        "a push is refused",
        "a push is refused; 39 more since the last of these lines",
        "a push is refused; 39 more since the last of these lines",
        "the last; 19 more since the last of these lines",
    ]


def test_texts_of_clients_are_on_one_line_and_cut() -> None:
    assert shown("a\nb\x1b[0m") == r"'a\nb\x1b[0m'"
    assert plain("x" * 100, 10) == "x" * 10 + "…"
    request = PushRequest(b"", "z\n" * 40, "name\r\n" * 40, "", "", "user\n", "host\x00")
    assert str(request).isprintable()
    assert len(str(request)) < 250


def test_a_missing_folder_is_made_and_one_that_cannot_be_leaves_no_push_under_way(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "not" / "there")
    assert bench.arrival.add(part(0, 1000)) is False
    bench.arrival.end()
    (tmp_path / "file").write_text("no folder")
    barred = Bench(tmp_path / "file" / "models")
    for nonce in ("first", "second"):  # the second is not told that another push is under way
        with pytest.raises(OSError, match="Not a directory"):
            barred.arrival.add(part(0, 1000, nonce))
