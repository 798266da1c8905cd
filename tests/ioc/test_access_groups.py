"""Who may write which group of records: as operator, as agent, as somebody else; over CA, over PVA, and by RPC."""

from __future__ import annotations

import getpass
import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from epics_env import EpicsEnv
from ioc_helpers import record_list

pytestmark = pytest.mark.server

P = "who:"
RECORDS: Mapping[str, tuple[str, Any]] = {
    "OPERATOR": ("BatchSize", 4),
    "MODEL": ("ModelFile", "other.onnx"),
    "AGENT": ("Agent:LastScan", "scan 7"),
    "PROGRESS": ("Agent:Epoch", 3),
    "READONLY": ("FramesStitched_RBV", 5),
}
"""A record of each group, and a value that it does not have."""
WRITABLE = ("OPERATOR", "MODEL", "AGENT", "PROGRESS")
MAY = {
    "everybody": set(WRITABLE),
    "operator": set(WRITABLE),
    "agent": {"MODEL", "AGENT", "PROGRESS"},
    "nobody": set(),
}
"""What the user of this test may write, by the role that it has."""
OTHER = "nobody"
"""A user without a role."""

# What becomes of puts (JSON: record → value) and of a call of Model:Load: "taken", "refused", or an error.
CLIENT = """
import asyncio, json, os, pwd, sys
import aioca
from epicscorelibs.ca.cadef import CAException
from p4p.client.thread import Context, RemoteError
from p4p.nt import NTURI
from ptychostream.model.model_push import QUERY, push_channel
prefix, values = sys.argv[1], json.loads(sys.argv[2])
if sys.argv[3:]:
    os.setuid(pwd.getpwnam(sys.argv[3]).pw_uid)  # here, as that user may not be able to start this interpreter
found = {"ca": {}, "pva": {}}
async def over_ca():
    for name, value in values.items():
        kind = aioca.DBR_CHAR_STR if name == "ModelFile" else None
        try:
            await aioca.caput(prefix + name, value, datatype=kind, wait=True, timeout=20)
            found["ca"][name] = "taken"
        except (aioca.CANothing, CAException) as error:
            found["ca"][name] = "refused" if "Write access denied" in str(error) else str(error)
def verdict(error):
    text = str(error)
    return "refused" if "permitted" in text or "may not load models" in text else text
asyncio.run(over_ca())
with Context("pva", nt=False) as context:
    for name, value in values.items():
        try:
            context.put(prefix + name, value, timeout=20, request="record[block=true]field(value)")
            found["pva"][name] = "taken"
        except RemoteError as error:
            found["pva"][name] = verdict(error)
    try:
        context.rpc(push_channel(prefix), NTURI(list(QUERY)).wrap(push_channel(prefix), kws={"model": []}), timeout=20)
        found["rpc"] = "taken"
    except RemoteError as error:
        found["rpc"] = verdict(error)
print(json.dumps(found))
"""


def puts(env: EpicsEnv, user: str | None = None) -> dict[str, Any]:
    """What becomes of the puts of `RECORDS` as this user, or as another one."""
    values = {name: value for name, value in RECORDS.values()}
    command = [sys.executable, "-c", CLIENT, P, json.dumps(values), *([user] if user else [])]
    done = subprocess.run(command, env=env.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def expected(may: set[str]) -> dict[str, Any]:
    verdicts = {RECORDS[group][0]: "taken" if group in may else "refused" for group in RECORDS}
    return {"ca": verdicts, "pva": verdicts, "rpc": verdicts[RECORDS["MODEL"][0]]}


@contextmanager
def ioc_for(folder: Path, operators: str, agents: str) -> Iterator[EpicsEnv]:
    """An IOC with one operator and one agent; none of both: everybody may write."""
    config = folder / "ioc.toml"
    access = f'[access]\noperators = ["{operators}"]\nagents = ["{agents}"]\n' if operators else ""
    config.write_text(f'prefix = "{P}"\n[engine]\nname = "None"\n{access}')
    with EpicsEnv() as env, env.start_ioc("--config", str(config), prefix=P) as ioc:
        yield env
        assert ioc.stop() == 0, ioc.output


@pytest.mark.parametrize("role", MAY)
def test_each_group_takes_puts_of_those_who_may_and_of_nobody_else(role: str, tmp_path: Path) -> None:
    me = getpass.getuser()
    operator, agent = (me if role == one else "somebody" for one in ("operator", "agent"))
    with ioc_for(tmp_path, "" if role == "everybody" else operator, agent) as env:
        before = {record: env.pvget(P + record).value for record, _ in RECORDS.values()}
        assert puts(env) == expected(MAY[role])
        for group, (record, value) in RECORDS.items():
            after = env.pvget(P + record).value
            assert after == (value if group in MAY[role] else before[record]), record


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may start a client as another user")
def test_another_user_beside_an_operator_is_refused(tmp_path: Path) -> None:
    assert pwd.getpwnam(OTHER).pw_uid != os.geteuid()
    for agent, may in ((OTHER, MAY["agent"]), ("somebody", MAY["nobody"])):
        with ioc_for(tmp_path, getpass.getuser(), agent) as env:
            assert puts(env, OTHER) == expected(may)
            assert puts(env) == expected(MAY["operator"])


def test_the_records_of_this_test_are_one_of_each_group() -> None:
    groups = {
        record["name"].removeprefix("P:"): record["fields"]["ASG"] for one in record_list().values() for record in one
    }
    assert {group: groups[record] for group, (record, _) in RECORDS.items()} == {group: group for group in RECORDS}
    assert set(groups.values()) == set(RECORDS)
