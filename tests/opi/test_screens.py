"""The generated files: equal to what is committed, of records that exist, and complete."""

from __future__ import annotations

import itertools
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest
from folders import ROOT
from screen_files import FOLDER, SCREENS, channels

from ptychostream.cli.main import main
from ptychostream.ioc.images.images import UNITS
from ptychostream.ioc.images.refined_images import REFINED_IMAGES
from ptychostream.opi.alarms import ALARMS, alarm_tree
from ptychostream.opi.archive import POLICIES, policy
from ptychostream.opi.database import beamline, database
from ptychostream.opi.parts import BEAMLINE_PREFIX, PREFIX

IMAGES = (*UNITS, *REFINED_IMAGES)
OF_THE_AGENT = {"Agent:Lease"}
"""Written by the agent's program, although operators may."""


def test_what_is_committed_is_what_generate_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", str(tmp_path)]) == 0
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert len(capsys.readouterr().out.split()) == len(written)
    committed = {
        path.name: path.read_text(encoding="utf-8")
        for path in FOLDER.iterdir()
        if path.suffix in (".bob", ".xml", ".txt")
    }
    assert written == committed, "run `ptychostream generate opi`"


def test_the_templates_are_read_as_epics_reads_them() -> None:
    """`expected_records.json` is what EPICS makes of them; fields that it writes in another way are left out."""
    expected = json.loads((ROOT / "tests/ioc/expected_records.json").read_text(encoding="utf-8"))
    plain = re.compile("DESC|EGU|ASG|[ZO]NAM|..ST|[HLZO]{1,2}SV|FTVL|SCAN|PINI")
    found = database()
    others = {f"P:{name}" for name in found} ^ expected.keys()
    assert {expected[name]["group"] for name in others} <= {"gpu", "cluster"}
    for name, record in found.items():
        wanted = expected[f"P:{name}"]
        assert (record.type, record.group) == (wanted["type"], wanted["group"]), name
        told = {key: value for key, value in record.fields.items() if plain.fullmatch(key)}
        assert told.items() <= wanted["fields"].items(), name
        groups = {
            key: text for key, text in wanted["info"].items() if key != "Q:group"
        }  # added to records of other templates
        assert dict(record.info) == groups, name


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_every_channel_of_a_screen_is_a_record_or_an_image(path: Path) -> None:
    names = {f"{PREFIX}{name}" for name in database()} | {f"{BEAMLINE_PREFIX}{name}" for name in beamline()}
    shown = channels(path.read_text(encoding="utf-8"))
    assert len(shown) > 10
    assert shown - names - {f"pva://{PREFIX}{name}" for name in IMAGES} == set()


def test_every_setpoint_is_on_some_screen() -> None:
    shown = set().union(*(channels(path.read_text(encoding="utf-8")) for path in SCREENS))
    wanted = {f"{PREFIX}{one.name}" for one in database().values() if one.is_setpoint} - {
        f"{PREFIX}{name}" for name in OF_THE_AGENT
    }
    assert len(wanted) > 60
    assert wanted - shown == set()
    assert {f"pva://{PREFIX}{name}" for name in IMAGES} <= shown


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_a_screen_is_readable_and_says_what_it_shows(path: Path) -> None:
    root = ET.fromstring(path.read_text(encoding="utf-8"))
    assert root.find("macros") is None, "those of a display win over the caller's"
    width, height = (int(root.findtext(key, "0")) for key in ("width", "height"))
    assert width <= 1920
    assert height <= 1080
    sizes = [float(font.attrib["size"]) for font in root.iter("font") if "size" in font.attrib]
    assert min(sizes) >= 14
    for widget in root.iter("widget"):
        x, y, wide, high = (int(widget.findtext(key, "0")) for key in ("x", "y", "width", "height"))
        where = f"{widget.attrib['type']} {widget.findtext('name')}"
        assert x >= 0 and y >= 0 and x + wide <= width and y + high <= height, where
        if widget.find("pv_name") is not None:
            assert widget.findtext("tooltip"), where
            assert widget.findtext("border_alarm_sensitive", "true") == "true", where


