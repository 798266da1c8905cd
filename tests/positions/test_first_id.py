"""Positions by frame index: whatever id a scan's first frame has, it has the first position."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ptychostream.errors import DropCause
from ptychostream.frames.frames import Frame
from ptychostream.plugins.flow.batcher import Batcher
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.positions.positions import PositionSource, RoutePositions, WaveformPositions

COUNT = 6
X = np.arange(COUNT, dtype=float)


def waveform(first_id: int | None, late: bool) -> WaveformPositions:
    source = WaveformPositions(first_id=first_id)
    if not late:
        source.update(X, -X)
    return source


def route(folder: Path, first_id: int | None) -> RoutePositions:
    path = folder / "route.csv"
    path.write_text("x,y\n" + "".join(f"{x},{-x}\n" for x in X), encoding="ascii")
    return RoutePositions(path, first_id=first_id)


def places(source: PositionSource, scans: dict[str, range], late: bool = False) -> dict[str, list[float]]:
    """x of the placed frames of each scan, in order; the ids of each are as they are sent."""
    flow = FrameFlow(source, 100, Batcher(1000, 0.0, 1000), BoundarySettings())
    found: dict[str, list[float]] = {}
    for scan, ids in scans.items():
        for number in ids:
            flow.submit(Frame(scan, number, 1.7e9 + number, np.ones((2, 2), np.uint16)), float(number))
        if late and isinstance(source, WaveformPositions):
            source.update(X, -X, complete=True)
            flow.poll(100.0)
        flow.batcher.flush()
        flow.take(1e9)
        found[scan] = [placed.x_m for placed in flow.in_flight]
        flow.land(len(flow.in_flight), [])
        assert flow.ledger.dropped[DropCause.NO_POSITION] == flow.ledger.received - flow.ledger.stitched - flow.pending
    assert flow.holds
    return found


@pytest.mark.parametrize("first", [0, 1, 374, 2**31 - 3])
@pytest.mark.parametrize("kind", ["waveform", "late waveform", "route"])
def test_the_scans_first_frame_has_the_first_position(tmp_path: Path, kind: str, first: int) -> None:
    late = kind == "late waveform"
    source = route(tmp_path, None) if kind == "route" else waveform(None, late)
    one, two = range(first, first + COUNT), range(first + COUNT, first + 2 * COUNT)
    assert places(source, {"one": one}, late) == {"one": X.tolist()}
    source = route(tmp_path, None) if kind == "route" else waveform(None, late=False)
    assert places(source, {"one": one, "two": two}) == {"one": X.tolist(), "two": X.tolist()}


@pytest.mark.parametrize("kind", ["waveform", "route"])
def test_an_id_that_is_given_holds_for_every_scan(tmp_path: Path, kind: str) -> None:
    source = route(tmp_path, 1) if kind == "route" else waveform(1, late=False)
    found = places(source, {"one": range(1, 7), "two": range(3, 9)})
    assert found == {"one": X.tolist(), "two": X[2:].tolist()}


def test_a_frame_of_before_the_first_has_no_position() -> None:
    assert places(waveform(None, late=False), {"one": [11, 10, 12]}) == {"one": [0.0, 1.0]}  # type: ignore[dict-item]
