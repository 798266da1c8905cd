"""The IOC as its clients see it: one real process, clients of three kinds over CA and PVA, a detector of its own."""

from __future__ import annotations

import json
import math
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process, wait_until
from ioc_helpers import Detector, record_list, run_python, wait_for
from p4p.client.thread import RemoteError
from tiny_model import write_tiny

from ptychostream.errors import DropCause
from ptychostream.imaging.phase_image import canvas_part
from ptychostream.plugins.stage_times import Stage
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan import Reconstruction

pytestmark = pytest.mark.server

P = "nn:"
CHANNEL = "det:Pva1:Image"
GAIN = 0.01
UNKNOWN = {
    "Consistency_RBV", "RFactor_RBV",  # without a model that has a probe
    "SSIM_RBV", "SSIM1px_RBV", "Pearson_RBV", "SSIMRange_RBV", "CanaryDifference_RBV",  # nothing was compared
    "ScanProgress_RBV", "PositionCoverage_RBV",  # nobody said how many frames a scan has, or where they are
    "ClockOffsetEstimate_RBV", "ClockOffsetError_RBV",  # no stream of positions
    *(f"Image{edge}_RBV" for edge in ("Left", "Right", "Top", "Bottom")),  # no image
    *(f"Canvas{edge}_RBV" for edge in ("Left", "Top", "Width", "Height")),
    *(f"Refine:{name}_RBV" for name in ("Lag", "Change", "SSIM", "RTrend", "RFactor", "FRC")),  # nothing is refined
    *(f"Refine:Position{name}_RBV" for name in ("Rms", "Max", "Bound")),
    "SigmaMedian_RBV",  # no error is computed
    "MeanCounts_RBV", "ExecutionTime_RBV",  # no frame has come, as for what follows
    *(f"Latency{served}P{percent}_RBV" for served in ("", "Served") for percent in (50, 95, 99)),
    *(f"{stage.value}Time{percent}_RBV" for stage in Stage for percent in ("", "P99")),
    *(f"Refine:{edge}_RBV" for edge in ("Left", "Top", "Right", "Bottom")),
}  # fmt: skip
"""What an IOC cannot know at its start."""


class Rig:
    """The IOC under test, its detector and its folder."""

    def __init__(self, env: EpicsEnv, ioc: Process, detector: Detector, folder: Path) -> None:
        self.env, self.ioc, self.detector, self.folder = env, ioc, detector, folder

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def put(self, name: str, value: Any) -> None:
        self.env.caput(P + name, value)

    def put_text(self, name: str, text: str) -> None:
        """A long string: a waveform of characters."""
        self.env.caput(P + name, list(text.encode() + b"\0"))

    def wait(self, name: str, value: Any) -> None:
        wait_for(self.env, P + name, value)

    def scan(self, name: str, count: int, **order: Any) -> None:
        """Stream a scan, and end it once all of it has come."""
        received = self.get("FramesReceived_RBV")
        self.detector.send(scan=name, count=count, **order)
        self.wait("FramesReceived_RBV", received + count)
        self.put("EndScan", 1)

    def law(self) -> None:
        """The conservation law, from the records alone."""
        names = ["FramesStitched", "FramesPending", *(f"Dropped{cause.value}" for cause in DropCause)]
        assert self.get("FramesReceived_RBV") == sum(self.get(f"{name}_RBV") for name in names)
        assert self.get("Accounting_RBV") == 0


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("ioc")
    models = folder / "models"
    models.mkdir()
    write_tiny(models / "first.onnx", gain=GAIN, name="first")
    write_tiny(models / "second.onnx", gain=3 * GAIN, name="second")
    with EpicsEnv() as env, Detector(env, CHANNEL) as detector:
        options = {
            "--prefix": P,
            "--input-pv": CHANNEL,
            "--model": "first.onnx",
            "--models-dir": str(models),
            "--engine": "ONNXRuntime",
            "--engine-cache": str(folder / "cache"),
            "--batch": "4",
            "--phase-rate": "20",
        }
        with env.start_ioc(*(word for pair in options.items() for word in pair), wait="ready") as ioc:
            yield Rig(env, ioc, detector, folder)
            assert ioc.stop() == 0, ioc.output
            assert "Traceback" not in ioc.output


