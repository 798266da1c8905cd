"""A child with limits: what it takes too much of ends the child alone, and is said in words."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ptychostream.processes.bounded import Bounds, Ended, run_bounded, share_of_memory

pytestmark = pytest.mark.slow  # each starts a process

GIB = 1 << 30


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, *words: str, **options: object) -> Ended:
    """Run a module with this text in a child."""
    (folder / "bounded_sample.py").write_text(text)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    bounds = Bounds(int(options.pop("memory", GIB)), float(options.pop("time_s", 60.0)))  # type: ignore[call-overload]
    return run_bounded("bounded_sample", words, bounds, **options)  # type: ignore[arg-type]


def test_it_gets_words_and_bytes_and_gives_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "import sys\nprint(sys.argv[1], len(sys.stdin.buffer.read()))\nprint('noise', file=sys.stderr)\n"
    ended = run(tmp_path, monkeypatch, text, "word", given=b"x" * 3_000_000)
    assert ended == Ended(b"word 3000000\n", "")


def test_memory_beyond_the_limit_is_refused_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(tmp_path, monkeypatch, "held = bytearray(2 << 30)\n", memory=GIB)
    assert "more memory than it may have: the limit of its memory is 1,024 MiB" in ended.fault


def test_time_beyond_the_limit_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = run(tmp_path, monkeypatch, "import threading\nthreading.Event().wait()\n", time_s=1.0)
    assert ended.fault == "was not done within 1 s"


def test_whoever_waits_can_give_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_up = threading.Event()
    give_up.set()
    ended = run(tmp_path, monkeypatch, "import threading\nthreading.Event().wait()\n", give_up=give_up)
    assert ended.given_up


def test_a_signal_and_a_status_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = run(tmp_path, monkeypatch, "import os, signal\nos.kill(os.getpid(), signal.SIGABRT)\n")
    assert "crashed (SIGABRT)" in killed.fault
    assert "status 3" in run(tmp_path, monkeypatch, "raise SystemExit(3)\n").fault


def test_a_share_of_the_memory_is_at_least_one_gib() -> None:
    assert share_of_memory(1e-9) == GIB
    assert share_of_memory(1.0) >= share_of_memory(0.5) >= GIB
