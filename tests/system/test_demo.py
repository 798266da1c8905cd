"""`ptychostream demo`, whole: every process real, the images those that a PVA client received."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from ptychostream.demo.journal_view import read_journal
from ptychostream.demo.loop_plan import LoopPlan, Stage
from ptychostream.demo.processes import Child, DemoError
from ptychostream.demo.run import Demo, Plan

pytestmark = pytest.mark.server

TINY_SCAN = Plan(
    "simulated-64", 8, epochs=12, simulated=1, training_limit_s=150, held_out=0.15, rate_hz=200.0, size=64, frames=550
)
TINY_LOOP = LoopPlan(
    (Stage("letters", 1, 1, "judged"), Stage("raised", 1, 1, "suspended")),
    rest=0,
    frames=150,
    iterations=8,
    epochs=4,
    training_limit_s=4.0,
    tolerance=0.01,
)


def processes_of(folder: Path) -> list[str]:
    """Command lines of processes that name `folder`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line and int(path.parent.name) != os.getpid():
            found.append(line)
    return found


@pytest.mark.timeout(900)
def test_demo_of_one_scan_and_of_the_loop(tmp_path: Path) -> None:
    told = io.StringIO()
    console = Console(file=told, width=400, highlight=False)
    demo = Demo(tmp_path, offline=True, console=console, simulated_plan=TINY_SCAN, loop_plan=TINY_LOOP)
    demo.run()
    report = json.loads((tmp_path / "report.json").read_text())

    frames = report["frames"]
    assert frames["sent"] == frames["received"] == frames["stitched"] == TINY_SCAN.frames
    assert frames["pending"] == frames["missed"] == sum(frames["dropped"].values()) == 0
    assert report["heldout_frames"] + report["training_frames"] < TINY_SCAN.frames
    assert report["training_frames"] > 50
    assert report["pearson_heldout"] > 0.4
    assert 0 < report["latency_ms"]["p50"] <= report["latency_ms"]["p95"] <= report["latency_ms"]["p99"]
    assert report["engine"] and report["model_version"] and report["versions"]["ptychostream"]

    loop = report["loop"]
    names = ["letters_0001", "raised_0002"]
    assert [scan["scan"] for scan in loop["scans"]] == names
    assert [scan["stitched"] for scan in loop["scans"]] == [0, 150], "the first scan found no model"
    assert [scan["no_model"] for scan in loop["scans"]] == [150, 0]
    assert all(scan["lost"] == 0 for scan in loop["scans"])
    assert loop["model_versions"] == names, "each scan was beyond so strict a tolerance, and trained a model"
    assert [(entry["scan"], entry["version"]) for entry in loop["ssim"]] == [(names[1], names[0])]
    assert [change["state"] for change in loop["policy"]] == ["Bootstrap", "Active"]
    assert loop["corpus_pairs"] == 300
    journal = read_journal(next(tmp_path.rglob("journal.sqlite")))
    begun = [scan.result("reconstruct") for scan in journal.scans]
    assert [made and made["warm_start"] for made in begun] == [[], ["canvas", "probe"]]
    assert len(loop["push_seconds"]) == 2 and all(0 < seconds < 300 for seconds in loop["push_seconds"])

    for name in ("figure.png", "loop.png", "loop_images.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "report.html").read_text()
    assert f"{TINY_SCAN.frames} of {TINY_SCAN.frames}" in page and page.count("data:image/png;base64,") == 3
    lines = told.getvalue()
    for line in (
        "caproto-monitor ptycho:NN1:FramesStitched_RBV",
        "p4p.client.cli monitor ptycho:NN1:ArrayRate_RBV",
        "caput ptycho:NN1:Agent:Tolerance 0.01",
        "caput bl:Sample raised",
        "policy: mismatch",
    ):
        assert line in lines
    assert lines.count(f"http://127.0.0.1:{demo.page_port}/") == 2, "the page is told beside the scan and the loop"
    assert not processes_of(tmp_path)


@pytest.mark.timeout(600)
def test_the_loop_alone_ends_cleanly_when_it_is_stopped(tmp_path: Path) -> None:
    words = ["demo", "--loop", "--json", "-o", str(tmp_path)]
    with (
        (tmp_path / "stderr").open("w+b") as stderr,
        subprocess.Popen(
            [sys.executable, "-m", "ptychostream", *words],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        ) as demo,
    ):
        deadline = time.monotonic() + 240
        while "policy: no model is live" not in (tmp_path / "stderr").read_text():
            assert demo.poll() is None and time.monotonic() < deadline, (tmp_path / "stderr").read_text()
            time.sleep(0.2)
        demo.send_signal(signal.SIGINT)
        printed, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, (tmp_path / "stderr").read_text()
    report = json.loads(printed)
    assert report == json.loads((tmp_path / "report.json").read_text())
    assert report["ssim_heldout"] is None, "no scan was judged"
    assert [scan["lost"] for scan in report["loop"]["scans"]] == [0]
    assert report["frames"]["dropped"]["NoModel"] == report["frames"]["sent"] > 0
    assert re.search("stopped; the report", (tmp_path / "stderr").read_text())
    assert not processes_of(tmp_path)


def answer(address: str) -> bytes:
    """What a browser gets."""
    with urllib.request.urlopen(address, timeout=20) as got:
        body: bytes = got.read()
    return body


@pytest.mark.timeout(600)
def test_the_page_shows_the_loop_until_the_demonstration_is_stopped(tmp_path: Path) -> None:
    """`demo --web`, without the scan before the loop: page, script, state and image as a browser fetches them."""
    words = ["demo", "--quick", "--web", "-o", str(tmp_path / "out")]
    told = tmp_path / "told"
    with (
        told.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "ptychostream", *words], stdout=output, stderr=output, start_new_session=True
        ) as demo,
    ):

        def until(condition: Callable[[], Any], what: str, timeout_s: float = 240.0) -> Any:
            deadline = time.monotonic() + timeout_s
            while not (found := condition()):
                assert demo.poll() is None and time.monotonic() < deadline, f"{what}:\n{told.read_text()}"
                time.sleep(0.2)
            return found

        address = until(lambda: re.search(r"http://127\.0\.0\.1:\d+/", told.read_text()), "the page's address")[0]
        page = answer(address).decode()
        for path in re.findall(r'(?:src|href)="(page/[^"]+)"', page):
            assert answer(f"{address}{path}"), path
        assert "page/main.js" in page

        def running() -> dict[str, Any]:
            (ioc,) = json.loads(answer(f"{address}api/status?records=FramesReceived_RBV"))["iocs"]
            return dict(ioc) if ioc["records"].get("FramesReceived_RBV", {"value": 0})["value"] else {}

        shown = until(running, "frames of the loop's first scan")
        assert "Phase" in shown["images"]
        assert answer(f"{address}api/image.png?ioc={shown['ioc']}&image=Phase").startswith(b"\x89PNG")
        demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 0, told.read_text()
    assert "stopped; the report" in told.read_text()
    with pytest.raises(OSError, match="refused"):
        answer(address)
    assert not processes_of(tmp_path)


def test_a_child_that_fails_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        Child("ptychostream", ["replay", str(tmp_path / "absent.h5")], tmp_path / "replay.log") as child,
        pytest.raises(DemoError, match=r"replay.*absent\.h5"),
    ):
        child.wait(60)


def test_leaving_ends_a_child(tmp_path: Path) -> None:
    with Child("http.server", ["0", "--bind", "127.0.0.1"], tmp_path / "server.log") as child:
        assert child.running()
    assert not child.running()


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from ptychostream.demo.processes import Child\n"
        "folder = Path(sys.argv[1])\n"
        "child = Child('http.server', ['0', '--bind', '127.0.0.1', '-d', str(folder)], folder / 'server.log')\n"
        "while b'Serving' not in (folder / 'server.log').read_bytes(): time.sleep(0.05)\n"
        "print('up', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "up\n"
        parent.kill()
    deadline = time.monotonic() + 20
    while processes_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not processes_of(tmp_path)
