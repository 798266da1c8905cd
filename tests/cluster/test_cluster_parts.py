"""The parts of a cluster without its processes: id sets, orders, reports, the accounts of consumers, settings."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from epics_env import wait_until
from hypothesis import given
from hypothesis import strategies as st

import ptychostream.pva  # noqa: F401 - pvaccess first
from ptychostream.cluster.commands import consumer_command, mirror_command
from ptychostream.cluster.id_set import MAX_SPAN, IdSet, union
from ptychostream.cluster.orders import Orders
from ptychostream.cluster.settings import ClusterSettings, dotted, merged
from ptychostream.config import load_settings
from ptychostream.errors import ConfigError, DropCause, StreamError
from ptychostream.imaging.stitching import Canvas
from ptychostream.ioc.collector.collector_accounts import KEPT_GROUPS, ConsumerAccounts
from ptychostream.ioc.collector.collector_sums import Zero, add_up
from ptychostream.plugins.consumer.consumer_encoding import structure
from ptychostream.plugins.consumer.consumer_report import EngineReport, Report, RunReport
from ptychostream.plugins.consumer.consumer_settings import consumer_settings
from ptychostream.plugins.flow.figures import figures, largest
from ptychostream.processes.restarter import back_off_s

ids = st.sets(st.integers(-500, 500), max_size=60)


def id_set(numbers: object) -> IdSet:
    made = IdSet()
    for number in numbers:  # type: ignore[attr-defined]
        made.add(number)
    return made


@given(ids, st.integers(-600, 600))
def test_an_id_set_is_a_set(numbers: set[int], bound: int) -> None:
    made = id_set(numbers)
    again = IdSet(made.first, made.bits)
    for one in (made, again):
        assert len(one) == len(numbers)
        assert (one.lowest, one.highest) == ((min(numbers), max(numbers)) if numbers else (None, None))
        assert one.up_to(bound) == sum(number <= bound for number in numbers)
        assert (bound in one) == (bound in numbers)
    made.discard(bound)
    assert len(made) == len(numbers - {bound})
    assert bound not in made


@pytest.mark.slow
@given(ids, ids)
def test_what_two_id_sets_have_in_common(some: set[int], others: set[int]) -> None:
    assert id_set(some).common(id_set(others)) == sorted(some & others)


@pytest.mark.slow
@given(st.lists(ids, max_size=5))
def test_a_union_holds_every_id_once_and_counts_those_that_came_again(sets: list[set[int]]) -> None:
    whole, twice = union(id_set(numbers) for numbers in sets)
    assert len(whole) == len(set().union(*sets))
    assert twice == sum(map(len, sets)) - len(whole)


def test_a_foreign_id_cannot_make_a_set_as_large_as_it_likes() -> None:
    made = id_set([5, 1 << 40, 6])
    assert len(made) == 2
    assert made.outside == 1
    assert len(made.bits) * 8 <= MAX_SPAN


def test_orders_are_read_back_and_what_is_none_says_so() -> None:
    orders = Orders(session="a", ended="s1", ends=2, settled_time=1.5, recall={"i2": [(1, 4)]}, recalls=1)
    assert Orders.parse(orders.model_dump_json(exclude_defaults=True)) == orders
    assert Orders.parse("") is None
    with pytest.raises(StreamError, match="session"):
        Orders.parse('{"ended": "s1"}')


# The accounts


def report(
    consumer: int,
    numbers: list[int],
    *,
    instance: str = "",
    sequence: int = 1,
    stitched: int | None = None,
    run: int = 1,
    scan: str = "s",
    earlier: int = 0,
    began: float = 100.0,
) -> Report:
    """A state: these frames of a run received, so many of them on the canvas, and `earlier` frames of runs before."""
    done = len(numbers) if stitched is None else stitched
    canvas = Canvas(1e-8, np.ones((4, 4)))
    for index in range(done):
        canvas.add(np.full((4, 4), 1.0, np.float32), index * 1e-8, 0.0)
    return Report(
        consumer=consumer,
        instance=instance or f"i{consumer}",
        sequence=sequence,
        time=0.0,
        received=earlier + len(numbers),
        stitched=earlier + done,
        pending=len(numbers) - done,
        run=RunReport(
            number=run, scan=scan, active=True, received=len(numbers), stitched=done, began=began,
            latest=began + 10, ids=id_set(numbers), laid=id_set(numbers[:done]), canvas=canvas.state(),
        ),
    )  # fmt: skip


def accounts(*numbers: int) -> ConsumerAccounts:
    made = ConsumerAccounts(numbers, dead_after_s=5.0)
    for number in numbers:
        made.connect(number, True)
    return made


def test_what_live_consumers_have_adds_up() -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 5]), 0.0)
    made.take(report(2, [2, 4, 6], stitched=2), 0.0)
    sums = made.sums(1.0)
    assert (sums.received, sums.stitched, sums.pending, sums.lost) == (6, 5, 1, 0)
    assert made.missed(1.0) == 0
    assert made.current is not None
    assert made.current.patches == 5


def test_ids_that_a_live_consumer_has_not_reported_yet_are_not_missed() -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 5, 7, 9]), 0.0)
    made.take(report(2, [2, 4]), 0.0)
    assert made.missed(1.0) == 0
    made.take(report(2, [2, 4, 10], sequence=2), 1.0)
    assert made.missed(1.0) == 2  # 6 and 8


@pytest.mark.parametrize("how", ["silence", "disconnected", "replaced"])
def test_frames_that_a_dead_consumer_held_are_lost_and_its_canvas_stays(how: str) -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 5, 7]), 0.0)
    made.take(report(2, [2, 4, 6], stitched=1), 0.0)
    made.take(replace(report(2, [2, 4, 6, 8], sequence=2), run=RunReport()), 0.0)  # a status: all of it is gone
    if how == "silence":
        made.take(report(1, [1, 3, 5, 7], sequence=2), 6.0)
    elif how == "disconnected":
        made.connect(2, False)
    else:
        made.take(report(2, [], instance="new", run=0), 0.0)
    sums = made.sums(6.0 if how == "silence" else 1.0)
    assert (sums.received, sums.stitched, sums.pending, sums.lost) == (5, 5, 0, 2)
    assert made.current is not None
    assert made.current.patches == 5
    assert made.restarts == (how == "replaced")


def test_a_consumer_that_was_only_silent_is_live_again_when_it_reports() -> None:
    made = accounts(1)
    made.take(report(1, [1, 2], stitched=1), 0.0)
    assert not made.live(9.0)
    made.take(report(1, [1, 2], sequence=2), 9.0)
    assert [consumer.number for consumer in made.live(9.0)] == [1]
    assert made.sums(9.0).lost == 0


def test_a_state_with_a_frame_of_another_canvas_waits_until_the_frame_is_taken_back() -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 4]), 0.0)
    made.take(report(2, [2, 4]), 0.0)
    assert made.recalls.open(["i1", "i2"]) == {"i2": [(1, 4)]}
    made.take(report(2, [2, 4, 5], sequence=2), 0.0)  # it has not read the orders yet
    assert made.current is not None
    assert (made.current.patches, made.twice(), made.recalls.number) == (3, 0, 1)
    made.take(replace(report(2, [2, 5], sequence=3), recalls=1), 0.0)
    assert (made.current.patches, made.twice(), made.missed(0.0)) == (5, 0, 0)
    assert made.recalls.open(["i1", "i2"]) == {}


def test_a_consumer_that_dies_before_it_has_taken_a_frame_back_leaves_what_it_had_before() -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 4]), 0.0)
    made.take(report(2, [2]), 0.0)
    made.take(report(2, [2, 4, 5], sequence=2), 0.0)
    made.connect(2, False)
    assert made.recalls.open(["i1"]) == {}
    assert made.current is not None
    assert (made.current.patches, made.twice()) == (4, 0)
    made.take(report(1, [1, 3, 4, 6], sequence=2), 0.0)
    assert made.missed(0.0) == 1  # 5


def test_a_frame_that_cannot_be_taken_back_is_counted() -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 4]), 0.0)
    made.take(report(2, [2, 4]), 0.0)
    made.take(replace(report(2, [2, 4], sequence=2), recalls=1), 0.0)  # its patch was kept no more
    assert made.current is not None
    assert (made.current.patches, made.twice(), made.recalls.number) == (5, 1, 1)


def test_a_stream_that_is_not_dealt_out_is_counted_and_not_taken_back() -> None:
    made = accounts(1, 2)
    for consumer in (1, 2):
        made.take(report(consumer, list(range(1, 100))), 0.0)
    assert made.twice() == 99
    assert made.recalls.open(["i1", "i2"]) == {}


def test_a_frame_that_died_with_one_consumer_and_was_stitched_by_another_is_not_missed() -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 4]), 0.0)
    made.take(report(2, [2, 5, 6], stitched=1), 0.0)
    made.connect(2, False)
    made.take(report(1, [1, 3, 4, 6, 7], sequence=2), 0.0)
    sums = made.sums(0.0)
    assert (sums.lost, made.missed(0.0) + sums.lost) == (2, 1)  # 5 is gone, 6 is not
    assert made.twice() == 0


def test_what_was_taken_back_is_forgotten_with_its_scan() -> None:
    made = accounts(1, 2)
    made.take(report(1, [1, 3, 4]), 0.0)
    made.take(report(2, [2, 4]), 0.0)
    for scan in range(2, KEPT_GROUPS + 3):
        later = {"sequence": scan, "run": scan, "scan": f"s{scan}", "began": 100.0 * scan}
        made.take(report(1, [1], **later), 0.0)  # type: ignore[arg-type]
    assert made.recalls.open(["i1", "i2"]) == {}


def test_an_older_report_changes_nothing() -> None:
    made = accounts(1)
    made.take(report(1, [1, 2, 3], sequence=5), 0.0)
    made.take(report(1, [1], sequence=4), 0.0)
    assert made.current is not None
    assert made.current.patches == 3


def test_states_from_before_a_reset_are_left_out() -> None:
    made = accounts(1)
    made.take(report(1, [1, 2]), 0.0)
    made.empty()
    made.take(report(1, [1, 2, 3], sequence=2), 0.0, first_resets=1)
    assert made.current is not None
    assert made.current.patches == 0
    made.take(replace(report(1, [4], sequence=3), resets=1), 0.0, first_resets=1)
    assert made.current.patches == 1


def test_a_scan_that_comes_twice_under_one_id_is_two_in_every_consumer() -> None:
    made = accounts(1, 2)
    for consumer in (1, 2):
        made.take(report(consumer, [consumer]), 0.0)
    made.take(report(1, [1], sequence=2, run=2, earlier=1, began=200), 1.0)
    made.take(report(2, [2], sequence=2, run=2, earlier=1, began=201), 1.0)
    assert [group.patches for group in made.groups] == [2, 2]
    # what comes late of the first still goes there
    made.take(report(2, [2, 4], sequence=3, run=1, earlier=1), 1.0)
    assert [group.patches for group in made.groups] == [3, 2]


def test_scans_are_forgotten_but_not_what_was_missed_in_them() -> None:
    made = accounts(1)
    for scan in range(KEPT_GROUPS + 3):
        made.take(
            report(1, [1, 3], sequence=scan + 1, run=scan + 1, scan=f"s{scan}", earlier=2 * scan, began=20.0 * scan),
            float(scan),
        )
    assert len(made.groups) == KEPT_GROUPS
    assert made.missed(KEPT_GROUPS + 3.0) == KEPT_GROUPS + 3


@pytest.mark.slow
@given(st.permutations(range(6)), st.integers(0, 5))
def test_the_order_of_the_reports_does_not_matter(order: list[int], dead: int) -> None:
    reports = [report(consumer, [consumer, consumer + 6], stitched=1) for consumer in range(6)]
    made = accounts(*range(6))
    for index in order:
        made.take(reports[index], 0.0)
    made.connect(dead, False)
    sums = made.sums(1.0)
    assert sums.received == sums.stitched + sums.pending + sum(sums.dropped.values()) == 11
    assert (sums.lost, made.missed(1.0), made.twice()) == (1, 0, 0)


def test_consumers_with_different_engines_are_told_of() -> None:
    made = accounts(1, 2)
    for consumer, precision in ((1, "float32"), (2, "bfloat16")):
        look = EngineReport(name="OpenVINO", version="2026.4", precision=precision)
        made.take(replace(report(consumer, [consumer]), engine=look), 0.0)
    said = add_up(made, made.live(0.0), 0.0, Zero(), "")["message"]
    assert (
        said
        == "consumers run OpenVINO 2026.4 bfloat16, OpenVINO 2026.4 float32: the canvas depends on who had which frame"
    )
    assert add_up(made, made.live(0.0)[:1], 0.0, Zero(), "")["message"] == "no report of consumer 2"


# Settings


def settings(**values: object) -> ClusterSettings:
    return ClusterSettings.model_validate({"source": {"channel": "det:Image"}, **values})


def test_the_file_says_what_each_process_is_told() -> None:
    made = settings(
        prefix="t:", consumers={"count": 2, "updates": 3, "cuda_devices": ["0", "1"]},
        consumer={"engine": {"name": "None", "threads": 1}}, only={"2": {"engine": {"threads": 4}}},
        ioc={"phase_rate_hz": 2.0},
    )  # fmt: skip
    assert made.consumer_values(2)["engine"] == {"name": "None", "threads": 4}
    assert made.consumer_values(1)["orders"] == "t:ClusterOrders_RBV"
    values = made.ioc_values()
    assert values["cluster"]["consumers"] == [1, 2]
    assert (values["phase_rate_hz"], values["engine"]["name"]) == (2.0, "None")
    command = consumer_command(made, 2)
    assert command.environment == {"CUDA_VISIBLE_DEVICES": "1"}
    assert command.arguments[command.arguments.index("--distributor-updates") + 1] == "3"
    arguments = command.arguments[command.arguments.index("--processor-args") + 1]
    assert '"threads": 4' in arguments


def test_a_mirror_stands_between_detector_and_consumers() -> None:
    made = settings(prefix="t:", source={"channel": "det:Image", "mirror": True})
    assert mirror_command(made).arguments == ("--channel-map", "(t:mirror,det:Image,pva,2000)")
    assert made.channel == "t:mirror"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[consumers]\ncount = 2\n", "source"),
        ('[source]\nchannel = "d"\n[only.7]\nstate_s = 1\n', "only.7 is no consumer"),
        ('[source]\nchannel = "d"\n[ioc]\nprefix = "x:"\n', "ioc.prefix"),
        ('[source]\nchannel = "d"\n[consumers]\noutput = "out"\n', r"needs a \*"),
    ],
)
def test_a_wrong_file_says_what_is_wrong(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        load_settings(ClusterSettings, path, {})


def test_processor_arguments_are_a_consumers_settings_over_its_file(tmp_path: Path) -> None:
    path = tmp_path / "consumer.toml"
    path.write_text('state_s = 2.0\n[engine]\nname = "None"\nthreads = 2\n')
    made = consumer_settings({"config": str(path), "engine": {"threads": 3}, "processorId": 4, "inputChannel": "x"})
    assert (made.state_s, made.engine.name, made.engine.threads) == (2.0, "None", 3)
    with pytest.raises(ConfigError, match="unknown key 'stat_s'"):
        consumer_settings({"stat_s": 1})


def test_tables_are_laid_over_one_another() -> None:
    below = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert merged(below, {"a": {"c": 3}, "d": [2]}) == {"a": {"b": 1, "c": 3}, "d": [2]}
    assert below["a"] == {"b": 1, "c": 2}
    assert dotted({"a": {"b": {"c": 1}}, "d": 2}) == {"a.b.c": 1, "d": 2}


def test_the_wait_before_a_restart_grows_to_a_limit() -> None:
    waits = [back_off_s(deaths) for deaths in range(1, 9)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1.0, 30.0)


# Children

SLEEPER = """
import os, signal, sys, time
try:
    print(os.getpid(), flush=True)
    while True:
        time.sleep(0.05)
