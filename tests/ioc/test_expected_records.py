"""The whole database is pinned: `expected_records.json` holds every record that the templates expand to.

After a change that is wanted: `python tests/ioc/test_expected_records.py > tests/ioc/expected_records.json`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

EXPECTED = Path(__file__).with_name("expected_records.json")


def loaded() -> dict[str, Any]:
    """Group, type, fields and info tags of every record by its name, loaded in a process of its own."""
    command = [sys.executable, "-m", "ptychostream.ioc.records.record_table", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    groups: dict[str, list[dict[str, Any]]] = json.loads(done.stdout)
    return {record.pop("name"): {"group": group, **record} for group, records in groups.items() for record in records}


def as_text(records: dict[str, Any]) -> str:
    """JSON with a line for each record, by name."""
    lines = (f"{json.dumps(name)}: {json.dumps(records[name], sort_keys=True)}" for name in sorted(records))
    return "{\n" + ",\n".join(lines) + "\n}\n"


@pytest.mark.slow
def test_every_record_is_as_expected() -> None:
    found, expected = loaded(), json.loads(EXPECTED.read_text(encoding="utf-8"))
    assert found.keys() == expected.keys()
    assert {name: record for name, record in found.items() if record != expected[name]} == {}


if __name__ == "__main__":
    sys.stdout.write(as_text(loaded()))
