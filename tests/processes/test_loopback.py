"""Free ports: no two processes that look for them at the same time get the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ptychostream.processes.loopback import free_ports

TAKER = """
import sys
from ptychostream.processes.loopback import free_ports
print(*free_ports(150), flush=True)
sys.stdin.read()
"""


@pytest.mark.server
def test_ports_are_handed_out_once_while_their_taker_lives() -> None:
    takers = [
        subprocess.Popen([sys.executable, "-c", TAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    taken = []
    for taker in takers:
        assert taker.stdout is not None
        taken += taker.stdout.readline().split()
    mine = free_ports(150)
    assert len(set(map(int, taken)) | set(mine)) == 4 * 150 + 150
    for taker in takers:
        taker.communicate("", timeout=30)


def test_ports_are_given_back_in_the_end() -> None:
    """A process that asks and asks keeps few files open."""
    for _ in range(5):
        assert len(set(free_ports(100))) == 100
    assert len(list(Path("/proc/self/fd").iterdir())) < 500