except KeyboardInterrupt:
    open(sys.argv[1], "w").write("clean")
"""
PARENT = """
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "ptychostream.processes.child", str(os.getpid()), "sleeper", sys.argv[1]])
time.sleep(60)
"""


@pytest.mark.server
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_cleanly_when_it_is_asked_to_and_when_its_parent_dies(
    tmp_path: Path, number: signal.Signals
) -> None:
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    ended = tmp_path / "ended"
    command = [sys.executable, "-c", PARENT, str(ended)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        if number == signal.SIGTERM:
            os.kill(child, number)
            wait_until(ended.exists, 20, "the child's clean end")
        parent.kill()
    wait_until(lambda: ended.exists() and ended.read_text() == "clean", 20, "the child's clean end")


def test_a_child_whose_parent_is_gone_does_not_start(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ptychostream.processes.child", "1", "sleeper", str(tmp_path / "x")]
    assert subprocess.run(command, timeout=30, check=False, capture_output=True).returncode == 1


@pytest.mark.slow
def test_the_command_checks_its_file_and_prints_what_it_would_start(tmp_path: Path) -> None:
    path = tmp_path / "cluster.toml"
    text = 'prefix = "t:"\n[source]\nchannel = "det:Image"\nmirror = true\n[consumer]\nengine = { name = "%s" }\n'
    command = [sys.executable, "-m", "ptychostream", "cluster", str(path), "--check"]
    path.write_text(text % "None")
    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line.split()[2] for line in done.stdout.splitlines()] == [
        "pvapy.cli.mirrorServer", "ptychostream", "pvapy.cli.hpcConsumer", "pvapy.cli.hpcConsumer",
    ]  # fmt: skip
    path.write_text(text % "Fastest")
    done = subprocess.run(command, timeout=60, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "engine.name" in done.stderr
    assert "section consumer" in done.stderr


def test_every_cause_travels_in_a_report() -> None:
    assert list(structure()["dropped"]) == [cause.value for cause in DropCause]


def test_without_a_consumer_counts_are_zero_and_what_is_measured_is_unknown() -> None:
    added = add_up(accounts(1, 2), [], 0.0, Zero(), "")
    for name, (of, figure) in figures(Report).items():
        if figure.over_consumers is not None and of is int:
            assert isinstance(added[name], int), name
    unknown = (added["execution_ms"], added["mean_counts"], *added["latency_ms"])
    assert all(map(math.isnan, unknown))
    assert largest([math.nan, 3.0, math.nan]) == 3.0
