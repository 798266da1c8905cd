"""Who may write what: values alone, by the users that are named; and the put log."""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import record_list, run_python, wait_for

from ptychostream.errors import ConfigError
from ptychostream.ioc.config.settings import AccessSettings

pytestmark = pytest.mark.server

WRITABLE = {"OPERATOR", "MODEL", "AGENT", "PROGRESS"}
VALUES = {"VAL", "VAL$"}

# Prints which of the fields (a JSON file with a list of PVs) this client may write over Channel Access.
CHANNEL_ACCESS = """
import json, pathlib, sys
import aioca
names = json.loads(pathlib.Path(sys.argv[1]).read_text())
async def main():
    found = await aioca.cainfo(names, timeout=120, throw=False)
    print(json.dumps([name for name, info in zip(names, found) if not info.ok or info.write]))
aioca.run(main())
"""
FIELDS = """
import json, sys
import ptychostream.ioc.records.database
from softioc import softioc
from softioc.imports import get_field_offsets
NOACCESS = 17  # not served: structures within the record
print(json.dumps({kind: sorted(name for name, (_, _, type) in get_field_offsets(kind).items() if type != NOACCESS)
                  for kind in sys.argv[1:]}))
"""


def fields_of(env: EpicsEnv, prefix: str) -> list[str]:
    """Every field of every record that somebody may write, with the long-string form of texts."""
    records = [record for group in record_list().values() for record in group]
    writable = [record for record in records if record["fields"].get("ASG") in WRITABLE]
    kinds = sorted({record["type"] for record in writable})
    fields = json.loads(run_python(env, FIELDS, *kinds))
    assert len(writable) > 60
    names = []
    for record in writable:
        name = prefix + record["name"].removeprefix("P:")
        names += [f"{name}.{field}" for field in fields[record["type"]]]
    return names


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["open", "operators"])
def test_no_field_but_the_value_can_be_written(mode: str, tmp_path: Path) -> None:
    users = f'operators = ["{getpass.getuser()}"]' if mode == "operators" else ""
    config = tmp_path / "ioc.toml"
    config.write_text(f'prefix = "all:"\n[engine]\nname = "None"\n[access]\nmode = "{mode}"\n{users}\n')
    with EpicsEnv() as env, env.start_ioc("--config", str(config), prefix="all:") as ioc:
        names = fields_of(env, "all:")
        (tmp_path / "names").write_text(json.dumps(names))
        may = json.loads(run_python(env, CHANNEL_ACCESS, str(tmp_path / "names"), timeout=240))
        assert {name.rpartition(".")[2] for name in may} <= VALUES, may
        assert len(may) > 60, "the values themselves can be written"
        others = [name for name in names if name.rpartition(".")[2] not in VALUES]
        for start in range(0, len(others), 200):
            some = others[start : start + 200]
            answers = env.pva.put(some, ["1"] * len(some), timeout=60, throw=False)
            taken = [name for name, answer in zip(some, answers, strict=True) if answer is None]
            assert not taken, taken
        assert ioc.stop() == 0, ioc.output


def lines(ioc: Any, text: str) -> list[str]:
    return [line for line in ioc.output.splitlines() if text in line]


def test_the_put_log_says_what_was_there_and_who_wrote() -> None:
    with EpicsEnv() as env, env.start_ioc("--prefix", "log:", "--engine", "None") as ioc:
        env.caput("log:BatchSize", 4)
        env.caput("log:DropPolicy", 1)
        env.caput("log:InputPVAName", list(b'a "quoted"\nname\0'))
        env.pva.put("log:BatchSize", 6, timeout=15)
        env.caput("log:EndScan", 1)
        env.pva.put("log:EndScan", 1, timeout=15)
        env.caput("log:Agent:Heartbeat", 3)
        env.caput("log:Agent:LastScan", "scan 7")
        wait_until(lambda: lines(ioc, "put log:Agent:LastScan"), 15, ioc.output)
        user = getpass.getuser()
        first, second = lines(ioc, "put log:BatchSize")
        assert '= 4, was "8", by ' in first and f'"{user}" at "127.0.0.1' in first, first
        assert '= "6", was "4", by ' in second and "127.0.0.1" in second, second
        (policy,) = lines(ioc, "put log:DropPolicy")
        assert '= 1 ("' in policy and 'was "' in policy, policy
        (text,) = lines(ioc, "put log:InputPVAName")
        assert r'= "a \"quoted\"\nname", was "", by' in text, text
        over_ca, over_pva = lines(ioc, "put log:EndScan")
        assert '= 1 ("End"), was "Done", by ' in over_ca, over_ca
        assert '= "End", was "Done", by ' in over_pva, over_pva
        (scan,) = lines(ioc, "put log:Agent:LastScan")
        assert '= "scan 7", was "", by' in scan, scan
        assert not lines(ioc, "Heartbeat"), "what changes every second is not logged"
        assert "everybody on the network may write" in ioc.output
        assert env.caget("log:Access_RBV") == 0
        assert ioc.stop() == 0, ioc.output


