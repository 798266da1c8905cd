"""hashes.txt: every version of constraints.txt has hashes, and a file with another one is refused by pip."""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from folders import ROOT


@pytest.fixture(scope="module")
def hashes() -> Any:
    sys.path.insert(0, str(ROOT / ".ci"))
    try:
        return importlib.import_module("hashes")
    finally:
        sys.path.remove(str(ROOT / ".ci"))


ONE, TWO = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"


def test_both_spellings_of_pip_are_read(hashes: Any) -> None:
    text = (
        f"# comment\nA_b==1.0 \\\n    --hash={TWO} \\\n    --hash={ONE}\nc==2; python_version < '3.11' --hash={ONE}\n"
    )
    assert hashes.parse(text) == {("a-b", "1.0"): [ONE, TWO], ("c", "2"): [ONE]}
    assert hashes.parse(hashes.line_of(("c", "2"), [ONE, TWO])) == {("c", "2"): [ONE, TWO]}


def test_every_version_that_is_named_has_hashes(hashes: Any) -> None:
    constraints, known = (ROOT / "constraints.txt").read_text(), (ROOT / "hashes.txt").read_text()
    assert len(hashes.named(constraints)) > 100
    assert hashes.without_hash(constraints, known) == [], "make constraints"
    assert hashes.without_hash("new==1.0\n", known) == [("new", "1.0")]


def wheel(folder: Path, content: str) -> Path:
    """A package without anything but a version."""
    path = folder / "tiny_thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("tiny_thing.py", content)
        file.writestr("tiny_thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0\n")
        file.writestr(
            "tiny_thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("tiny_thing-1.0.dist-info/RECORD", "")
    return path


@pytest.mark.server
def test_a_file_that_was_changed_is_not_installed(hashes: Any, tmp_path: Path) -> None:
    pytest.importorskip("pip")
    good = wheel(tmp_path, "")
    line = hashes.line_of(("tiny-thing", "1.0"), [f"sha256:{hashlib.sha256(good.read_bytes()).hexdigest()}"])
    (tmp_path / "wanted.txt").write_text(line)
    words = ["install", "--require-hashes", "--no-deps", "--no-index", "--find-links", str(tmp_path), "--no-cache-dir"]

    def install(to: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "pip",
            *words,
            "--target",
            str(tmp_path / to),
            "-r",
            str(tmp_path / "wanted.txt"),
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = install("one")
    assert done.returncode == 0 and (tmp_path / "one" / "tiny_thing.py").exists(), done.stderr
    wheel(tmp_path, "print('changed')")
    done = install("two")
    assert done.returncode != 0 and "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "two").exists()
