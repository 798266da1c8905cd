"""Canvases as files: whole or not at all, never in another's place, aside from the frames. And the scan PVs' edges."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pipeline_helpers import make_frame, reference, running, runs_of, wait_for

import ptychostream.ioc  # noqa: F401 - EPICS base in its order
from ptychostream.errors import ConfigError, DropCause, ScanFileError
from ptychostream.frames.scan_id import id_text
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.ioc.config.settings import PositionSettings
from ptychostream.ioc.images import canvas_saver
from ptychostream.ioc.images.canvas_saver import CanvasSaver, SaveState
from ptychostream.ioc.images.provenance import provenance
from ptychostream.ioc.images.shown_canvas import ShownCanvas
from ptychostream.ioc.scan.position_sources import PositionSources
from ptychostream.ioc.scan.scan_watch import Edge, ScanEdges
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.plugins.flow.snapshot import RunFigures, Stitched
from ptychostream.plugins.pipeline import Pipeline
from ptychostream.quality.figure_panels import phase_panel
from ptychostream.quality.figures import save_figure
from ptychostream.scans.phase_file import file_stem, read_phase_image, read_provenance, save_phase_image
from ptychostream.storage.atomic import atomic_new_file

IMAGE = PhaseImage(np.full((3, 4), 0.5, np.float32), np.ones((3, 4), np.float32), (1e-6, 2e-6), 1e-8)


@given(st.text(max_size=400))
@example("..")
@example("../../.hidden")
@example("-rf")
@example("é" * 200)
def test_any_text_makes_a_name_that_stays_in_its_folder(name: str) -> None:
    stem = file_stem(name)
    assert stem
    assert Path(stem).name == stem
    assert not stem.startswith((".", "-"))
    assert "\0" not in stem
    assert len(f".{'0' * 12}.tmp.{stem}_9999.h5".encode()) <= 255


def test_no_file_is_ever_replaced_whoever_writes_at_once(tmp_path: Path) -> None:
    written: list[Path] = []
    threads = [
        threading.Thread(target=lambda n=n: written.append(save_phase_image(tmp_path, "a/b", IMAGE, {"number": n})))
        for n in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = ["a_b.h5", *(f"a_b_{n}.h5" for n in range(2, 7))]
    assert sorted(path.name for path in written) == sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert sorted(read_provenance(path)["number"] for path in written) == list(range(6))
    assert np.array_equal(read_phase_image(written[0]).phase, IMAGE.phase)
    with pytest.raises(RuntimeError), atomic_new_file(tmp_path / "x.h5") as new:
        new.temporary.write_bytes(b"half")
        raise RuntimeError
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.slow
def test_a_disk_that_takes_no_more_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import resource, sys, numpy as np\n"
        "from ptychostream.scans.phase_file import save_phase_image\n"
        "from ptychostream.imaging.phase_image import PhaseImage\n"
        "from ptychostream.errors import ScanFileError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "big = np.random.default_rng(0).random((300, 300), np.float32)\n"
        "try: save_phase_image(sys.argv[1], 'big', PhaseImage(big, big, (0., 0.), 1e-8))\n"
        "except ScanFileError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "cannot be written" in done.stdout
    assert list(tmp_path.iterdir()) == []


def describe_nothing(stitched: Stitched, figures: RunFigures) -> dict[str, Any]:
    return {"scan": stitched.scan, "received": figures.received}


@contextmanager
def saving(
    pipeline: Pipeline, describe: Callable[[Stitched, RunFigures], dict[str, Any]] = describe_nothing, **options: Any
) -> Iterator[CanvasSaver]:
    def figures_of(run: int) -> RunFigures | None:
        return next((figures for figures in pipeline.snapshot().runs if figures.number == run), None)

    saver = CanvasSaver(figures_of, describe, **{"delay_s": 0.0, **options})
    pipeline.on_finished = saver.finished
    saver.start()
    try:
        yield saver
    finally:
        saver.stop()


def stream(pipeline: Pipeline, *scans: str) -> None:
    for scan in scans:
        pipeline.submit(make_frame(0, scan))
        pipeline.submit(make_frame(1, scan))
        runs_of(pipeline)


@pytest.fixture
def a_hundred_bytes_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Canvases of one size: how much they take depends on how the frames were batched."""
    monkeypatch.setattr(canvas_saver, "_size", lambda jobs: 100 * len(list(jobs)))


