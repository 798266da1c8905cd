"""The step takes the edge's refined result in place of a reconstruction, or reconstructs and says why it did not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refine_case import SIZE, case
from step_helpers import of

from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.steps import reconstruct_step
from ptychostream.hpc_agent.steps.label_step import label_step
from ptychostream.reconstruct.patterns import Patterns
from ptychostream.scans.reconstruction_file import read_reconstruction, write_reconstruction
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.slow

FRAMES = 118  # the edge dropped two


@pytest.fixture
def place(tmp_path: Path) -> Path:
    one = case()
    write_scan(tmp_path / "0.h5", one.scan)
    refiner = one.refiner()
    good = np.ones((SIZE, SIZE), np.bool_)
    for counts, (x, y) in zip(one.scan.counts[:FRAMES], one.scan.positions_m.tolist(), strict=False):
        refiner.add(counts, good, (x, y))
    refiner.guide(one.network)
    refiner.passes(100)
    told = {"converged": True, "saved_s": 4e9}
    write_reconstruction(tmp_path / "refined.h5", refiner.reconstruction(one.scan.scan_id, told))
    return tmp_path


def reconstructed(place: Path, found: dict[str, str] | None, **options: Any) -> dict[str, Any]:
    return reconstruct_step.reconstruct_step(
        **of(place), folder=str(place / "made"), options={"iterations": 5, **options}, refined=found
    )


def test_it_is_taken_labelled_and_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconstruct_step, "reconstruct", lambda *_, **__: pytest.fail("it was reconstructed"))
    file = str(place / "refined.h5")
    made = reconstructed(place, {"file": file})
    assert (made["refined"], made["refined_refused"], made["diverged"]) == (file, "", False)
    assert Path(made["picture"]).read_bytes().startswith(b"\x89PNG")
    assert reconstructed(place, {"file": file}) == made, "done twice"
    labels = label_step(**of(place), reconstruction=made["reconstruction"], corpus=str(place / "corpus"), options={})
    assert labels["pairs"] == FRAMES, "labels of frames that the edge did not refine"
    shard = CorpusStore(place / "corpus").shards()[0]
    assert shard.provenance["engine"] == "refined live"


def test_where_it_is_refused_the_scan_is_reconstructed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings, read = [0], Patterns.read

    def counted(*arguments: Any) -> Patterns:
        readings[0] += 1
        return read(*arguments)

    monkeypatch.setattr(Patterns, "read", counted)
    made = reconstructed(place, {"file": str(place / "refined.h5")}, refined={"frames": 0.999})
    assert made["refined"] == "" and "118 of 120 frames" in made["refined_refused"]
    assert read_reconstruction(made["reconstruction"]).engine == "epie" and made["iterations"] == 5
    assert readings == [1], "the scan's patterns were read twice"
    assert reconstructed(place, {"reason": "the edge does not refine"}, seed=1)["refined_refused"] == (
        "the edge does not refine"
    )
    missing = reconstructed(place, {"file": str(place / "none.h5")}, seed=2)
    assert not missing["refined"] and "no such file" in missing["refined_refused"]
    binned = reconstructed(place, {"file": str(place / "refined.h5")}, bin=2)
    assert not binned["refined"] and "bin" in binned["refined_refused"]
    off = reconstructed(place, None, seed=3)
    assert (off["refined"], off["refined_refused"]) == ("", "")