def test_every_record_answers_over_ca_and_pva(rig: Rig) -> None:
    groups = {group: records for group, records in record_list().items() if group not in ("gpu", "cluster")}
    names = [record["name"].removeprefix("P:") for records in groups.values() for record in records]
    assert len(groups) == len(record_list()) - 2
    answers = rig.env.pva.get([P + name for name in names], timeout=20)
    for name, answer in zip(names, answers, strict=True):
        assert name not in UNKNOWN or math.isnan(answer.value), name
        assert answer.display.description, name
    assert {name for name, one in zip(names, answers, strict=True) if one.alarm.severity == 3} == UNKNOWN
    for name in names:
        rig.env.caget(P + name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DoseScale", 2.5), ("SSIMTolerance", 0.25), ("MaxLatency", 12.0), ("PhaseRate", 19.0), ("BatchSize", 3),
        ("QueueSize", 1234), ("ScanFrames", 77), ("XAttribute", "Foo"), ("YAttribute", "Bar"), ("DoseMode", 1),
        ("EnableCallbacks", 0),
    ],
)  # fmt: skip
def test_a_setpoint_is_read_back_when_its_put_completes(rig: Rig, name: str, value: Any) -> None:
    before = rig.get(name)
    assert before != value
    rig.put(name, value)
    assert rig.get(f"{name}_RBV") == value
    rig.put(name, before)
    assert rig.get(f"{name}_RBV") == before
    rig.wait("Ready_RBV", 1)


def test_libca_reads_writes_and_waits_for_a_command(rig: Rig) -> None:
    code = (
        "import asyncio, json, sys, aioca\n"
        "async def main(p):\n"
        "    await aioca.caput(p + 'DoseScale', 4.0, wait=True)\n"
        "    scale = float(await aioca.caget(p + 'DoseScale_RBV'))\n"
        "    await aioca.caput(p + 'LoadModel', 1, wait=True, timeout=20)\n"
        "    state = str(await aioca.caget(p + 'ModelState_RBV', datatype=str))\n"
        "    text = str(await aioca.caget(p + 'ModelMessage_RBV', datatype=aioca.DBR_CHAR_STR))\n"
        "    await aioca.caput(p + 'DoseScale', 1.0, wait=True)\n"
        "    print(json.dumps([scale, state, text, int(await aioca.caget(p + 'LoadModel'))]))\n"
        "asyncio.run(main(sys.argv[1]))\n"
    )
    scale, state, text, command = json.loads(run_python(rig.env, code, P))
    assert (scale, state, command) == (4.0, "Live", 0)
    assert "first runs on ONNXRuntime" in text


def test_a_model_is_loaded_and_rolled_back_over_pva(rig: Rig) -> None:
    put = rig.env.pva.put
    put(P + "ModelFile", {"value": "second.onnx"}, request="record[block=true]")
    put(P + "LoadModel", {"value.index": 1}, request="record[block=true]", timeout=30)
    assert rig.get("ModelVersion_RBV") == "second"
    assert rig.get("PreviousModel_RBV") == "first"
    assert len(rig.get("ModelSHA_RBV")) == 64
    assert rig.get("ModelFile_RBV").endswith("second.onnx")
    put(P + "RollbackModel", {"value.index": 1}, request="record[block=true]", timeout=30)
    assert rig.get("ModelVersion_RBV") == "first"
    assert rig.get("ModelState_RBV") == 4


@pytest.mark.parametrize("path", ["nowhere.onnx", "../../etc/hostname", "x" * 300 + ".onnx"])
def test_a_refused_model_says_why_and_the_old_one_runs_on(rig: Rig, path: str) -> None:
    rig.put_text("ModelFile", path)
    rig.put("LoadModel", 1)
    assert rig.get("ModelState_RBV") == 5
    assert rig.get("ModelMessage_RBV").startswith("loading")
    assert rig.get("StatusMessage_RBV").startswith("refused")
    assert rig.get("ModelVersion_RBV") == "first"
    assert rig.env.pvget(P + "ModelState_RBV").alarm.severity == 1
    rig.put_text("ModelFile", "first.onnx")
    rig.put("LoadModel", 1)
    assert rig.get("ModelState_RBV") == 4