@pytest.mark.usefixtures("a_hundred_bytes_each")
def test_every_scan_is_saved_when_it_ends_and_no_frame_waits_for_that(tmp_path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()

    def slow(stitched: Stitched, figures: RunFigures) -> dict[str, Any]:
        entered.set()
        assert gate.wait(20)
        return describe_nothing(stitched, figures)

    options = {"directory": str(tmp_path), "automatic": True, "queue_bytes": 200}
    with running(keep=0) as pipeline, saving(pipeline, slow, **options) as saver:
        stream(pipeline, "a", "b")
        assert entered.wait(10)
        stream(pipeline, "c", "d", "e")  # b and c wait; for d there is no room
        assert pipeline.snapshot().stitched == 10
        assert (saver.waiting, saver.lost, saver.state) == (2, 1, SaveState.FAILED)
        gate.set()
        wait_for(lambda: saver.saved == 3)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "b.h5", "c.h5"]
        expected = reference([make_frame(0), make_frame(1)]).image()
        for scan in "abc":  # forgotten by the pipeline long since
            image = read_phase_image(tmp_path / f"{scan}.h5")
            assert np.array_equal(image.phase, expected.phase, equal_nan=True)
            assert read_provenance(tmp_path / f"{scan}.h5") == {"scan": scan, "received": 2}


@pytest.mark.slow
def test_none_of_many_short_scans_is_lost(tmp_path: Path) -> None:
    scans, rate = 400, 40.0
    with running(keep=2) as pipeline, saving(pipeline, directory=str(tmp_path), automatic=True, delay_s=2.0) as saver:
        began = time.monotonic()
        for scan in range(scans):
            for number in range(8):
                pipeline.submit(make_frame(number, f"s{scan}"))
            time.sleep(max(0.0, began + (scan + 1) / rate - time.monotonic()))  # the rate of the scans
        runs_of(pipeline)
        saver.stop()
        assert (saver.lost, saver.saved) == (0, scans - 1), "the last one has not ended"
    assert len(list(tmp_path.iterdir())) == scans - 1
    assert read_provenance(tmp_path / "s7.h5")["received"] == 8


def test_a_canvas_larger_than_the_queue_is_saved_all_the_same(tmp_path: Path) -> None:
    with running(keep=0) as pipeline, saving(pipeline, directory=str(tmp_path), automatic=True, queue_bytes=1) as saver:
        stream(pipeline, "a", "b")
        wait_for(lambda: saver.saved == 1)
        assert saver.lost == 0


