"""The collector's ears: consumers are found whenever they come."""

from __future__ import annotations

import sys

import pytest
from epics_env import EpicsEnv, wait_until

import ptychostream.pva  # noqa: F401 - pvaccess first
from ptychostream.ioc.collector.collector_links import Links
from ptychostream.plugins.consumer.consumer_report import Report

pytestmark = pytest.mark.server

CONSUMER = """
import sys, time
import pvaccess as pva
from ptychostream.plugins.consumer.consumer_report import FINAL, STATUS, Report
from ptychostream.plugins.consumer.consumer_encoding import encode_report
server = pva.PvaServer()
report = Report(consumer=1, instance=sys.argv[2], sequence=1, time=0.0)
for suffix in (FINAL, "", STATUS):
    server.addRecord(f"{sys.argv[1]}{suffix}", encode_report(report))
time.sleep(60)
"""


def test_a_consumer_is_found_after_many_searches_and_found_again_when_it_has_been_away() -> None:
    with EpicsEnv() as env, env.active():
        reports: list[Report] = []
        up: list[bool] = []
        links = Links({1: "li:1"}, reports.append, lambda _, connected: up.append(connected))
        links.start()
        for instance in ("first", "second"):
            for _ in range(9):  # it subscribes anew in between
                links.search()
            with env.start(sys.executable, "-c", CONSUMER, "li:1", instance) as consumer:
                wait_until(lambda: links.connected == 1, 30, lambda: consumer.output)
                wait_until(lambda said=instance: said in {one.instance for one in reports}, 20, "its reports")
                for _ in range(9):  # one that is there is left alone
                    links.search()
            wait_until(lambda: links.connected == 0, 20, "it is seen to be gone")
        links.stop()
        assert up == [True, False, True, False]