def test_a_scan_is_stitched_and_every_frame_accounted_for(rig: Rig) -> None:
    rig.put("ScanFrames", 10)
    rig.scan("s1", 10, value=3)  # 10 is no multiple of the batch
    assert rig.get("FramesPending_RBV") == 0
    assert rig.get("ScanProgress_RBV") == 100
    assert rig.get("ScanID_RBV") == "s1"
    assert rig.get("ScanActive_RBV") == 0
    assert rig.get("MeanCounts_RBV") == pytest.approx(3 * 256)
    assert (rig.get("ArraySizeX_RBV"), rig.get("DataType_RBV"), rig.get("UniqueId_RBV")) == (16, "uint16", 10)
    assert 0 < rig.get("LatencyP50_RBV") < 60_000
    rig.law()

    weight, phase = (rig.env.pvget(P + name) for name in ("Weight", "Phase"))
    assert phase.uniqueId == weight.uniqueId > 0
    columns, rows = (dimension.size for dimension in phase.dimension)
    assert columns == rows >= 16 + 4 * 4
    told = {attribute.name: attribute.value for attribute in phase.attribute}
    part = canvas_part(told)
    canvas = phase.value.reshape(rows, columns)[part]
    assert canvas.shape == (16 + 4, 16 + 4 * 4) == (rig.get("CanvasSizeY_RBV"), rig.get("CanvasSizeX_RBV"))
    assert phase.codec.name == ""
    np.testing.assert_allclose(phase.value, 3 * GAIN, atol=1e-4)
    assert weight.value.reshape(rows, columns)[part].min() >= 1
    assert np.count_nonzero(weight.value) == canvas.size
    assert told["ModelSHA"] == rig.get("ModelSHA_RBV")
    assert (told["ScanID"], told["FramesStitched"], told["LastFrameId"], told["ColorMode"]) == ("s1", 10, 10, 0)
    assert told["PixelSize"] == pytest.approx(10e-9)
    assert told["OriginX"] + told["CanvasLeft"] * told["PixelSize"] == pytest.approx(-8 * 10e-9)
    x_um, y_um = (rig.env.pvget(f"{P}Trajectory{axis}_RBV").value for axis in "XY")
    assert len(x_um) == len(y_um) == 10
    assert (np.ptp(x_um), np.ptp(y_um)) == pytest.approx((16 * 10e-3, 4 * 10e-3))
    patch, pattern = rig.env.pvget(P + "Patch"), rig.env.pvget(P + "Pattern")
    for shown in (patch, pattern):
        assert {attribute.name: attribute.value for attribute in shown.attribute}["LastFrameId"] == 10
    assert (pattern.value.dtype, set(pattern.value.tolist())) == (np.uint16, {3})


def test_what_is_not_known_is_shown_as_unknown(rig: Rig) -> None:
    """A detector whose clock is years off: no latency that begins at the detector is known, those within are."""
    errors = rig.get("ClockErrors_RBV")
    rig.scan("clock", 8, clock_s=-3e8)
    rig.wait("ClockErrors_RBV", errors + 8)
    for name in ("LatencyP50_RBV", "LatencyP99_RBV", "LatencyServedP95_RBV", "ArrivalTime_RBV"):
        shown = rig.env.pvget(P + name)
        assert (math.isnan(shown.value), shown.alarm.severity) == (True, 3), name
    shown = rig.env.pvget(P + "StitchTimeP99_RBV")
    assert (shown.value > 0, shown.alarm.severity) == (True, 0)


@pytest.mark.parametrize(("attribute", "scan"), [(247.0, "247"), (248, "248"), ("249.0", "249.0"), (250.5, "250.5")])
def test_a_whole_number_is_a_scan_id_without_a_decimal_point(rig: Rig, attribute: float | str, scan: str) -> None:
    rig.scan("x", 2, attributes={"ScanID": attribute})
    assert rig.get("ScanID_RBV") == scan


def test_a_text_that_is_cut_says_so(rig: Rig) -> None:
    rig.scan("s" * 60, 2)
    assert rig.get("ScanID_RBV") == "s" * 36 + "..."
    assert "s" * 60 in rig.get("KeptScans_RBV")


def test_pvapy_reads_the_image_and_unmeasured_pixels_are_told_by_weight(rig: Rig) -> None:
    rig.scan("holes", 2, value=5, columns=2, step_px=40)  # two patches, nothing between
    code = (
        "import json, sys, pvaccess as pva\n"
        "def read(name):\n"
        "    nt = pva.Channel(sys.argv[1] + name).get('')\n"
        "    attributes = {a['name']: a['value'][0]['value'] for a in nt['attribute']}\n"
        "    sizes = [d['size'] for d in nt['dimension']]\n"
        "    return [nt['uniqueId'], sizes, nt['value'][0]['floatValue'].tolist(), attributes['FillValue']]\n"
        "print(json.dumps([read('Phase'), read('Weight')]))\n"
    )
    (phase_id, sizes, phase, fill), (weight_id, _, weight, _) = json.loads(run_python(rig.env, code, P))
    assert phase_id == weight_id
    assert sizes[0] == sizes[1] >= 56
    measured = np.array(weight) > 0
    assert measured.sum() == 2 * 256
    np.testing.assert_allclose(np.array(phase)[measured], 5 * GAIN, atol=1e-4)
    np.testing.assert_allclose(np.array(phase)[~measured], fill)
    assert fill == pytest.approx(5 * GAIN, abs=1e-4)


