"""When the readbacks are brought up to date."""

from __future__ import annotations

import threading
import time

from ptychostream.ioc.pace import UpdatePace


def updates(pace: UpdatePace) -> list[bool]:
    """Whether each update was a regular one, until the end."""
    seen = []
    while pace.wait():
        seen.append(pace.regular)
        pace.done()
    return seen


def test_what_nobody_asks_for_comes_in_periods() -> None:
    pace = UpdatePace(50.0)
    for _ in range(3):
        assert pace.wait() and pace.regular
        pace.done()


def test_who_asks_need_not_wait_for_the_period() -> None:
    pace = UpdatePace(0.001)
    threading.Timer(0.1, pace.ask).start()
    assert pace.wait() and not pace.regular


def test_a_thousand_requests_cost_few_updates_and_the_last_is_followed_by_one() -> None:
    pace = UpdatePace(0.001)
    values, shown, last = [0], [0], threading.Event()

    def change() -> None:
        for _ in range(1000):
            values[0] += 1
            pace.ask()
            time.sleep(0.0005)
        last.wait(10)
        pace.stop()

    changing = threading.Thread(target=change)
    changing.start()
    began, count = time.monotonic(), 0
    while pace.wait():
        count += 1
        shown[0] = values[0]
        if shown[0] == 1000:
            last.set()
        pace.done()
    changing.join()
    assert shown[0] == 1000
    assert count <= 2 + (time.monotonic() - began) / 0.05


def test_requests_do_not_keep_the_regular_updates_away() -> None:
    pace = UpdatePace(5.0)
    seen: list[bool] = []
    while sum(seen) < 2:
        pace.ask()
        assert pace.wait()
        seen.append(pace.regular)
        pace.done()
    assert len(seen) > 2


def test_it_ends_at_once() -> None:
    pace = UpdatePace(0.001)
    threading.Timer(0.1, pace.stop).start()
    assert updates(pace) == [] and pace.stopped