Places = tuple[str, int, int, int, int]


def places(path: Path) -> list[Places]:
    """Type and name, left, top, right and bottom of each widget; no panels, and no widget that a rule may hide."""
    found = []
    for widget in ET.parse(path).iter("widget"):
        x, y, wide, high = (int(widget.findtext(key, "0")) for key in ("x", "y", "width", "height"))
        hidden = any(rule.attrib["prop_id"] == "visible" for rule in widget.iter("rule"))
        if widget.attrib["type"] != "rectangle" and not hidden:
            found.append((f"{widget.attrib['type']} {widget.findtext('name')}", x, y, x + wide, y + high))
    return found


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_no_widget_lies_on_another(path: Path) -> None:
    pairs = itertools.combinations(places(path), 2)
    assert [
        (one[0], other[0])
        for one, other in pairs
        if one[1] < other[3] and other[1] < one[3] and one[2] < other[4] and other[2] < one[4]
    ] == []


def test_screens_open_only_screens_that_exist() -> None:
    opened = {one.text for path in SCREENS for one in ET.parse(path).iter("file")}
    assert opened == {path.name for path in SCREENS} - {"main.bob"}


def test_every_alarm_is_one_and_says_what_to_do() -> None:
    records = database()
    alarms = [alarm for group in ALARMS.values() for alarm in group]
    assert len({alarm.record for alarm in alarms}) == len(alarms) > 25
    for alarm in alarms:
        assert records[alarm.record].alarms, alarm.record
        assert len(alarm.remedy) > 10 and alarm.meaning.endswith("."), alarm.record
        assert (FOLDER / alarm.screen).exists(), alarm.record
    major = {one.name for one in records.values() if "MAJOR" in one.fields.values()}
    told = {alarm.record for alarm in alarms}
    # counted or shown by another alarm of the tree
    assert major - told <= {"AccountingError_RBV", "Agent:Heartbeat", "CA_CONN_CNT"}
    assert 'name="26id:QueueUse_RBV"' in alarm_tree("26id:")


def test_no_image_and_no_long_text_is_archived() -> None:
    lines = (FOLDER / "archive.txt").read_text(encoding="utf-8").splitlines()
    kept = dict(line.split() for line in lines if not line.startswith("#"))
    assert set(kept.values()) == set(POLICIES)
    assert not {f"ptycho:NN1:{name}" for name in IMAGES} & kept.keys()
    left = {name for name, record in database().items() if not policy(record)}
    assert {"PositionsX", "KeptScans_RBV", "HEARTBEAT"} <= left
    assert not left & {"SSIM_RBV", "FramesStitched_RBV", "ModelFile", "ArrayRate_RBV"}
    assert kept["ptycho:NN1:EndScan"] == "ptychostreamSetpoint"


def _boxes(root: ET.Element, kinds: Callable[[str], bool]) -> list[tuple[str, int, int, int, int]]:
    """Name, x, y, width and height of the widgets of some kinds."""
    return [
        (widget.findtext("name", ""), *(int(widget.findtext(side, "0")) for side in ("x", "y", "width", "height")))
        for widget in root.findall("widget")
        if kinds(widget.get("type", ""))
    ]


@pytest.mark.parametrize("path", SCREENS, ids=lambda path: path.stem)
def test_no_widget_leaves_its_panel(path: Path) -> None:
    """The panel is the smallest rectangle that holds its upper left corner, or the screen."""
    root = ET.parse(path).getroot()
    screen = ("screen", 0, 0, int(root.findtext("width", "0")), int(root.findtext("height", "0")))
    panels = [screen, *_boxes(root, lambda kind: kind == "rectangle")]
    widgets = _boxes(root, lambda kind: kind != "rectangle")
    assert len(widgets) > 10
    beyond = []
    for name, x, y, width, height in widgets:
        around = [box for box in panels if box[1] <= x < box[1] + box[3] and box[2] <= y < box[2] + box[4]]
        _, left, top, wide, high = min(around, key=lambda box: box[3] * box[4])
        if x + width > left + wide or y + height > top + high:
            beyond.append(name)
    assert beyond == []