def test_a_command_shows_1_while_it_works(rig: Rig) -> None:
    """ophyd-async sets a command and waits until it sees the value."""
    seen: list[int] = []
    watch = rig.env.pva.monitor(P + "EndScan", lambda value: seen.append(value.value.index), request="field(value)")
    code = (
        "import asyncio, sys, aioca\n"
        "async def main(pv):\n"
        "    seen = []\n"
        "    aioca.camonitor(pv, lambda value: seen.append(int(value)), all_updates=True, connect_timeout=20)\n"
        "    while not seen: await asyncio.sleep(0.01)\n"
        "    await aioca.caput(pv, 1, wait=True, timeout=20)\n"
        "    while seen[-1]: await asyncio.sleep(0.01)\n"
        "    print(*seen)\n"
        "asyncio.run(main(sys.argv[1]))\n"
    )
    wait_until(lambda: seen, 10, "the monitor")
    assert run_python(rig.env, code, P + "EndScan").split() == ["0", "1", "0"]
    wait_until(lambda: seen == [0, 1, 0], 10, lambda: f"1, then 0; seen {seen}")
    watch.close()


@pytest.mark.parametrize(("scan", "no", "yes"), [("told", 0, 1), ("told as text", "false", "true")])
def test_the_last_frame_may_say_that_it_is_the_last(rig: Rig, scan: str, no: int | str, yes: int | str) -> None:
    stitched = rig.get("FramesStitched_RBV")
    rig.detector.send(scan=scan, count=5, attributes={"ScanComplete": no})
    rig.wait("FramesStitched_RBV", stitched + 5)
    rig.wait("ScanActive_RBV", 1)  # records are written one after the other
    rig.detector.send(scan=scan, count=1, first=6, attributes={"ScanComplete": yes})
    rig.wait("FramesStitched_RBV", stitched + 6)
    rig.wait("ScanActive_RBV", 0)
    rig.wait("ScanID_RBV", scan)


def test_reset_empties_the_canvas_and_lets_the_scan_come_again(rig: Rig) -> None:
    rig.scan("again", 4)
    shown = rig.env.pvget(P + "Phase")
    before, sizes = shown.uniqueId, [dimension.size for dimension in shown.dimension]
    rig.put("ResetStitch", 1)
    empty = rig.env.pvget(P + "Phase")
    assert empty.uniqueId > before
    assert [dimension.size for dimension in empty.dimension] == sizes
    assert set(empty.value.tolist()) == {0.0}
    rig.scan("again", 4)
    assert rig.env.pvget(P + "Weight").value.max() >= 1
    rig.law()


def test_bad_frames_are_counted_under_their_cause(rig: Rig) -> None:
    before = {cause: rig.get(f"Dropped{cause.value}_RBV") for cause in DropCause}
    received = rig.get("FramesReceived_RBV")
    rig.detector.send(scan="bad", count=2, dtype="float32")
    rig.detector.send(scan="bad", count=3, first=10, size=20)
    rig.detector.send(scan="bad", count=4, first=20, attributes={"PositionX": "nan"})
    rig.detector.send(scan="bad", count=1, first=30)
    rig.detector.send(scan="bad", count=1, first=31)
    rig.wait("FramesReceived_RBV", received + 11)
    rig.put("EndScan", 1)
    rig.detector.send(scan="next", count=1)
    rig.detector.send(scan="bad", count=1, first=32)
    rig.wait("FramesReceived_RBV", received + 13)
    rig.put("EndScan", 1)
    rig.law()
    counted = {cause: rig.get(f"Dropped{cause.value}_RBV") - before[cause] for cause in DropCause}
    expected = {DropCause.TYPE: 2, DropCause.SHAPE: 3, DropCause.NO_POSITION: 4}
    assert counted == {cause: expected.get(cause, 0) for cause in DropCause}
    assert rig.get("FramesLateTaken_RBV") == 1  # the last one of "bad", which went to its own canvas
    assert rig.env.pvget(P + "DroppedShape_RBV").alarm.severity == 1
    rig.put("ResetCounters", 1)
    assert rig.get("FramesReceived_RBV") == rig.get("DroppedShape_RBV") == 0
    assert rig.env.pvget(P + "DroppedShape_RBV").alarm.severity == 0


