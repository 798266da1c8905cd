"""The sources of a virtual data set: each is opened once, and before the first of its frames is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ptychostream.scans.scan_hdf5 import checked_dataset
from ptychostream.storage import hdf5_virtual
from ptychostream.storage.hdf5_virtual import VirtualFrames

FRAMES = 60


def written(folder: Path, bounds: list[tuple[int, int]]) -> Path:
    """A virtual data set of sources that lie at these frames; some may overlap."""
    layout = h5py.VirtualLayout((FRAMES, 2, 3), np.uint16)
    for number, (start, stop) in enumerate(bounds):
        name = f"part{number}.h5"
        with h5py.File(folder / name, "w") as file:
            file["data"] = np.arange(start, stop, dtype=np.uint16)[:, None, None] + np.zeros((1, 2, 3), np.uint16)
        layout[start:stop] = h5py.VirtualSource(name, "data", (stop - start, 2, 3))
    with h5py.File(folder / "master.h5", "w") as file:
        file.create_virtual_dataset("data", layout)
    return folder / "master.h5"


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 20)), min_size=1, max_size=6), data=st.data())
def test_a_read_opens_the_sources_of_its_frames_and_no_other(
    parts: list[tuple[int, int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    bounds = [(start, min(start + length, FRAMES)) for start, length in parts]
    path = written(tmp_path_factory.mktemp("virtual"), bounds)
    opened: list[str] = []
    with h5py.File(path) as file, pytest.MonkeyPatch.context() as patch:
        frames = VirtualFrames(file["data"], str(path))
        patch.setattr(hdf5_virtual, "_check_part", lambda source, *_: opened.append(source.file))
        wanted: set[str] = set()
        for _ in range(4):
            first, last = sorted(data.draw(st.tuples(st.integers(0, FRAMES - 1), st.integers(0, FRAMES - 1))))
            key: Any = slice(first, last + 1, data.draw(st.sampled_from([1, 3])))
            frames[key]
            chosen = range(FRAMES)[key]
            wanted |= {
                f"part{number}.h5"
                for number, (start, stop) in enumerate(bounds)
                if start <= chosen[-1] and chosen[0] < stop
            }
            assert set(opened) == wanted
            assert len(opened) == len(set(opened))


def test_the_sources_are_listed_twice_at_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to check that all are there, once to read them: a listing of a thousand takes a tenth of a second."""
    path = written(tmp_path, [(0, 30), (30, FRAMES)])
    listed, real = [], h5py.Dataset.virtual_sources

    def count(dataset: h5py.Dataset) -> Any:
        listed.append(dataset.name)
        return real(dataset)

    monkeypatch.setattr(h5py.Dataset, "virtual_sources", count)
    with h5py.File(path) as file:
        frames = VirtualFrames(checked_dataset(file["data"], str(path)), str(path))
        assert frames[59][0, 0] == 59
    assert len(listed) == 2
