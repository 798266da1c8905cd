"""What every record must have, held against the templates as EPICS loads them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ioc_helpers import record_list

from ptychostream.errors import DropCause

pytestmark = pytest.mark.server

ALARMED = (
    "Accounting_RBV", "Connected_RBV", "QueueUse_RBV", "DroppedArrays_RBV", "FramesMissed_RBV", "ModelState_RBV",
)  # fmt: skip


@pytest.fixture(scope="module")
def groups() -> dict[str, list[dict[str, Any]]]:
    return record_list()


@pytest.fixture(scope="module")
def by_name(groups: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {record["name"].removeprefix("P:"): record for records in groups.values() for record in records}


def test_every_record_says_what_it_is_and_who_may_write_it(by_name: dict[str, dict[str, Any]]) -> None:
    assert len(by_name) > 130
    for name, record in by_name.items():
        fields = record["fields"]
        assert 0 < len(fields.get("DESC", "")) <= 40, name
        assert fields.get("ASG") in {"READONLY", "OPERATOR", "MODEL", "AGENT", "PROGRESS"}, name
        if record["type"] in {"ai", "ao", "calc"}:
            assert "PREC" in fields, f"{name} has no precision"
        if record["type"] in {"ai", "ao", "calc", "longin", "longout"} and name not in {"UniqueId_RBV"}:
            assert fields["LOPR"] != fields["HOPR"], f"{name} has no display limits"
        assert len(fields.get("EGU", "")) <= 7, f"{name}: Channel Access cuts the unit"
        assert fields.get("EGU") != "1", f"{name}: a pure number has no unit"
        if name.endswith("_RBV"):
            assert fields["ASG"] == "READONLY", name
        assert len(name) + 40 <= 80, "a prefix of 40 characters must fit"


def test_setpoints_come_back_after_a_restart_and_have_readbacks(by_name: dict[str, dict[str, Any]]) -> None:
    setpoints = 0
    for name, record in by_name.items():
        if "python:put" not in record["info"]:
            continue
        fields, info = record["fields"], record["info"]
        command = record["type"] == "bo" and fields["ZNAM"] == "Done"
        of_the_agent = {f"Agent:{part}" for part in ("Lease", "JudgedSHA", "ReconstructDone", "RetrainDone")}
        transient = name in {"ArrayCounter", "PositionsX", "PositionsY", "PositionsComplete"} | of_the_agent
        if command or transient:
            assert "autosaveFields" not in info, name
            assert fields["PINI"] == "NO", name
            continue
        setpoints += 1
        assert info.get("autosaveFields") == "VAL", name
        assert fields["PINI"] == "YES", name
        assert f"{name}_RBV" in by_name, name
        if record["type"] in {"ao", "longout", "int64out"}:
            assert float(fields["DRVL"]) < float(fields["DRVH"]), f"{name} takes any value"
    assert setpoints > 15


def test_a_setpoint_and_its_readback_are_of_one_kind(by_name: dict[str, dict[str, Any]]) -> None:
    """A client that sets one and waits for the other compares like with like."""
    readback = {"ao": "ai", "longout": "longin", "int64out": "int64in", "bo": "bi", "mbbo": "mbbi"}
    readback["stringout"] = "stringin"
    pairs = 0
    for name, record in by_name.items():
        back = by_name.get(f"{name}_RBV")
        if "autosaveFields" not in record["info"] or back is None or name == "ArrayCounter":
            continue
        pairs += 1
        assert back["type"] == readback.get(record["type"], record["type"]), name
        for field in (
            "FTVL",
            *(key for key in record["fields"] if re.fullmatch("(ZR|ON|TW|TH|FR|FV|SX|SV)ST|[ZO]NAM", key)),
        ):
            assert back["fields"].get(field) == record["fields"].get(field), (name, field)
    assert pairs > 40


def test_what_must_alarm_has_severities(by_name: dict[str, dict[str, Any]]) -> None:
    severities = re.compile("(HH|H|L|LL|Z|O|ZR|ON|TW|TH|FR|FV)SV")
    for name in ALARMED:
        fields = by_name[name]["fields"]
        assert any(severities.fullmatch(key) and value != "NO_ALARM" for key, value in fields.items()), name
    assert by_name["Accounting_RBV"]["fields"]["OSV"] == "MAJOR"
    assert (by_name["QueueUse_RBV"]["fields"]["HIGH"], by_name["QueueUse_RBV"]["fields"]["HIHI"]) == ("75", "100")


def test_every_drop_cause_has_its_record(by_name: dict[str, dict[str, Any]]) -> None:
    dropped = {name for name in by_name if re.fullmatch("Dropped.*_RBV", name)} - {"DroppedArrays_RBV"}
    assert dropped == {f"Dropped{cause.value}_RBV" for cause in DropCause}


def test_states_are_those_of_the_configuration(by_name: dict[str, dict[str, Any]]) -> None:
    code = (
        "import json; from ptychostream.ioc.model import model_slot as m\n"
        "from ptychostream.config import declared\n"
        "from ptychostream.ioc.config.settings import IocSettings\n"
        "from ptychostream.plugins.engines import engine_names\n"
        "choices = {one.key: one.choices for one in declared(IocSettings)}\n"
        "keys = ('engine.name', 'engine.precision', 'positions.source', 'dose_mode')\n"
        "print(json.dumps([*(choices[key] for key in keys), [x.name for x in m.SlotState], engine_names()]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    engines, precisions, sources, doses, slot, known = json.loads(done.stdout)

    def states(name: str) -> list[str]:
        fields = by_name[name]["fields"]
        keys = (f"{state}ST" for state in ("ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV"))
        return [fields[key] for key in keys if fields.get(key)]

    assert states("Engine") == states("Engine_RBV") == engines
    assert sorted(name.lower() for name in engines) == sorted(name.lower() for name in known)
    assert states("Precision") == states("Precision_RBV") == precisions
    assert [name.lower() for name in states("PositionSource")] == sources
    assert states("PositionSource_RBV") == states("PositionSource")
    assert states("DoseMode") == states("DoseMode_RBV") == doses
    assert [name.upper() for name in states("ModelState_RBV")] == [name.replace("_", "") for name in slot]


def test_no_state_reads_as_a_number(by_name: dict[str, dict[str, Any]]) -> None:
    """pvapy takes the number that it puts for the text of a state: findings/pvapy-number-to-a-menu-of-numbers.sh."""
    field = re.compile("(ZR|ON|TW|TH|FR|FV|SX|SV|EI|NI|TE|EL|TV|TT|FT|FF)ST|[ZO]NAM")
    fields = ((name, *pair) for name, record in by_name.items() for pair in record["fields"].items())
    states = [(name, state) for name, key, state in fields if field.fullmatch(key) and state]
    assert len(states) > 100
    assert [one for one in states if re.fullmatch(r"[-+]?(0[xX][0-9a-fA-F]+|[0-9.]+)", one[1].strip())] == []


def test_the_templates_are_those_of_the_declarations() -> None:
    code = (
        "import json; from ptychostream.ioc import declarations as d\n"
        "made = d.templates(d.IocSettings, d.readbacks()).items()\n"
        "made = {f'{group}_declared.template': text for group, text in made}\n"
        "kept = {p.name: p.read_text(encoding='utf-8') for p in d.DB_FOLDER.glob('*_declared.template')}\n"
        "print(json.dumps([made, kept]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    made, kept = json.loads(done.stdout)
    assert made == kept, "python -m ptychostream.ioc.declarations"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('record(ai, "$(P)$(R)Twice_RBV") {}\n', "record P:Twice_RBV exists (give the record another name)"),
        ('record(ai, "$(P)$(WHICH)Other") {}\n', "unknown macro $(WHICH) (use $(P), $(R), or give a default"),
    ],
)
def test_a_template_that_cannot_be_loaded_is_named(tmp_path: Path, text: str, message: str) -> None:
    first, bad = tmp_path / "first.template", tmp_path / "bad.template"
    first.write_text('record(ai, "$(P)$(R)Twice_RBV") {}\n', encoding="utf-8")
    bad.write_text(text, encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from ptychostream.ioc.records.database import load_template\n"
        "for path in sys.argv[1:]: load_template(Path(path), 'P:')"
    )
    command = [sys.executable, "-c", code, str(first), str(bad)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert f"ConfigError: {bad}: {message}" in done.stderr


def test_two_settings_of_one_record_are_refused() -> None:
    code = (
        "from typing import Annotated\n"
        "from ptychostream.config import Setting\n"
        "from ptychostream.ioc.config.settings import IocSettings\n"
        "from ptychostream.ioc.config.setpoints import setpoints\n"
        "class Mine(IocSettings):\n"
        "    other: Annotated[float, Setting('DoseScale', 'Another one', high=1)] = 0.0\n"
        "setpoints(Mine)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert "ConfigError: Mine: dose_scale and other are both record DoseScale" in done.stderr


def test_the_ioc_does_not_load_pvapy() -> None:
    code = "import sys, ptychostream.ioc.app; assert {'softioc', 'pvaccess'} & set(sys.modules) == {'softioc'}"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