def test_frames_that_are_no_measurement_are_not_stitched(rig: Rig) -> None:
    dropped, stitched, received = (
        rig.get(f"{name}_RBV") for name in ("DroppedNotMeasured", "FramesStitched", "FramesReceived")
    )
    rig.detector.send(scan="shutter", count=8, value=5)
    rig.detector.send(scan="shutter", count=2, first=20, value=0)
    rig.detector.send(scan="shutter", count=1, first=30, value=2500)
    rig.detector.send(scan="shutter", count=1, first=40, value=65535)
    rig.wait("FramesReceived_RBV", received + 12)
    rig.put("EndScan", 1)
    assert rig.get("DroppedNotMeasured_RBV") == dropped + 4
    assert rig.get("FramesStitched_RBV") == stitched + 8
    rig.law()
    rig.put("Saturation", 7)  # in the middle of everything, over Channel Access
    assert rig.get("Saturation_RBV") == 7
    rig.scan("saturated", 5, value=7)
    rig.scan("unsaturated", 5, value=6)
    rig.put("Saturation", 0)
    assert rig.get("DroppedNotMeasured_RBV") == dropped + 9
    assert rig.get("FramesStitched_RBV") == stitched + 13
    rig.law()


def test_an_ioc_that_drops_every_frame_is_not_ready(rig: Rig) -> None:
    rig.wait("Ready_RBV", 1)
    for turn in range(200):
        rig.detector.send(scan="small", count=30, first=100 + 30 * turn, size=8, rate=300)
        if not rig.get("Ready_RBV"):
            break
    else:
        pytest.fail("Ready while every frame is dropped")
    rig.wait("Ready_RBV", 1)  # none comes: the next may be right
    rig.law()


def test_the_unique_id_is_shown_as_it_was_sent(rig: Rig) -> None:
    rig.scan("wrapped", 2, first=254)
    received = rig.get("FramesReceived_RBV")
    rig.detector.send(scan="wrapped", count=2, first=0)
    rig.wait("FramesReceived_RBV", received + 2)
    rig.wait("UniqueId_RBV", 1)


def test_waveform_positions_place_frames_that_waited_for_them(rig: Rig) -> None:
    rig.put("PositionSource", 1)
    received, stitched = rig.get("FramesReceived_RBV"), rig.get("FramesStitched_RBV")
    rig.detector.send(scan="wave", count=6, first=0)
    rig.wait("FramesReceived_RBV", received + 6)
    rig.wait("FramesPending_RBV", 6)
    rig.put("PositionsX", [1e-8 * i for i in range(5)])
    rig.put("PositionsY", [0.0] * 5)
    assert rig.get("PositionsCount_RBV") == 5
    rig.wait("FramesStitched_RBV", stitched + 5)
    rig.put("PositionsComplete", 1)  # the sixth frame can never be placed
    rig.wait("FramesPending_RBV", 0)
    rig.law()
    rig.put("EndScan", 1)
    assert rig.get("PositionsCount_RBV") == 0
    rig.put("PositionSource", 0)
    assert rig.get("PositionSource_RBV") == 0


def test_a_route_that_is_not_there_is_refused_and_the_source_stays(rig: Rig) -> None:
    rig.put_text("RouteFile", str(rig.folder / "nowhere.csv"))
    rig.put("PositionSource", 2)
    assert rig.get("PositionSource_RBV") == 0
    assert "nowhere.csv" in rig.get("StatusMessage_RBV")
    route = rig.folder / "route.csv"
    route.write_text("x,y\n0,0\n1e-8,0\n2e-8,0\n", encoding="utf-8")
    rig.put_text("RouteFile", str(route))
    rig.put("PositionSource", 2)
    assert rig.get("PositionSource_RBV") == 2
    rig.scan("routed", 3, first=0)
    assert rig.get("CanvasSizeX_RBV") == 18
    rig.put("PositionSource", 0)


