"""Which files a client may name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ptychostream.errors import ConfigError
from ptychostream.storage.roots import folders_of, inside


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "deep" / "scan.h5").write_text("")
    (tmp_path / "secret").write_text("")
    return tmp_path / "root"


def test_a_file_within_a_folder_is_resolved(root: Path) -> None:
    (root / "link").symlink_to("deep/scan.h5")
    for name in ("deep/scan.h5", "deep/../deep/scan.h5", "link", "to/be/made"):
        found = inside(str(root / name), [root.parent / "other", root], "RouteFile", "access.roots")
        assert found.is_relative_to(root.resolve()) and not found.is_symlink()


@pytest.mark.parametrize("name", ["../secret", "link", "/etc/hostname", "deep/../../secret", "loop", "x\0y"])
def test_nothing_is_followed_out_of_the_folders(root: Path, name: str) -> None:
    (root / "link").symlink_to(root.parent / "secret")
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(ConfigError) as refused:
        inside(str(root / name), [root], "RouteFile", "access.roots")
    assert refused.value.where == "RouteFile" and refused.value.remedy


def test_a_pipe_is_no_file(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(ConfigError, match="neither a file nor a folder"):
        inside(str(root / "pipe"), [root], "RouteFile", "access.roots")


def test_without_folders_nothing_can_be_named(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(none\)"):
        inside(str(root / "deep"), [], "RouteFile", "access.roots")


@pytest.mark.slow
@given(st.lists(st.sampled_from(["..", "deep", "link", ".", "secret", "a"]), max_size=6))
def test_whatever_is_accepted_lies_within(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    root = tmp_path_factory.getbasetemp() / "prop" / "root"
    (root / "deep").mkdir(parents=True, exist_ok=True)
    if not (root / "deep" / "link").is_symlink():
        (root / "deep" / "link").symlink_to(root.parent)
    try:
        found = inside(str(root.joinpath(*parts)), [root], "x", "y")
    except ConfigError:
        return
    assert Path(os.path.realpath(found)).is_relative_to(root.resolve())


def test_the_folders_of_what_is_configured(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert folders_of([root / "deep" / "scan.h5", root / "deep", None]) == (root, (root / "deep").resolve())
    monkeypatch.chdir("/")
    assert folders_of([None]) == ()
