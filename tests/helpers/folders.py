"""The folders that tests need: the repository, helper scripts, recorded streams, fuzzing finds."""

from __future__ import annotations

from pathlib import Path

HELPERS = Path(__file__).resolve().parent
"""Scripts that tests start by path. A child process that imports a helper needs this folder on its PYTHONPATH."""
TESTS = HELPERS.parent
ROOT = TESTS.parent
CORPUS = TESTS / "corpus"
FUZZ_FOUND = TESTS / "fuzz" / "found"
