"""Where scans begin and end, what becomes of late frames, which canvases are kept: the pipeline and its pure parts."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pipeline_helpers import (
    SHAPE,
    FakeEngine,
    assert_same,
    make_contract,
    make_frame,
    reference,
    running,
    runs_of,
    wait_for,
)

from ptychostream.config import load_settings
from ptychostream.errors import ConfigError, DropCause
from ptychostream.frames.frames import Frame
from ptychostream.plugins.flow.batcher import Batcher
from ptychostream.plugins.flow.frame_flow import FrameFlow
from ptychostream.plugins.flow.scan_boundary import BoundarySettings
from ptychostream.positions.positions import AttributePositions, WaveformPositions

GAP = 5.0


def timed(number: int, scan: str, start: float) -> Frame:
    return make_frame(number, scan, time=start + 0.1 * number)


# Two scans whose frames come in any order, so long as the first begins first.


@st.composite
def two_scans(draw: st.DrawFn) -> tuple[list[tuple[str, int]], int, int]:
    first, second = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    rest = draw(st.permutations([("a", n) for n in range(1, first)] + [("b", n) for n in range(100, 100 + second)]))
    return [("a", 0), *rest], first, second


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["attribute", "gap"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(two_scans())
def test_each_canvas_is_that_of_its_scan_stitched_alone(
    boundary: str, case: tuple[list[tuple[str, int]], int, int]
) -> None:
    order, first, second = case
    start = {"a": 1000.0, "b": 2000.0}
    with running(boundary=boundary, gap_s=GAP) as pipeline:
        for scan, number in order:
            # for a gap, the frames name nothing: their times alone tell
            pipeline.submit(timed(number, scan if boundary == "attribute" else "", start[scan]))
        a, b = runs_of(pipeline)
        assert (a.received, a.stitched, a.missed) == (first, first, 0)
        assert (b.received, b.stitched, b.missed) == (second, second, 0)
        assert (a.active, b.active) == (False, True)
        assert_same(pipeline.stitched(a.number), reference([make_frame(n) for n in range(first)]))
        assert_same(pipeline.stitched(b.number), reference([make_frame(n) for n in range(100, 100 + second)]))
        assert_same(pipeline.stitched(), reference([make_frame(n) for n in range(100, 100 + second)]))
        scans = [scan for scan, _ in order]
        assert pipeline.snapshot().late_taken == scans[scans.index("b") :].count("a")


def test_late_frames_may_be_dropped_and_are_the_old_scans() -> None:
    with running(late="drop") as pipeline:
        for scan, number in (("a", 0), ("b", 0), ("a", 1), ("a", 2)):
            pipeline.submit(make_frame(number, scan))
        a, b = runs_of(pipeline)
        assert (a.received, a.stitched, a.dropped) == (3, 1, {DropCause.LATE: 2})
        assert (b.received, b.stitched, b.dropped) == (1, 1, {})
        assert pipeline.snapshot().dropped[DropCause.LATE] == 2


def test_a_scan_takes_late_frames_for_so_long_and_while_its_canvas_is_kept() -> None:
    with running(late_s=0.0) as pipeline:
        for scan, number in (("a", 0), ("b", 0), ("a", 1)):
            pipeline.submit(make_frame(number, scan))
        assert runs_of(pipeline)[0].dropped == {DropCause.LATE: 1}
    with running(keep=1) as pipeline:
        for scan in "abc":
            pipeline.submit(make_frame(0, scan))
            runs_of(pipeline)
        pipeline.submit(make_frame(1, "a"))
        pipeline.submit(make_frame(1, "b"))
        b, c = runs_of(pipeline)
        assert (b.scan, b.stitched, c.scan, c.stitched) == ("b", 2, "c", 1)
        assert pipeline.snapshot().dropped[DropCause.LATE] == 1
        assert pipeline.stitched(1) is None


def test_a_scan_aborted_and_restarted_under_its_id_is_two() -> None:
    with running() as pipeline:
        for number in range(5):
            pipeline.submit(make_frame(number, "s"))
        pipeline.start_scan("s", anew=True)
        pipeline.start_scan("s", anew=True)  # nothing has come yet: it is the same start
        for number in range(3):  # the detector's counter went back, as after any restart
            pipeline.submit(make_frame(number + 50, "s"))
        aborted, restarted = runs_of(pipeline)
        assert [run.scan for run in (aborted, restarted)] == ["s", "s"]
        assert (aborted.stitched, restarted.stitched) == (5, 3)
        assert (aborted.active, restarted.active) == (False, True)
        assert_same(pipeline.stitched(aborted.number), reference([make_frame(n) for n in range(5)]))
        assert_same(pipeline.stitched(), reference([make_frame(n) for n in range(50, 53)]))


@pytest.mark.parametrize("boundary", ["attribute", "pv", "gap"])
def test_an_id_that_goes_backwards_begins_nothing(boundary: str) -> None:
    with running(boundary=boundary) as pipeline:
        for index, number in enumerate((10, 11, 12, 1, 2, 3)):
            pipeline.submit(make_frame(number, "s", time=1000.0 + 0.1 * index))
        (run,) = runs_of(pipeline)
        assert run.stitched == 6


def test_the_edges_of_a_pv_are_the_bounds_whatever_the_frames_are_called() -> None:
    def now(number: int, scan: str, ago_s: float = 0.0) -> Frame:
        return make_frame(number, scan, time=time.time() - ago_s)

    with running(boundary="pv") as pipeline:
        pipeline.end_scan("")  # the first word is: idle
        pipeline.submit(now(0, "x"))
        assert pipeline.snapshot().dropped[DropCause.LATE] == 1
        pipeline.start_scan("one", anew=True)
        pipeline.submit(now(1, "x"))
        pipeline.submit(now(2, "y"))
        overtaken = now(3, "y", ago_s=0.02)
        pipeline.end_scan("one").result(10)
        pipeline.submit(overtaken)  # the word of the end came before it
        pipeline.submit(now(4, "y"))  # the detector runs on, with no scan
        pipeline.start_scan("two", anew=True)
        pipeline.submit(now(5, "y"))
        one, two = runs_of(pipeline)
        assert (one.scan, one.stitched, two.scan, two.stitched) == ("one", 3, "two", 1)
        assert (one.late, one.missed, pipeline.snapshot().dropped[DropCause.LATE]) == (1, 0, 2)
        patch = pipeline.snapshot().patch
        assert patch is not None
        assert patch.scan == "two"
    with running(boundary="pv", late_s=0.0) as pipeline:
        pipeline.start_scan("one", anew=True)
        pipeline.submit(now(0, "x"))
        overtaken = now(1, "x", ago_s=0.02)
        pipeline.end_scan("one").result(10)
        pipeline.submit(overtaken)
        (one,) = runs_of(pipeline)
        assert (one.received, one.dropped) == (2, {DropCause.LATE: 1})


@pytest.mark.parametrize("ahead_s", [0.0, 40.0, -1.5e9])
def test_frames_of_a_pvs_scan_are_told_by_their_own_time_whatever_the_detectors_clock(ahead_s: float) -> None:
    flow = make_flow(boundary="pv")
    start = 1.7e9

    def send(number: int, taken: float, delay: float = 0.01) -> None:
        frame = make_frame(number, "x", time=start + taken + ahead_s)
        frame.received = start + taken + delay
        flow.submit(frame, taken + delay)

    flow.start_scan("one", 0.0, anew=True, at=start)
    for number in range(20):
        send(number, 0.1 + 0.1 * number)
    flow.end_scan("one", 2.02, at=start + 2.02)
    send(20, 2.01, delay=0.5)  # taken before the end, came after it
    for number in range(21, 41):
        send(number, 0.1 + 0.1 * number)
    flow.start_scan("two", 5.0, anew=True, at=start + 5.0)
    send(41, 4.3, delay=1.0)  # taken between the scans
    send(42, 5.1)
    send(43, 1.95, delay=4.0)  # the first scan's, very late
    one, two = reversed(flow.runs.figures())
    assert (one.received, one.late, two.received) == (22, 2, 1)
    assert flow.ledger.dropped[DropCause.LATE] == 21
    assert flow.holds


def test_frames_before_the_pv_has_spoken_are_the_scans_that_it_then_names() -> None:
    source = WaveformPositions()
    with running(source=source, boundary="pv") as pipeline:
        pipeline.submit(make_frame(0, "x"))
        pipeline.submit(make_frame(1, "x"))
        assert pipeline.snapshot().waiting_position == 2
        pipeline.start_scan("seven", anew=True)
        assert (pipeline.snapshot().scan, pipeline.snapshot().waiting_position) == ("seven", 2)
        pipeline.update_positions(lambda: source.update([0.0], [0.0]))
        pipeline.end_scan("seven").result(10)  # the other one never gets its position
        (run,) = runs_of(pipeline)
        assert (run.scan, run.stitched, run.dropped) == ("seven", 1, {DropCause.NO_POSITION: 1})
    with running(boundary="pv") as pipeline:
        pipeline.submit(make_frame(0, "x"))
        runs_of(pipeline)
        pipeline.start_scan("seven", anew=True)
        stitched = pipeline.stitched()
        assert stitched is not None
        assert (stitched.scan, stitched.frames) == ("seven", 1)


def test_late_frames_are_never_placed_by_the_next_scans_waveforms() -> None:
    source = WaveformPositions()
    source.update([0.0, 1e-7], [0.0, 0.0])
    with running(source=source) as pipeline:
        for scan, number in (("a", 0), ("b", 0), ("a", 1)):
            pipeline.submit(make_frame(number, scan))
        a, b = runs_of(pipeline)
        assert (a.stitched, a.dropped, b.stitched) == (1, {DropCause.NO_POSITION: 1}, 1)


def make_flow(**scans: Any) -> FrameFlow:
    return FrameFlow(AttributePositions("x", "y"), 10, Batcher(4, 0.0, 100), BoundarySettings(**scans))


def test_a_pause_ends_a_scan_and_its_frames_may_go_on_after_all() -> None:
    flow = make_flow(boundary="gap", gap_s=GAP)
    flow.submit(timed(0, "", 1000.0), 10.0)
    assert not flow.tick(14.0)
    assert flow.tick(15.1)
    assert not flow.scan_active
    assert not flow.tick(30.0)
    flow.submit(timed(1, "", 1000.0), 31.0)  # the network had stopped, not the scan
    assert flow.scan_active
    assert len(flow.runs.figures()) == 1
    flow.submit(timed(0, "", 1006.0), 32.0)
    assert len(flow.runs.figures()) == 2
    assert flow.holds


def test_a_stray_frame_from_long_ago_begins_no_scan_but_a_clock_set_back_does() -> None:
    flow = make_flow(boundary="gap", gap_s=GAP)
    flow.submit(timed(0, "", 1000.0), 10.0)
    flow.submit(timed(0, "", 500.0), 10.1)
    assert flow.ledger.dropped[DropCause.LATE] == 1
    assert len(flow.runs.figures()) == 1
    for second in range(8):
        flow.submit(timed(second, "", 400.0), 11.0 + second)
    assert len(flow.runs.figures()) == 2
    assert flow.runs.figures()[0].received == 3  # those that came more than the gap after the last good one
    assert flow.holds


def test_kept_canvases_are_bounded_in_number_and_memory() -> None:
    with running(keep=3) as pipeline:
        for scan in range(6):
            pipeline.submit(make_frame(scan, f"s{scan}"))
            runs_of(pipeline)
        assert [run.scan for run in runs_of(pipeline)] == ["s2", "s3", "s4", "s5"]
        size = pipeline.snapshot().kept_bytes // 3
        assert size >= 16 * SHAPE[0] * SHAPE[1]
        pipeline.keep_canvases(1)
        assert [run.scan for run in runs_of(pipeline)] == ["s4", "s5"]
        assert pipeline.snapshot().missed == 0
    with running(keep=3, keep_bytes=2 * size) as pipeline:
        for scan in range(6):
            pipeline.submit(make_frame(scan, f"s{scan}"))
            runs_of(pipeline)
        assert [run.scan for run in runs_of(pipeline)] == ["s3", "s4", "s5"]


def test_a_run_is_not_forgotten_while_its_frames_are_under_way_and_its_end_is_told_once() -> None:
    engine, told = FakeEngine(), []
    with running(engine, keep=0) as pipeline:
        pipeline.on_finished = lambda figures, canvas: told.append((figures, canvas))
        engine.gate.clear()
        for scan, number in (("a", 0), ("b", 0), ("c", 0), ("a", 1)):
            pipeline.submit(make_frame(number, scan))
        assert [run.scan for run in pipeline.snapshot().runs] == ["c", "b", "a"]
        engine.gate.set()
        runs_of(pipeline)
        wait_for(lambda: len(told) == 2)
        assert [run.scan for run in pipeline.snapshot().runs] == ["c"]
        assert sorted((figures.scan, figures.stitched, canvas.patches) for figures, canvas in told) == [
            ("a", 2, 2), ("b", 1, 1),
        ]  # fmt: skip
        assert_same(next(c for f, c in told if f.scan == "a").stitched(), reference([make_frame(0), make_frame(1)]))


def test_a_finished_canvas_goes_on_with_another_model_where_the_pixel_allows() -> None:
    weight = np.ones(SHAPE, np.float32)
    with running() as pipeline:
        pipeline.submit(make_frame(0, "a"))
        pipeline.submit(make_frame(0, "b"))
        runs_of(pipeline)
        pipeline.swap_engine(lambda: FakeEngine("new", scale=0.02), make_contract("m2", weight=weight)).result(10)
        pipeline.submit(make_frame(1, "a"))
        a, _ = runs_of(pipeline)
        canvas = reference([make_frame(1)], 0.02, weight)
        canvas.merge(reference([make_frame(0)]))
        stitched = pipeline.stitched(a.number)
        assert_same(stitched, canvas)
        assert stitched is not None
        assert [(made.contract.name, made.frames) for made in stitched.makers] == [("m1", 1), ("m2", 1)]
        assert [made.engine.split()[0] for made in stitched.makers] == ["fake", "new"]
        pipeline.swap_engine(lambda: FakeEngine("other"), make_contract("m3", pixel_m=2e-8)).result(10)
        pipeline.submit(make_frame(2, "a"))
        a, _ = runs_of(pipeline)
        assert a.dropped == {DropCause.LATE: 1}
        assert "another model" in pipeline.snapshot().message
        assert_same(pipeline.stitched(a.number), canvas)


# Any interleaving, every step looked at.

steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from(["a", "b", "c", ""]), st.integers(0, 40)),
        st.tuples(st.just("reject"), st.sampled_from(list(DropCause)), st.none()),
        st.tuples(st.just("positions"), st.integers(0, 40), st.booleans()),
        st.tuples(st.just("start"), st.sampled_from(["a", "b", ""]), st.booleans()),
        st.tuples(st.just("end"), st.sampled_from(["a", "b", ""]), st.none()),
        st.tuples(st.just("tick"), st.floats(0, 8), st.none()),
        st.tuples(st.just("take"), st.floats(0, 2), st.none()),
        st.tuples(st.just("land"), st.integers(0, 5), st.none()),
        st.tuples(st.just("trim"), st.none(), st.none()),
    ),
    max_size=100,
)
SAME_NAME = [
    ("submit", "a", 0), ("submit", "a", 30), ("take", 2.0, None), ("land", 5, None), ("take", 2.0, None),
    ("land", 5, None), ("trim", None, None), ("submit", "a", 31), ("submit", "a", 1), ("trim", None, None),
    ("submit", "a", 32), ("take", 2.0, None),
]  # fmt: skip
"""With a pause as boundary: a late frame of a run whose name is the current one's."""
LATE_AND_TOLD = [
    ("submit", "a", 0), ("take", 2.0, None), ("land", 5, None), ("submit", "b", 0), ("trim", None, None),
    ("submit", "a", 1), ("submit", "c", 0), ("trim", None, None), ("take", 2.0, None), ("land", 5, None),
]  # fmt: skip
"""A late frame under way to the oldest of too many finished runs."""


