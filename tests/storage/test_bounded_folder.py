"""A cache stays below its size, and what is in use stays."""

from __future__ import annotations

import os
from pathlib import Path

from ptychostream.storage.bounded_folder import keep_used


def test_what_was_not_used_for_longest_goes(tmp_path: Path) -> None:
    for number in range(5):
        path = tmp_path / f"{number}.engine"
        path.write_bytes(bytes(100))
        os.utime(path, (1000.0 + number, 1000.0 + number))
    (tmp_path / "notes.txt").write_bytes(bytes(1000))
    os.utime(tmp_path / "0.engine", (2000.0, 1000.0))  # built first, read last
    assert keep_used(tmp_path, "*.engine", 500) == []
    assert sorted(path.name for path in keep_used(tmp_path, "*.engine", 250)) == ["1.engine", "2.engine", "3.engine"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.engine", "4.engine", "notes.txt"]
    assert [path.name for path in keep_used(tmp_path, "*.engine", 0)] == ["4.engine"]
    assert keep_used(tmp_path / "none", "*", 0) == []