def test_a_locked_ioc_takes_no_put() -> None:
    with EpicsEnv() as env, env.start_ioc("--prefix", "shut:", "--engine", "None", "--access", "locked") as ioc:
        for record, value in (("BatchSize", 4), ("Agent:Heartbeat", 1), ("Agent:Epoch", 1), ("Engine", 1)):
            with pytest.raises(PermissionError):
                env.caput(f"shut:{record}", value)
        assert env.caget("shut:Access_RBV") == 2
        assert ioc.stop() == 0, ioc.output


@pytest.mark.parametrize(
    ("group", "may", "may_not"), [("operators", "BatchSize", None), ("agents", "Agent:Heartbeat", "BatchSize")]
)
def test_a_group_that_is_left_out_is_empty(group: str, may: str, may_not: str | None, tmp_path: Path) -> None:
    config = tmp_path / "ioc.toml"
    user = getpass.getuser()
    config.write_text(f'prefix = "part:"\n[engine]\nname = "None"\n[access]\n{group} = ["{user}"]\n')
    with EpicsEnv() as env, env.start_ioc("--config", str(config), prefix="part:") as ioc:
        env.caput(f"part:{may}", 4)
        if may_not is not None:
            with pytest.raises(PermissionError):
                env.caput(f"part:{may_not}", 4)
        assert env.caget("part:Access_RBV") == 1
        assert ioc.stop() == 0, ioc.output


def test_a_site_s_file_goes_by_the_address_of_the_connection(tmp_path: Path) -> None:
    site = tmp_path / "site.acf"
    rules = "\n".join(
        f"ASG({group}) {{ RULE(1, READ) RULE(0, WRITE, TRAPWRITE) {{ HAG(here) }} }}"
        for group in ("OPERATOR", "MODEL", "AGENT", "PROGRESS")
    )
    site.write_text(
        f"HAG(here) {{ 127.0.0.1 }}\nASG(DEFAULT) {{ RULE(1, READ) }}\nASG(READONLY) {{ RULE(1, READ) }}\n{rules}\n"
    )
    with EpicsEnv() as env:
        with env.start_ioc("--prefix", "host:", "--engine", "None", "--access-file", str(site)) as ioc:
            env.caput("host:BatchSize", 4)
            env.pva.put("host:BatchSize", 5, timeout=15)
            wait_for(env, "host:BatchSize_RBV", 5)  # a put without block does not wait for its handler
            assert ioc.stop() == 0, ioc.output
        site.write_text(site.read_text().replace("127.0.0.1", "192.0.2.1"))
        with env.start_ioc("--prefix", "far:", "--engine", "None", "--access-file", str(site)) as ioc:
            with pytest.raises(PermissionError):
                env.caput("far:BatchSize", 4)
            assert ioc.stop() == 0, ioc.output


def test_a_record_names_files_within_the_configured_folders_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "route.csv").write_text("x,y\nhidden,2\n")
    (tmp_path / "out.csv").write_text("x,y\n1,2\n")
    (tmp_path / "in" / "link.csv").symlink_to(tmp_path / "out.csv")
    config = tmp_path / "ioc.toml"
    config.write_text(f'prefix = "root:"\n[engine]\nname = "None"\n[access]\nroots = ["{tmp_path / "in"}"]\n')
    with EpicsEnv() as env, env.start_ioc("--config", str(config), prefix="root:") as ioc:
        for record in ("RouteFile", "SSIMReference", "ModelFile", "SaveDirectory"):
            for path in (tmp_path / "out.csv", tmp_path / "in" / "link.csv", Path("/dev/zero")):
                env.caput(f"root:{record}", list(str(path).encode() + b"\0"))
                wait_until(lambda: "lies outside the folders" in env.caget("root:StatusMessage_RBV"), 15, "refused")
                assert env.caget(f"root:{record}") == ""
        env.caput("root:RouteFile", list(str(tmp_path / "in" / "route.csv").encode() + b"\0"))
        env.caput("root:PositionSource", 2)
        wait_until(lambda: "a value that is no number" in ioc.output, 15, lambda: ioc.output)
        assert "hidden" not in ioc.output
        assert ioc.stop() == 0, ioc.output


def test_settings_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    for values, said in (
        ({"mode": "operators"}, "needs users"),
        ({"mode": "locked", "operators": ("a",)}, "takes no users"),
        ({"file": tmp_path / "x", "agents": ("a",)}, "either a file or"),
        ({"operators": ("a) { }",)}, "pattern"),
    ):
        with pytest.raises(ValueError, match=said):
            AccessSettings.model_validate(values)


def test_a_site_s_file_without_a_group_is_refused(tmp_path: Path) -> None:
    from ptychostream.ioc.records.access import choose

    site = tmp_path / "site.acf"
    site.write_text("ASG(OPERATOR) {}\nASG(MODEL) {}\nASG(AGENT) {}\nASG(READONLY) {} # ASG(PROGRESS)\n")
    with pytest.raises(ConfigError, match="does not define the access security group PROGRESS"):
        choose(AccessSettings(file=site))
