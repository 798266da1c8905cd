"""The page for browsers beside the demonstration."""

from __future__ import annotations

import urllib.request
from pathlib import Path

import pytest
from epics_env import EpicsEnv, free_port

from ptychostream.demo.page import page, page_line

pytestmark = pytest.mark.server


def test_the_page_is_served_while_the_block_runs_and_at_the_same_place_again(tmp_path: Path) -> None:
    port = free_port()
    with EpicsEnv() as env:
        for _ in range(2):
            with page("d:", env.env, tmp_path / "web.log", port) as address:
                assert address == f"http://127.0.0.1:{port}/"
                assert page_line(address, tmp_path) == f"    {address}"
                with urllib.request.urlopen(address, timeout=10) as answer:
                    assert b"ptychostream" in answer.read()
            with pytest.raises(OSError, match="refused"):
                urllib.request.urlopen(address, timeout=10)


def test_without_the_extra_the_demonstration_goes_on(tmp_path: Path) -> None:
    (tmp_path / "aiohttp.py").write_text("raise ModuleNotFoundError(\"No module named 'aiohttp'\", name='aiohttp')\n")
    log = tmp_path / "web.log"
    with EpicsEnv() as env, page("d:", {**env.env, "PYTHONPATH": str(tmp_path)}, log, free_port()) as address:
        assert address == ""
    assert str(log) in page_line(address, log)
    assert "pip install 'ptychostream[web]'" in log.read_text()
