"""Which build of torch the set-up takes: decision and installation with fakes, the index over a socket."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT


@pytest.fixture(scope="module")
def setup() -> Any:
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        return importlib.import_module("setup_environment")
    finally:
        sys.path.remove(str(ROOT / ".ci"))


def must_not_ask() -> bool:
    raise AssertionError("the CPU index was asked although the answer does not matter")


@pytest.mark.parametrize(
    ("asked", "linux", "driver", "answers", "source"),
    [
        ("auto", True, False, lambda: True, "cpu"),
        ("auto", True, False, lambda: False, "index"),
        ("auto", True, True, must_not_ask, "index"),
        ("auto", False, False, must_not_ask, "index"),
        ("cpu", True, True, must_not_ask, "cpu"),
        ("cuda", True, False, must_not_ask, "index"),
        ("index", True, False, must_not_ask, "index"),
    ],
)
def test_the_source_of_torch(
    setup: Any, asked: str, linux: bool, driver: bool, answers: Callable[[], bool], source: str
) -> None:
    choice = setup.choose(asked, linux, driver, answers)
    assert choice.source == source
    assert choice.reason
    assert choice.may_fall_back == (asked == "auto" and source == "cpu")


@contextmanager
def index(status: int, gate: threading.Event) -> Iterator[str]:
    """An index that gives `status` once `gate` is set."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            gate.wait(30)
            self.send_response(status if self.path == "/whl/cpu/torch/" else 404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/whl/cpu"
    finally:
        gate.set()
        server.shutdown()
        serving.join(30)
        server.server_close()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.slow
@pytest.mark.parametrize(("status", "answers"), [(200, True), (403, False), (404, False)])
def test_an_index_answers_with_its_page_of_torch(setup: Any, status: int, answers: bool) -> None:
    gate = threading.Event()
    gate.set()
    with index(status, gate) as url:
        assert setup.index_answers(url, 30.0) is answers


def test_an_index_that_keeps_silent_does_not_answer(setup: Any) -> None:
    with index(200, threading.Event()) as url:
        assert setup.index_answers(url, 0.2) is False


def test_no_index_at_all(setup: Any) -> None:
    assert setup.index_answers("http://127.0.0.1:1/whl/cpu", 30.0) is False
    assert setup.index_answers("no address", 30.0) is False


@dataclass
class FakeEnvironment:
    """An environment whose package index gives `gives`; the CPU index gives a CPU build or fails."""

    gives: tuple[str, str] = ("2.13.0", "13.0")
    cpu_index_works: bool = True
    installed: tuple[str, str] = ("", "")
    removed: bool = False
    asked: list[tuple[str, ...]] = field(default_factory=list)
    hashed_lines: list[str] = field(default_factory=list)

    def resolve(self, *_words: str) -> list[tuple[str, str]]:
        return [("numpy", "2.2.6")] + ([] if self.installed[0] else [("torch", self.gives[0])])

    def hashed(self, lines: list[str]) -> None:
        self.hashed_lines += lines
        if any(line.startswith("torch==") for line in lines):
            self.installed = self.gives

    def create(self) -> None:
        pass

    def torch(self) -> tuple[str, str]:
        return self.installed

    def remove_torch(self) -> None:
        self.installed, self.removed = ("", ""), True

    def pip(self, *words: str) -> None:
        self.asked.append(words)
        if "--index-url" in words:
            if not self.cpu_index_works:
                raise subprocess.CalledProcessError(1, ["pip"])
            self.installed = ("2.13.0+cpu", "")
        elif "torch==2.13.0+cpu" in words:
            self.installed = self.gives


@pytest.fixture
def no_driver(setup: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setup.sys, "platform", "linux")
    monkeypatch.setattr(setup, "has_nvidia_driver", lambda: False)
    monkeypatch.setattr(setup, "index_answers", lambda: True)


@pytest.mark.usefixtures("no_driver")
def test_the_cpu_build_comes_first_and_the_rest_after_it(setup: Any) -> None:
    environment = FakeEnvironment()
    choice = setup.install(environment, "auto", ["--editable", "."])
    assert choice.source == "cpu" and environment.installed == ("2.13.0+cpu", "")
    first, then = environment.asked
    assert first[-1] == "torch" and "--no-deps" in first and setup.CPU_INDEX in first
    assert then == ("install", "--no-deps", "--editable", ".")
    (line,) = environment.hashed_lines
    assert line.startswith("numpy==2.2.6 --hash=sha256:")


@pytest.mark.usefixtures("no_driver")
def test_a_cpu_index_that_fails_after_it_answered_is_passed_over(setup: Any) -> None:
    environment = FakeEnvironment(cpu_index_works=False)
    choice = setup.install(environment, "auto", ["."])
    assert choice.source == "index" and "did not give torch" in choice.reason
    assert environment.installed == ("2.13.0", "13.0")
    with pytest.raises(subprocess.CalledProcessError):
        setup.install(FakeEnvironment(cpu_index_works=False), "cpu", ["."])


@pytest.mark.usefixtures("no_driver")
def test_a_build_that_is_asked_for_by_name_replaces_the_other(setup: Any) -> None:
    environment = FakeEnvironment(installed=("2.13.0", "13.0"))
    setup.install(environment, "cpu", ["."])
    assert environment.removed and environment.installed == ("2.13.0+cpu", "")
    kept = FakeEnvironment(installed=("2.13.0", "13.0"))
    setup.install(kept, "index", ["."])
    assert not kept.removed


@pytest.mark.usefixtures("no_driver")
def test_only_builds_with_a_label_are_taken_without_a_hash(setup: Any, capsys: pytest.CaptureFixture[str]) -> None:
    environment = FakeEnvironment(gives=("2.13.0+cpu", ""))
    setup.install(environment, "index", ["."])
    assert ("install", "--no-deps", "torch==2.13.0+cpu") in environment.asked
    assert "no hash is known" in capsys.readouterr().out
    plain = FakeEnvironment()
    setup.install(plain, "index", ["."])
    assert any(line.startswith("torch==2.13.0 --hash=sha256:") for line in plain.hashed_lines)
    with pytest.raises(setup.SetupError, match=r"no hash is known of torch 9\.9: write hashes.txt anew"):
        setup.install(FakeEnvironment(gives=("9.9", "")), "index", ["."])


@pytest.mark.usefixtures("no_driver")
def test_an_index_without_a_cuda_build_is_an_error_if_cuda_was_asked_for(setup: Any) -> None:
    with pytest.raises(setup.SetupError, match=r"TORCH=cuda, but torch 2\.13\.0\+cpu has no CUDA: use TORCH=index"):
        setup.install(FakeEnvironment(gives=("2.13.0+cpu", "")), "cuda", ["."])


def test_it_says_what_was_taken_why_and_what_it_weighs(setup: Any) -> None:
    reason = setup.Choice("index", "no NVIDIA driver, but it did not answer")
    small = setup.describe("2.13.0+cpu", "", setup.Choice("cpu", "no NVIDIA driver"), 790.0, 2190.0, False)
    assert small == "torch 2.13.0+cpu, CPU build, from PyTorch's CPU index (no NVIDIA driver): 790 MB of 2190 MB"
    large = setup.describe("2.13.0", "13.0", reason, 4200.0, 6200.0, False)
    assert large.startswith("torch 2.13.0, CUDA 13.0 build, from the package index (no NVIDIA driver, but")
    assert "4200 MB of 6200 MB" in large and "make install TORCH=cpu" in large
    assert "TORCH=cpu" not in setup.describe("2.13.0", "13.0", reason, 4200.0, 6200.0, True)


def test_sizes_are_those_of_the_files(setup: Any, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(b"x" * 1_500_000)
    (tmp_path / "c").write_bytes(b"x" * 500_000)
    assert setup.megabytes(tmp_path) == pytest.approx(2.0)
    assert setup.megabytes(tmp_path / "none") == 0
