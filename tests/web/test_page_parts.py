"""The parts of the page's server that need no server: catalogue, guard, requests, history, events."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from folders import ROOT

from ptychostream.config import load_settings
from ptychostream.errors import ConfigError, StreamError
from ptychostream.web.catalog import catalog
from ptychostream.web.events import MOST, Events
from ptychostream.web.guard import Guard, token_for
from ptychostream.web.history import SECONDS, History
from ptychostream.web.record_watch import RecordWatch
from ptychostream.web.requests import read_request
from ptychostream.web.settings import WebSettings

PAGE = ROOT / "ptychostream/web/page"


@pytest.mark.server
def test_the_catalogue_has_every_record_of_the_database() -> None:
    command = [sys.executable, "-m", "ptychostream.ioc.records.record_table", "--json"]
    told = json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)
    there = {}
    for group, infos in told.items():
        for info in infos:
            array = info["type"] == "waveform" and info["fields"].get("FTVL") != "CHAR"
            if not array:
                there[info["name"].removeprefix("P:")] = (group, info)
    shown = {name for name in there if f"{name}_RBV" not in there}
    assert shown == set(catalog())
    for name, entry in catalog().items():
        group, info = there[name]
        unit = info["fields"].get("EGU", "")
        assert (entry.kind, entry.about) == (info["type"], info["fields"]["DESC"])
        assert entry.unit == ("" if unit == "1" else unit)
        assert entry.group == group, name


def test_every_record_that_the_page_names_exists() -> None:
    text = (PAGE / "names.js").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
    named = set(re.findall(r'"((?:[A-Z][\w]*:)?[A-Z]\w+(?:_RBV)?)"', code))
    records = {name for name in named if name.endswith("_RBV") or ":" in name}
    assert len(records) > 25
    assert records <= set(catalog()), records - set(catalog())
    group = re.search(r'DROPPED_GROUP = "(\w+)"', text)
    assert group is not None
    assert group[1] in {entry.group for entry in catalog().values()}


def test_the_browser_is_told_of_every_module_at_once() -> None:
    """Else it finds them one after the other, and the page is ready later."""
    named = set(re.findall(r'rel="modulepreload" href="page/(\w+)\.js"', (PAGE / "index.html").read_text("utf-8")))
    assert named == {path.stem for path in PAGE.glob("*.js")}


def test_the_page_loads_nothing_from_elsewhere() -> None:
    for path in PAGE.iterdir():
        text = path.read_text(encoding="utf-8")
        addresses = set(re.findall(r"https?://[^\s\"']+", text)) - {"http://www.w3.org/2000/svg"}
        assert addresses == set(), path.name
        assert "innerHTML" not in text, f"{path.name}: texts of an IOC must stay texts"


HERE = {"Host": "127.0.0.1:8080"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (HERE, 0),
        ({"Host": "localhost:8080", "Origin": "http://localhost:8080"}, 0),
        ({"Host": "[::1]:8080"}, 0),
        ({**HERE, "Origin": "http://evil.example"}, 403),
        ({**HERE, "Origin": "http://127.0.0.1:9999"}, 403),
        ({**HERE, "Origin": "null"}, 403),
        ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "proxy.example", "Origin": "https://proxy.example"}, 0),
        ({**HERE, "Origin": "https://proxy.example"}, 0),
    ],
)
def test_a_page_from_elsewhere_is_refused(headers: dict[str, str], status: int) -> None:
    assert Guard("", True, ["https://proxy.example/"]).refusal(headers, "", "")[0] == status


def test_a_token_is_taken_from_the_address_the_cookie_and_the_header() -> None:
    guard, token = Guard("s" * 20, False), "s" * 20
    assert guard.refusal({"Host": "h"}, token, "")[0] == 0
    assert guard.refusal({"Host": "h"}, "", token)[0] == 0
    assert guard.refusal({"Host": "h", "Authorization": f"Bearer {token}"}, "", "")[0] == 0
    for given in ("", "s" * 19, "é" * 20):
        assert guard.refusal({"Host": "h"}, given, given)[0] == 401


def test_another_address_than_loopback_always_has_a_token(tmp_path: Path) -> None:
    assert token_for(None, True) == ""
    assert len(token_for(None, False)) >= 24
    assert token_for(None, False) != token_for(None, False)
    for host, loopback in (("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("x", False)):
        assert WebSettings(host=host).on_loopback is loopback
    path = tmp_path / "token"
    with pytest.raises(ConfigError, match="cannot be read"):
        token_for(path, True)
    path.write_text("short\n")
    with pytest.raises(ConfigError, match="at least 16"):
        token_for(path, True)
    path.write_text("a-token-that-is-long-enough\n")
    assert token_for(path, True) == "a-token-that-is-long-enough"


def test_settings_that_make_no_sense_are_refused() -> None:
    for values in ({"iocs": []}, {"iocs": ["a:", "a:"]}, {"port": 70000}, {"clients": 0}, {"hosts": "x"}):
        with pytest.raises(ConfigError):
            load_settings(WebSettings, None, values)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"ask":"show"}', '{"ask":"put","record":"EndScan"}', '{"ask":"drawn","image":3}',
        '{"ask":"show","ioc":"w:","images":["' + '","'.join("abcdefghijklmnopq") + '"]}', "[" * 3000,
        '{"ask":"drawn","image":"x","more":1}', '{"ask":"show","ioc":"' + "x" * 61 + '","images":[]}',
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(text: str) -> None:
    with pytest.raises(StreamError):
        read_request(text)


def test_history_keeps_the_newest_seconds_and_the_means_of_minutes() -> None:
    history = History(["a", "b"])
    for second in range(SECONDS + 100):
        history.sample(float(second), {"a": second, "b": "text" if second % 2 else None})
    found = history.series(["a", "nobody"], 0.0)
    assert list(found) == ["time", "a"]
    assert len(found["a"]) == SECONDS
    assert found["a"][-1] == SECONDS + 99
    assert history.series(["a"], SECONDS + 97.0)["a"] == [SECONDS + 98, SECONDS + 99]
    assert set(history.series(["b"], 0.0)["b"]) == {None}
    minutes = history.series(["a"], 0.0, minutes=True)
    assert minutes["a"][:2] == [29.5, 89.5]


@pytest.mark.server
def test_the_end_of_a_monitor_does_not_wait_for_its_own_callback() -> None:
    watch, stuck = RecordWatch("w:", ["a"], lambda *_: None, lambda _: None), []

    class Monitor:
        """Its end waits for the callback that runs in another thread, as pvxs does."""

        def __del__(self) -> None:
            callback = threading.Thread(target=watch._mark, args=("a",), daemon=True)
            callback.start()
            callback.join(2.0)
            stuck.append(callback.is_alive())

    watch._open["a"] = Monitor()
    watch._leave()
    assert stuck == [False]


def test_events_are_bounded_and_a_text_that_counts_takes_one_place() -> None:
    events = Events()
    for number in range(3 * MOST):
        events.add(100.0 + 0.001 * number, "StatusMessage_RBV", "plugin", f"{number} frames wait", 0)
    assert [event["text"] for event in events.since(0)] == ["2999 frames wait"]
    assert events.since(0)[0]["replaces"] == 1
    for number in range(3 * MOST):
        events.add(200.0 + number, "ModelState_RBV", "model", f"state {number}" + "x" * 1000, 0)
    found = events.since(0)
    assert len(found) == MOST
    assert max(len(event["text"]) for event in found) <= 300
    assert events.since(found[-2]["number"]) == found[-1:]