@pytest.mark.slow
@pytest.mark.parametrize("boundary", ["attribute", "pv", "gap"])
@settings(max_examples=60, deadline=None)
@example(SAME_NAME, 1, "stitch", False, True)
@example(LATE_AND_TOLD, 1, "stitch", False, True)
@given(steps, st.integers(0, 2), st.sampled_from(["stitch", "drop"]), st.booleans(), st.booleans())
def test_every_run_is_accounted_for_after_every_step(
    boundary: str, cases: list[tuple[str, Any, Any]], keep: int, late: str, drop_oldest: bool, carried: bool
) -> None:
    source = WaveformPositions()
    batcher = Batcher(3, 1.0, 5)
    batcher.drop_oldest = drop_oldest
    positions = AttributePositions("x", "y") if carried else source
    flow = FrameFlow(positions, 4, batcher, BoundarySettings(boundary=boundary, keep=keep, late=late, gap_s=GAP))
    counts, now = np.zeros((1, 1), np.uint8), 0.0

    def land(stitched: int) -> None:
        done = min(stitched, len(flow.in_flight))
        flow.land(done, [DropCause.ENGINE] * (len(flow.in_flight) - done))

    for index, (what, first, second) in enumerate(cases):
        if what == "submit":
            flow.submit(Frame(first, second, float(second), counts, {"x": 0.0, "y": 0.0}), now)
        elif what == "reject":
            flow.reject(first)
        elif what == "positions":
            source.update([0.0] * first, [0.0] * first, complete=second)
            flow.poll(now)
        elif what == "start":
            flow.start_scan(first, now, anew=second)
        elif what == "end":
            flow.end_scan(first, now)
        elif what == "tick":
            now += first
            flow.tick(now)
        elif what == "take" and not flow.in_flight:
            now += first
            flow.take(now)
            assert len({placed.frame.run for placed in flow.in_flight}) <= 1, "a batch is of one run"
        elif what == "land":
            land(first)
        elif what == "trim":
            flow.runs.take_ended()
            kept = flow.runs.trim({})
            assert len([run for run in flow.runs.finished if not run.pending]) <= keep
            assert kept == {run.number for run in flow.runs.figures()}
        assert flow.holds, f"step {index}: {what} {first} {second}"
        held = Counter(placed.frame.run for placed in (*flow.batcher._queue, *flow.in_flight))
        held.update(frame.run for frame in flow._join._waiting.values())
        assert held == Counter({run.number: run.pending for run in flow.runs.figures() if run.pending})
    land(0)
    flow.close(now)
    flow.take(now)
    while flow.in_flight:
        land(len(flow.in_flight))
        flow.take(now)
    assert flow.pending == 0
    flow.runs.take_ended()
    assert len(flow.runs.trim({})) <= keep + 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('boundary = "pv"', "needs a PV: set active_pv"),
        ('boundary = "pv"\nactive_pv = " "', "needs a PV: set active_pv"),
        ('id_pv = "bl:Id"\nactive_pv = "bl:Act"', 'boundary = "pv" alone'),
        ('boundary = "gap"\nactive_pv = "bl:Act"', "takes no active_pv"),
        ('boundary = "gap"\ngap_s = 0', "gap_s"),
        ('boundary = "guess"', "'attribute', 'pv' or 'gap'"),
        ('late = "maybe"', "'stitch' or 'drop'"),
        ("keep = -1", "keep"),
        ('boundary = "pv"\nactive_pv = "a"\nid_provider = "tango"', "'ca' or 'pva'"),
    ],
)
def test_a_configuration_that_cannot_be_says_why(tmp_path: Path, text: str, said: str) -> None:
    import ptychostream.ioc  # noqa: F401 - EPICS base in its order
    from ptychostream.ioc.config.settings import IocSettings

    path = tmp_path / "ioc.toml"
    path.write_text(f"[scan]\n{text}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_settings(IocSettings, path, {})
    assert said in str(caught.value)
    assert "scan" in str(caught.value)
