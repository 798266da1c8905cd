"""A log that a program appends to for months stays bounded."""

from __future__ import annotations

from pathlib import Path

from ptychostream.processes.log_file import rotate_log


def test_a_long_log_is_rotated_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "record.log"
    assert not rotate_log(log, 100)
    with log.open("ab", buffering=0) as writer:
        writer.write(b"a" * 101)
        assert rotate_log(log, 100) and not rotate_log(log, 100)
        writer.write(b"b")
    assert log.read_bytes() == b"b" and log.with_name("record.log.1").read_bytes() == b"a" * 101
    assert sorted(path.name for path in tmp_path.iterdir()) == ["record.log", "record.log.1"]
