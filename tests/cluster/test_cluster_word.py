"""Reports and orders count only with the cluster's key; whatever is changed on the way shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from ptychostream.cluster.id_set import IdSet
from ptychostream.cluster.settings import ClusterSettings
from ptychostream.errors import DropCause, StreamError
from ptychostream.imaging.stitching import CanvasState
from ptychostream.plugins.consumer.consumer_report import EngineReport, Report, RunReport
from ptychostream.plugins.consumer.consumer_word import check_report, checked_orders, signed_orders, signed_report
from ptychostream.plugins.consumer.consumer_worker import parse_orders
from ptychostream.plugins.flow.snapshot import LatestPatch

KEY, OTHER = b"k" * 32, b"o" * 32


def made() -> Report:
    canvas = CanvasState(1e-8, -3, 4, np.arange(12).reshape(3, 4), np.ones((3, 4), np.int64), 5)
    patch = LatestPatch(np.full((2, 2), 0.25, np.float32), "s", 7, 1e-6, 2e-6)
    ids = IdSet()
    ids.add(7)
    run = RunReport(number=2, scan="s", received=5, canvas=canvas, patch=patch, ids=ids, laid=ids)
    return Report(consumer=1, instance="i", sequence=3, time=1.5, received=5, dropped={DropCause.CODEC: 1}, run=run)


def canvas_with(report: Report, number: int) -> Report:
    assert report.run.canvas is not None
    value = report.run.canvas.value.copy()
    value[1, 1] = number
    return replace(report, run=replace(report.run, canvas=replace(report.run.canvas, value=value)))


CHANGES: dict[str, Callable[[Report], Report]] = {
    "consumer": lambda r: replace(r, consumer=2),
    "sequence": lambda r: replace(r, sequence=4),
    "time": lambda r: replace(r, time=1.5000001),
    "received": lambda r: replace(r, received=6),
    "dropped": lambda r: replace(r, dropped={DropCause.TYPE: 1}),
    "engine": lambda r: replace(r, engine=EngineReport(path="/elsewhere.onnx")),
    "one pixel": lambda r: canvas_with(r, 99),
    "no canvas": lambda r: replace(r, run=replace(r.run, canvas=None)),
    "no ids": lambda r: replace(r, run=replace(r.run, ids=None)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_report_that_was_changed_is_refused(change: str) -> None:
    report = signed_report(made(), KEY)
    check_report(report, KEY)
    check_report(replace(report, dropped={DropCause.CODEC: 1, DropCause.TYPE: 0}), KEY)  # as it is read back
    with pytest.raises(StreamError, match=r"consumer [12]: a report with a wrong signature .*same key_file"):
        check_report(CHANGES[change](report), KEY)


def test_reports_of_others_are_refused_and_without_a_key_all_are_taken() -> None:
    with pytest.raises(StreamError, match="not signed"):
        check_report(made(), KEY)
    with pytest.raises(StreamError, match="wrong signature"):
        check_report(signed_report(made(), OTHER), KEY)
    check_report(signed_report(made(), OTHER), None)
    assert signed_report(made(), None).signed == ""


def test_orders_are_followed_with_the_right_signature_alone() -> None:
    text = '{"session": "a", "ended": "s1"}'
    assert checked_orders(signed_orders(text, KEY), KEY) == text
    assert checked_orders(text, None) == signed_orders(text, None) == text
    assert checked_orders("", KEY) == ""
    for wrong, what in (
        (text, "not signed"),
        ("no json", "not signed"),
        (signed_orders(text, OTHER), "wrong signature"),
        (signed_orders(text, KEY).replace("s1", "s2"), "wrong signature"),
    ):
        with pytest.raises(StreamError, match=what):
            checked_orders(wrong, KEY)
    orders = parse_orders(signed_orders(text, KEY), KEY)
    assert orders is not None
    assert orders.ended == "s1"
    assert parse_orders(text, KEY) is None


def test_the_key_and_the_folder_of_models_reach_every_process() -> None:
    settings = ClusterSettings.model_validate(
        {"source": {"channel": "d"}, "key_file": "/k", "ioc": {"model": {"directory": "/models"}}}
    )
    assert settings.ioc_values()["cluster"]["key_file"] == "/k"
    values = settings.consumer_values(1)
    assert (values["key_file"], values["model_directory"]) == ("/k", "/models")
