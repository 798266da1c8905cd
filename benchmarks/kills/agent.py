"""The agent killed at any moment: no scan that it took is lost or done twice, its newest model is the edge's."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np

from ptychostream.benchmarks.kills.place import PREFIX, START_S, Outcome, Place
from ptychostream.demo.pvs import Pvs
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan

_STEPS = "ptychostream.benchmarks.kills.agent_steps"
_CONFIG = """
prefix = "{prefix}"
work = {work}
[folder]
files = {files}
poll_s = 0.3
quiet_s = 0.1
[collect]
quiet_s = 0.1
timeout_s = 30
[policy]
scans = 100
[runner]
module = "{steps}"
[steps]
attempts = 1000
reconstruct = {{ ledger = {ledger} }}
label = {{ ledger = {ledger} }}
train = {{ ledger = {ledger} }}
judge = {{ ledger = {ledger} }}
"""


def run(place: Place, kills: int) -> Outcome:
    """Kill an agent so often, while scans go on."""
    outcome, work, scans = Outcome(), place.folder / "work", place.folder / "scans"
    scans.mkdir()
    (place.folder / "models").mkdir()
    ledger = place.folder / "ledger"
    paths = {"work": work, "files": scans / "{scan}.h5", "ledger": ledger}
    text = _CONFIG.format(prefix=PREFIX, steps=_STEPS, **{name: json.dumps(str(path)) for name, path in paths.items()})
    config = place.folder / "agent.toml"
    config.write_text(text, encoding="utf-8")
    words = ["ioc", "--prefix", PREFIX, "--engine", "ONNXRuntime", "--threads", "1"]
    words += ["--models-dir", str(place.folder / "models"), "--engine-cache", str(place.folder / "cache")]
    edge = place.victim("ptychostream", words)
    numbers = count(1)
    told: dict[str, str] = {}
    with edge, contextlib.closing(place.pvs()) as pvs:
        place.wait(lambda: pvs.value("HEARTBEAT") is not None, edge, START_S, "the edge")
        for _ in range(kills):
            agent = place.victim("ptychostream", ["agent", "--config", str(config)])
            with agent:
                if not told and not outcome.kills:
                    place.wait(lambda: _folder_seen(work), agent, START_S, "the agent's first look at the folder")
                else:
                    place.wait(lambda of=agent: b"works in" in of.log_path.read_bytes(), agent, START_S, "its start")
                _write(scans, next(numbers))
                place.live_and_die(agent, 0.0, 12.0)
            outcome.kills += 1
            now = _outcomes(work)
            for key, outcome_then in told.items():
                if now.get(key) != outcome_then:
                    outcome.lost.append(f"scan {key} was {outcome_then!r} and is {now.get(key)!r}")
            told = {key: text for key, text in now.items() if text}
        agent = place.victim("ptychostream", ["agent", "--config", str(config)])
        names = [f"s{number}" for number in range(1, next(numbers))]
        with agent:
            place.wait(lambda: all(_outcomes(work).get(name) for name in names), agent, 1800.0, f"all of {len(names)}")
            place.wait(lambda: not _waiting(work), agent, START_S, "the push")
        _check(outcome, names, work, ledger, pvs)
    return outcome


def _check(outcome: Outcome, names: list[str], work: Path, ledger: Path, pvs: Pvs) -> None:
    found, ends = _outcomes(work), Counter(ledger.read_text(encoding="utf-8").splitlines())
    for name in names:
        outcome.check(f"scan {name}", lambda name=name: found[name].startswith("trained on"))
        for step in ("reconstruct", "label", "train"):
            outcome.check(f"{step} of {name}", lambda line=f"{step} {name}": ends[line] == 1)
    if set(found) != set(names):
        outcome.lost.append(f"other scans than were there: {set(found) ^ set(names)}")
    store = ModelStore(work / "models")
    outcome.check("the models", lambda: not store.damaged())
    outcome.check("the live model", lambda: str(pvs.get("ModelSHA_RBV")[0]) == store.models()[-1].sha256)


def _write(folder: Path, number: int) -> None:
    random = np.random.default_rng(number)
    counts = random.poisson(5, (12, 16, 16)).astype(np.uint16)
    write_scan(folder / f"s{number}.h5", Scan(f"s{number}", counts, random.normal(0, 1e-6, (12, 2)), 1e4, 1.0, 1e-4))


def _outcomes(work: Path) -> dict[str, str]:
    """What the journal says of each scan."""
    with contextlib.closing(Journal(work / "journal.sqlite")) as journal:
        return {scan.key: scan.outcome or "" for scan in journal.scans()}


def _folder_seen(work: Path) -> bool:
    """Whether the agent knows what was in the folder before: what is there at its first look is left alone."""
    if not (work / "journal.sqlite").exists():
        return False
    with contextlib.closing(Journal(work / "journal.sqlite")) as journal:
        return journal.files() is not None


def _waiting(work: Path) -> bool:
    with contextlib.closing(Journal(work / "journal.sqlite")) as journal:
        return bool(journal.waiting_push)
