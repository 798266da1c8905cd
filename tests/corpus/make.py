"""Writes the corpus: `python tests/corpus/make.py` the part that is laid out by hand, with `--record` the recorded too.

Each file is what `ptychostream record --raw` writes; manifest.json says where it comes from, and what a receiver must
make of every update. Recorded files change from time to time only in their times.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "helpers")]

import numpy as np
from cases import Case, written
from emitter_probe import seen
from emitters import EMITTERS, Emitter, hdf5_counts
from epics_env import EpicsEnv
from layouts import Sent

from ptychostream.rawpva.fields import Layout
from ptychostream.rawpva.raw_server import RawServer
from ptychostream.rawpva.raw_updates import RawFile, RawWriter
from ptychostream.rawpva.raw_values import RawUpdate
from ptychostream.recording.raw_record import RawRecordSettings, record_raw

FORMAT = ".pvaraw"
MANIFEST = HERE / "manifest.json"
BEGAN_NS = 1_760_000_000_000_000_000
PERIOD_NS = 10_000_000

Entry = dict[str, Any]


def write_case(name: str, case: Case) -> Entry:
    """One file of the written part; returns its entry of the manifest."""
    path = HERE / f"{name}{FORMAT}"
    path.unlink(missing_ok=True)
    channel = f"corpus:{name}"
    layout = Layout(case.type)
    everything = (1 << len(layout.leaves)) - 1
    with RawWriter(path, channel, began_ns=BEGAN_NS) as writer:
        for number, sent in enumerate(case.updates):
            when = BEGAN_NS + number * PERIOD_NS
            writer.write(RawUpdate(when, case.type, everything, 0, sent.serialise(case.type)))
    entry: Entry = {
        "kind": "written",
        "emitter": case.emitter,
        "source": case.source,
        "about": case.about,
        "channel": channel,
        "updates": [expected(sent) for sent in case.updates],
    }
    if case.ids is not None:
        entry["ids"] = {
            "accepted": case.ids,
            "missed": case.missed,
            "disordered": case.disordered,
            "resets": case.resets,
        }
    return entry


def expected(sent: Sent) -> Entry:
    """What the manifest says of an update that is laid out by hand."""
    if not sent.members:
        return {"is": "empty"}
    if sent.counts is None:
        return {"is": "refused", "cause": sent.cause}
    return seen(sent.counts, sent.members["uniqueId"], sent.time, sent.attributes)


def record_emitter(name: str, emitter: Emitter) -> Entry:
    """One file of the recorded part."""
    path = HERE / f"{name}{FORMAT}"
    path.unlink(missing_ok=True)
    with EpicsEnv() as env, tempfile.TemporaryDirectory() as folder:
        program = subprocess.Popen(
            emitter.command(Path(folder)),
            env=env.server_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if emitter.told else subprocess.DEVNULL,
            cwd=folder,
            text=True,
        )
        assert program.stdin
        try:
            with env.active():
                _record(path, emitter, program)
        finally:
            program.kill()
            program.wait()
            program.stdin.close()
        updates = independent_reading(path, emitter, env)
    return {
        "kind": "recorded",
        "emitter": emitter.emitter,
        "source": emitter.source,
        "about": emitter.about,
        "channel": emitter.channel,
        "updates": updates,
    }


def _record(path: Path, emitter: Emitter, program: subprocess.Popen[str]) -> None:
    """Record, and give the word once the first update is here."""
    came = threading.Event()
    settings = RawRecordSettings(frames=emitter.updates, seconds=60)
    stop = threading.Event()

    def run() -> None:
        record_raw(emitter.channel, path, settings, stop, on_updates=lambda *_: came.set())

    recorder = threading.Thread(target=run)
    recorder.start()
    if came.wait(60) and emitter.told and program.stdin:
        program.stdin.write("go\n")
        program.stdin.flush()
    recorder.join()


def independent_reading(path: Path, emitter: Emitter, env: EpicsEnv) -> list[Entry]:
    """What p4p's own NTNDArray makes of each update; of compressed ones, what was in the file they come from."""
    from p4p.client.thread import Context
    from p4p.nt import NTNDArray

    entries: list[Entry] = []
    with RawFile(path) as recording, RawServer([emitter.channel], env.server_env()) as server:
        for update in recording:
            server.publish(emitter.channel, update)
            with Context("pva", conf=env.epics, useenv=False, nt=False) as context:
                value = context.get(emitter.channel, timeout=30)
            if "uniqueId" not in value:
                entries.append({"is": "refused", "cause": "Type"})
                continue
            if value.value is None:
                entries.append({"is": "empty"})
                continue
            stamps = (value.dataTimeStamp, value.timeStamp)
            time_s = next((s.secondsPastEpoch + 1e-9 * s.nanoseconds for s in stamps if s.secondsPastEpoch > 0), 0.0)
            attributes = {a.name: a.value for a in value.attribute if isinstance(a.value, int | float | str)}
            compressed = bool(value.codec.name)
            counts = _compressed(emitter, value.uniqueId) if compressed else np.asarray(NTNDArray.unwrap(value))
            if counts.dtype.kind not in "iu":
                entries.append({"is": "refused", "cause": "Type"})
            elif counts.ndim != 2:
                entries.append({"is": "refused", "cause": "Shape"})
            else:
                entries.append(seen(counts, value.uniqueId, time_s, attributes))
    return entries


def _compressed(emitter: Emitter, number: int) -> np.ndarray[Any, Any]:
    if emitter.emitter == "pvapy-ad-sim-server":
        return hdf5_counts()[(number - 1) % len(hdf5_counts())]
    random = np.random.default_rng(6)  # as the program in emitters.py
    return [random.poisson(30, (6, 8)).astype(np.uint16) for _ in range(number)][-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="run the emitters that can be run, and record them")
    parser.add_argument("names", nargs="*", help="of the emitters to record; all when none is named")
    arguments = parser.parse_args()
    manifest: dict[str, Entry] = json.loads(MANIFEST.read_text()) if MANIFEST.exists() else {}
    manifest = {name: entry for name, entry in manifest.items() if entry["kind"] == "recorded"}
    for name, case in written():
        manifest[name] = write_case(name, case)
    if arguments.record:
        for name in arguments.names or EMITTERS:
            began = time.monotonic()
            manifest[name] = record_emitter(name, EMITTERS[name])
            print(f"{name}: {len(manifest[name]['updates'])} updates in {time.monotonic() - began:.1f} s")
    MANIFEST.write_text(json.dumps(dict(sorted(manifest.items())), indent=1) + "\n", encoding="utf-8")
    total = sum(path.stat().st_size for path in HERE.glob(f"*{FORMAT}"))
    print(f"{len(manifest)} files, {total / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