def test_what_could_not_be_saved_is_saved_on_demand(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_bytes(b"a file where the folder should be")
    changes: list[SaveState] = []
    with running() as pipeline, saving(pipeline, directory=str(folder), automatic=True) as saver:
        saver._on_change = lambda: changes.append(saver.state)
        with pytest.raises(ConfigError, match="canvas is empty"):
            saver.save(pipeline.canvas())
        stream(pipeline, "a", "b")
        wait_for(lambda: saver.state is SaveState.FAILED and saver.waiting == 1)
        with pytest.raises(ScanFileError, match="folder"):
            saver.save(pipeline.canvas())
        assert saver.waiting == 2
        saver.directory = ""
        with pytest.raises(ConfigError, match="SaveDirectory"):
            saver.save(None)
        saver.directory = str(tmp_path / "other")
        saver.save(pipeline.canvas())
        assert (saver.waiting, saver.saved, saver.lost, saver.state) == (0, 2, 0, SaveState.SAVED)
        assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["a.h5", "b.h5"]
        assert changes[:2] == [SaveState.SAVING, SaveState.FAILED]
        assert saver.last_file == str(tmp_path / "other" / "b.h5")


@pytest.mark.usefixtures("a_hundred_bytes_each")
def test_of_what_could_not_be_saved_only_so_much_is_kept_and_the_rest_is_counted() -> None:
    options = {"directory": "/dev/null/x", "automatic": True, "queue_bytes": 200}
    with running(keep=0) as pipeline, saving(pipeline, **options) as saver:
        for scan in "abcde":
            stream(pipeline, scan)
            wait_for(lambda: saver.state is not SaveState.SAVING and len(saver._jobs) == 0)
        wait_for(lambda: len(saver._failed) + saver.lost == 4)
        assert (saver.waiting, saver.lost) == (2, 2)


def test_a_scan_whose_canvas_is_gone_is_counted_as_lost(tmp_path: Path) -> None:
    with running() as pipeline, saving(pipeline, directory=str(tmp_path), automatic=True) as saver:
        stream(pipeline, "a", "b")
        wait_for(lambda: saver.saved == 1)
        saver.finished(runs_of(pipeline)[0], None)
        assert (saver.saved, saver.lost, saver.state) == (1, 1, SaveState.FAILED)
        assert "scan a was not saved: its canvas was given up" in saver.message
        saver.automatic = False
        saver.finished(runs_of(pipeline)[0], None)
        assert saver.lost == 1


def test_an_end_saves_what_waits_and_late_frames_are_in_it(tmp_path: Path) -> None:
    with running() as pipeline, saving(pipeline, directory=str(tmp_path), automatic=True, delay_s=60) as saver:
        stream(pipeline, "a", "b")
        assert saver.waiting == 1
        pipeline.submit(make_frame(2, "a"))
        runs_of(pipeline)
        saver.stop()
        image = read_phase_image(tmp_path / "a.h5")
        assert image.weight.sum() == pytest.approx(reference([make_frame(n) for n in range(3)]).image().weight.sum())
        assert read_provenance(tmp_path / "a.h5")["received"] == 3
        with pytest.raises(ScanFileError, match="ends"):
            saver.save(pipeline.canvas())


def test_provenance_says_where_a_canvas_comes_from_and_a_picture_is_made_of_it(tmp_path: Path) -> None:
    def describe(stitched: Stitched, figures: RunFigures) -> dict[str, Any]:
        source = {"source": "attributes"}
        clocks = {"now": 2e9, "monotonic": figures.began + 10}
        shas = {"m1": "abc"}
        return provenance(
            stitched, figures, positions=source, boundary=BoundarySettings(), sha_of=shas.__getitem__, **clocks
        )

    with running() as pipeline, saving(pipeline, describe, directory=str(tmp_path)) as saver:
        pipeline.dose_scale = 2.0
        stream(pipeline, "a")
        pipeline.dose_scale = 3.0
        for number in (1, 4):  # one twice, one after a gap
            pipeline.submit(make_frame(number, "a"))
        runs_of(pipeline)
        saver.save(pipeline.canvas())
    told = read_provenance(tmp_path / "a.h5")
    dropped = {DropCause.DUPLICATE.value: 1}
    assert told["frames"] == {
        "received": 4, "stitched": 3, "pending": 0, "dropped": dropped, "missed": 2, "on_canvas": 3,
    }  # fmt: skip
    (model,) = told["models"]
    assert (model["name"], model["sha256"], model["engine"]) == ("m1", "abc", "fake 1 (float32, CPU)")
    assert (model["dose_scale"], model["frames"], told["dose_scale"]) == ([2.0, 3.0], 3, 3.0)
    assert model["contract"]["object_pixel_m"] == told["pixel_m"] == 1e-8
    assert "patch_weight" not in model["contract"]
    assert told["times"]["began"] == "2033-05-18T03:33:10.000+00:00"
    assert told["times"]["ended"] == ""
    assert told["times"]["last_frame"] == "1970-01-01T00:16:44.000+00:00"
    assert told["boundary"]["boundary"] == "attribute"
    assert told["versions"]["numpy"] == np.__version__
    from matplotlib.figure import Figure

    figure = Figure()
    phase_panel(figure.add_subplot(), read_phase_image(tmp_path / "a.h5"), title=told["scan"])
    save_figure(figure, tmp_path / "a.png", dpi=50)
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_images_show_the_finished_scan_that_is_chosen() -> None:
    with running(keep=2) as pipeline:
        shown = ShownCanvas(pipeline)
        assert shown.stitched() is not None  # the live one, empty
        stream(pipeline, "a", "b", "c", "d")
        seen = {}
        for shown.wish in (0, 1, 2, 3):
            stitched = shown.stitched()
            assert stitched is not None
            seen[shown.wish] = stitched.scan
            assert shown.snapshot().scan == stitched.scan
        assert seen == {0: "d", 1: "c", 2: "b", 3: "d"}  # a is not kept any more


RUNS, IDLE, GONE = True, False, None


@pytest.mark.parametrize(
    ("values", "edges"),
    [
        ([(GONE, None), (IDLE, "a"), (IDLE, "b"), (RUNS, "b"), (RUNS, "b"), (IDLE, "b")],
         [None, Edge.IDLE, None, Edge.BEGIN, None, Edge.END]),
        ([(RUNS, "a"), (IDLE, "a"), (RUNS, "a")], [Edge.BEGIN, Edge.END, Edge.BEGIN]),  # a restart under its id
        ([(RUNS, "a"), (RUNS, "b"), (IDLE, "b")], [Edge.BEGIN, Edge.BEGIN, Edge.END]),  # edges that were missed
        ([(RUNS, None), (RUNS, None), (IDLE, None)], [Edge.BEGIN, None, Edge.END]),
    ],
)  # fmt: skip
def test_edges_of_the_scan_pvs(values: list[tuple[bool | None, str | None]], edges: list[Edge | None]) -> None:
    machine = ScanEdges()
    assert [machine.change(*value) for value in values] == edges


@pytest.mark.parametrize(
    ("value", "text"),
    [("s 1 ", "s 1"), (7, "7"), (7.0, "7"), (1.5, "1.5"), ({"index": 1, "choices": ["no", "yes"]}, "yes"),
     (np.frombuffer(b"abc\0xx", np.int8), "abc"), ([97, 98, 0], "ab")],
)  # fmt: skip
def test_ids_of_any_kind_are_texts(value: object, text: str) -> None:
    assert id_text(value) == text


def test_positions_that_were_written_for_the_next_scan_outlive_the_end_of_this_one() -> None:
    desk = PositionSources(PositionSettings(source="waveform"))
    desk.write(x=np.zeros(3))
    desk.write(y=np.zeros(3))
    at_the_end = desk.written
    desk.write(x=np.ones(2))
    desk.write(y=np.ones(2))
    desk.clear(at_the_end)
    assert desk.count == 2
    desk.clear(desk.written)
    assert desk.count == 0
