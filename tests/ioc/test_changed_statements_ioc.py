"""A live stream in which one statement changes in the middle of a scan: the same picture, or a record names it.

For files the same stands in `tests/scans/layouts/test_changed_statements.py` and `tests/scans/test_what_files_say.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import Detector
from numpy.typing import NDArray
from tiny_model import tiny_contract, tiny_graph

from ptychostream.demo.pvs import Pvs
from ptychostream.imaging.phase_image import canvas_part
from ptychostream.model.model_file import write_model

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]

P, CHANNEL = "cs:", "det:Pva1:Image"
HALF = 15
FIRST = {"attributes": {"BitDepth": 8, "Energy": 10.0}}
"""What the first half of every scan says, beside what is usual."""


class Rig:
    def __init__(self, env: EpicsEnv, detector: Detector, frame: Path) -> None:
        self.env, self.detector, self.frame = env, detector, frame
        self._numbers = itertools.count(1)
        self._pvs = Pvs(P, env.epics)

    def get(self, *names: str) -> dict[str, Any]:
        """Records, all of them in one request."""
        return dict(zip(names, self._pvs.get(*names, timeout_s=15.0), strict=True))

    def dropped(self) -> dict[str, int]:
        found = self.get(*(f"Dropped{cause}_RBV" for cause in CAUSES))
        return {cause: int(number) for cause, number in zip(CAUSES, found.values(), strict=True)}

    def scan(
        self, change: dict[str, Any], record: str = "", words: str = ""
    ) -> tuple[NDArray[np.float32], dict[str, int], dict[str, str]]:
        """A scan whose second half says `change`: its picture, how many frames were dropped by cause, what is told.

        `record` must say `words` in the end.
        """
        number = next(self._numbers)
        name, before = f"scan {number}", self.dropped()
        (sent,) = self.get("FramesReceived_RBV").values()
        plain = {"scan": name, "count": HALF, "file": str(self.frame), "first": 1000 * number, "rate": 200, **FIRST}
        self.detector.send(**plain)
        changed = {**plain, "begin": HALF, **change}
        changed["first"] += changed.pop("shift", 0)
        changed["attributes"] = {**FIRST["attributes"], **change.get("attributes", {})}
        self.detector.send(**changed)
        wait_until(lambda: self.get("FramesReceived_RBV")["FramesReceived_RBV"] == sent + 2 * HALF, 15, "the frames")
        names = ("Contradiction_RBV", "ContradictionTime_RBV", "StatusMessage_RBV", "PositionMessage_RBV")
        told: dict[str, str] = {}

        def said() -> bool:
            told.update(self.get(*names))
            return not record or words in told[record]

        wait_until(said, 15, lambda: f"{words} in {record}: {told}")
        self.env.caput(P + "EndScan", 1)
        dropped = {cause: number - before[cause] for cause, number in self.dropped().items()}
        assert self.get("AccountingError_RBV") == {"AccountingError_RBV": 0}
        return self._picture(name), {cause: number for cause, number in dropped.items() if number}, told

    def _picture(self, scan: str) -> NDArray[np.float32]:
        last: list[Any] = []

        def shown() -> bool:
            last[:] = [self.env.pvget(P + "Phase")]
            return attributes(last[0])["ScanID"] == scan

        wait_until(shown, 20, lambda: f"the phase of {scan}: {attributes(last[0])}")
        (image,) = last
        columns, rows = (dimension.size for dimension in image.dimension)
        return np.asarray(image.value).reshape(rows, columns)[canvas_part(attributes(image))]


CAUSES = ("Codec", "Type", "Shape", "Duplicate", "NoPosition", "Late", "NotMeasured", "Contradiction", "Unselected")


def attributes(image: Any) -> dict[str, Any]:
    return {one.name: one.value for one in image.attribute}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("changed")
    model, frame = folder / "m.onnx", folder / "frame.npy"
    np.save(frame, np.random.default_rng(4).poisson(6.0, (16, 16)).astype(np.uint8))
    write_model(model, tiny_graph(gain=0.01), tiny_contract(gain=0.01, name="m").model_copy(update={"energy_ev": 1e4}))
    words = ("--prefix", P, "--input-pv", CHANNEL, "--model", str(model), "--engine", "ONNXRuntime")
    words += ("--energy-attribute", "Energy", "--energy-unit", "keV")
    with EpicsEnv() as env, Detector(env, CHANNEL) as detector, env.start_ioc(*words, wait="ready") as ioc:
        yield Rig(env, detector, frame)
        assert ioc.stop() == 0, ioc.output
        assert "Traceback" not in ioc.output


@pytest.fixture(scope="module")
def expected(rig: Rig) -> NDArray[np.float32]:
    """The picture of a scan that says one thing."""
    picture, dropped, told = rig.scan({})
    assert not dropped and not told["Contradiction_RBV"]
    assert np.isfinite(picture).any()
    return picture


DROPPED: list[tuple[str, dict[str, Any], str, str, str]] = [
    ("offset", {"dimension": {"offset": 6}}, "Contradiction", "Contradiction_RBV", "offset says 6 px"),
    ("binning", {"dimension": {"binning": 2}}, "Contradiction", "Contradiction_RBV", "binning says 2"),
    ("reverse", {"dimension": {"reverse": True}}, "Contradiction", "Contradiction_RBV", "reverse says True"),
    ("wider type", {"dtype": "uint32"}, "Contradiction", "Contradiction_RBV", "value says uint32"),
    ("signed type", {"dtype": "int8"}, "Contradiction", "Contradiction_RBV", "value says int8"),
    ("float type", {"dtype": "float32"}, "Type", "StatusMessage_RBV", "float32"),
    ("lossy codec", {"codec": "jpeg"}, "Contradiction", "Contradiction_RBV", "codec.name says jpeg"),
    ("energy", {"attributes": {"Energy": 12.4}}, "Contradiction", "Contradiction_RBV", "energy attribute says 12400"),
    ("size", {"dimension": {"size": 15}}, "Shape", "StatusMessage_RBV", "15 × 15"),
    ("no place", {"attributes": {"PositionX": float("nan")}}, "NoPosition", "PositionMessage_RBV", "nan"),
    ("a text for a place", {"attributes": {"PositionX": "far"}}, "NoPosition", "PositionMessage_RBV", "PositionX"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "cause", "record", "words"), [row[1:] for row in DROPPED], ids=[row[0] for row in DROPPED]
)
def test_frames_that_say_otherwise_are_dropped_and_the_statement_is_named(
    rig: Rig, expected: NDArray[np.float32], change: dict[str, Any], cause: str, record: str, words: str
) -> None:
    picture, dropped, told = rig.scan(change, record, words)
    assert dropped == {cause: HALF}
    assert bool(told["ContradictionTime_RBV"]) is (cause == "Contradiction")
    assert picture.shape != expected.shape or not np.array_equal(picture, expected)


KEPT: list[tuple[str, dict[str, Any], str]] = [
    ("another codec", {"codec": "lz4"}, "codec.name says lz4, but codec.name says none"),
    ("bit depth", {"attributes": {"BitDepth": 6}}, "bit depth attribute says 6 bit"),
    ("more bits than the type", {"attributes": {"BitDepth": 16}}, "bit depth attribute says 16 bit"),
    ("size of the sensor", {"dimension": {"fullSize": 4096}}, ""),
    ("an attribute that nobody reads", {"attributes": {"Operator": "somebody"}}, ""),
    ("the same energy", {"attributes": {"Energy": 10.05}}, ""),
    ("ids that begin anew", {"shift": -HALF}, ""),
    ("a clock that is an hour ahead", {"clock_s": 3600.0}, ""),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in KEPT], ids=[row[0] for row in KEPT])
def test_frames_whose_counts_mean_the_same_give_the_same_picture(
    rig: Rig, expected: NDArray[np.float32], change: dict[str, Any], words: str
) -> None:
    picture, dropped, told = rig.scan(change)
    assert not dropped, told
    np.testing.assert_array_equal(picture, expected)
    assert words in told["Contradiction_RBV"] and bool(words) is bool(told["Contradiction_RBV"])
    assert bool(told["ContradictionTime_RBV"]) is bool(words)