def test_the_canvas_is_compared_with_a_reference(rig: Rig) -> None:
    rig.scan("plain", 25, value=2)
    image = rig.env.pvget(P + "Phase")
    columns, rows = (dimension.size for dimension in image.dimension)
    rng = np.random.default_rng(0)
    reference = Reconstruction(
        object=np.exp(1j * rng.normal(0, 0.3, (rows, columns))).astype(np.complex64),
        probe=np.ones((1, 16, 16), np.complex64),
        origin_m=(-80e-9, -80e-9),
        pixel_m=10e-9,
        positions_m=np.zeros((1, 2)),
        errors=np.array([0.1]),
        coverage=np.ones((rows, columns), np.float32),
    )
    path = rig.folder / "reference.h5"
    write_reconstruction(path, reference)
    rig.put_text("SSIMReference", str(path))
    rig.put("CompareSSIM", 1)
    assert rig.get("SSIMScan_RBV") == "plain"
    assert -1 <= rig.get("SSIM_RBV") < 0.5  # a flat canvas is nothing like noise
    assert rig.get("SSIMStatus_RBV") == 1
    assert rig.env.pvget(P + "SSIMStatus_RBV").alarm.severity == 1
    rig.scan("compared at its end", 25, value=2)
    assert rig.get("SSIMScan_RBV") == "compared at its end"
    rig.put_text("SSIMReference", str(rig.folder / "gone.h5"))
    rig.put("CompareSSIM", 1)
    assert "no such file" in rig.get("StatusMessage_RBV")
    rig.put_text("SSIMReference", "")


def test_the_dose_scale_follows_the_counts_when_automatic(rig: Rig) -> None:
    rig.put("DoseMode", 1)
    rig.scan("dim", 4, value=1)  # 256 counts a frame; the model was trained at 1000
    rig.wait("DoseScale_RBV", pytest.approx(1000 / 256))
    rig.put("DoseMode", 0)
    assert rig.get("DoseScale_RBV") == rig.get("DoseScale")


def test_the_engine_is_changed_while_it_runs_or_refused(rig: Rig) -> None:
    rig.put("Engine", 1)  # TensorRT is not here
    assert rig.get("Engine_RBV") == 4
    assert rig.get("EngineName_RBV").startswith("ONNXRuntime")
    rig.put("Engine", 6)
    assert rig.get("EngineName_RBV") == "none"
    rig.put("Engine", 4)
    assert rig.get("EngineName_RBV").startswith("ONNXRuntime")


def test_nobody_writes_readbacks_or_images(rig: Rig) -> None:
    for name in ("Accounting_RBV", "FramesReceived_RBV"):
        with pytest.raises(PermissionError):
            rig.put(name, 1)
        with pytest.raises(RemoteError):
            rig.env.pva.put(P + name, 1, timeout=5)
    with pytest.raises(RemoteError):
        rig.env.pva.put(P + "Phase", {"uniqueId": 5}, timeout=5)


def test_a_frozen_client_holds_nobody_up(rig: Rig) -> None:
    code = (
        "import sys, threading, p4p.client.thread as t\n"
        "c = t.Context('pva', nt=False)\n"
        "first = threading.Event()\n"
        "s = c.monitor(sys.argv[1] + 'Phase', lambda v: first.set())\n"
        "first.wait(10); print('watching', flush=True)\n"
        "threading.Event().wait()\n"
    )
    with rig.env.start(sys.executable, "-c", code, P) as frozen:
        wait_until(lambda: "watching" in frozen.output, 20, lambda: frozen.output)
        frozen.popen.send_signal(signal.SIGSTOP)
        seen: list[int] = []
        watch = rig.env.pva.monitor(P + "Phase", lambda value: seen.append(value.uniqueId), request="field(uniqueId)")
        for number in range(10):
            before = rig.get("PhaseCounter_RBV")
            rig.scan(f"frozen{number}", 5, columns=5, step_px=200)
            assert rig.get("PhaseCounter_RBV") > before
            served = rig.get("PhaseCounter_RBV")
            wait_until(lambda served=served: seen and seen[-1] >= served, 10, "an image for the client that reads")
        watch.close()
        frozen.popen.send_signal(signal.SIGKILL)


def test_the_detector_vanishes_and_returns(rig: Rig) -> None:
    rig.detector.stop()
    rig.wait("Connected_RBV", 0)
    assert rig.env.pvget(P + "Connected_RBV").alarm.severity == 2
    rig.wait("Ready_RBV", 0)
    rig.wait("StatusMessage_RBV", f"waiting for {CHANNEL}")
    rig.detector = Detector(rig.env, CHANNEL)
    wait_for(rig.env, P + "Ready_RBV", 1, timeout=40)
    rig.scan("after", 8)
    rig.law()
    assert rig.env.pvget(P + "Weight").uniqueId == rig.get("PhaseCounter_RBV")
