"""`ptychostream bench agent`: the agent's loop over thousands of scans, with fake steps and a real, growing corpus.

The loop, its journal, the policy, the store of labelled scans and the retention are those of the agent. A step takes no
time and leaves the files of a step: a reconstruction, a shard of the corpus. Each scan is reconstructed, judged,
labelled and trained on.

Figures, for each tenth of the scans

- `ms`: median wall time of a scan, from its report to the next one.
- `cpu_ms`: mean processor time of a scan.
- `rss_mb`, `disk_mb`: resident memory, and size of the work folder, at the tenth's end.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import statistics
import tempfile
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ptychostream.benchmarks.measured import say
from ptychostream.hpc_agent.agent import Agent
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.training_data import Corpus
from ptychostream.hpc_agent.disk_room import DiskRoom
from ptychostream.hpc_agent.edge.judge_dose import EdgeDose
from ptychostream.hpc_agent.edge.refining import Refining
from ptychostream.hpc_agent.edge.switches import Switches
from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.hpc_agent.journal.policy import PolicySettings
from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper
from ptychostream.hpc_agent.keys import ScanKeys
from ptychostream.hpc_agent.running.runner_process import Progress
from ptychostream.hpc_agent.scan_work import ScanWork
from ptychostream.hpc_agent.scans.collect import Collected, ScanEvent
from ptychostream.hpc_agent.scans.scan_checks import FrameStatistics
from ptychostream.hpc_agent.work_settings import WorkSettings
from ptychostream.model.contract import Preprocessing
from ptychostream.processes.bounded import status_bytes
from ptychostream.processes.hardware import cpu_name
from ptychostream.scans.scan_files import ScanOptions

_TENTHS = 10
_WAIT_S = 60.0
_STATISTICS = FrameStatistics(64, 0, 0, 0, 1.0)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `ptychostream bench agent`."""
    parser.add_argument("--scans", type=int, default=10_000, metavar="N", help="scans (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=64, metavar="N", help="pairs of a scan (default %(default)s)")
    parser.add_argument(
        "--keep-pairs", type=int, default=6400, metavar="N", help="pairs that the corpus keeps (default %(default)s)"
    )
    parser.add_argument(
        "--keep-scans", type=int, default=200, metavar="N", help="scans that keep their folder (default %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=math.inf, metavar="S", help="end with the tenth in which they are over"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the work folder is made")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    logging.getLogger("ptychostream.hpc_agent").setLevel(logging.WARNING)  # not two lines for each scan
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-", dir=arguments.folder) as folder:
        kept = {"keep_pairs": arguments.keep_pairs, "keep_scans": arguments.keep_scans}
        report = measure(Path(folder), arguments.scans, arguments.pairs, **kept, seconds=arguments.seconds)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        for line in report["tenths"]:
            print(f"{line['scans']:6} scans: " + ", ".join(f"{key} {line[key]}" for key in line if key != "scans"))
    return 0


@dataclass(frozen=True)
class _Model:
    path: Path
    checkpoint: Path | None = None


class _World:
    """The runner, the model store and the edge. The network is always so bad that it is trained again."""

    def __init__(self, folder: Path, pairs: int, keep_pairs: int) -> None:
        self.folder = folder
        self.live = ""
        self.trained = 0
        self._pairs, self._keep_pairs = pairs, keep_pairs
        self._random = np.random.default_rng(1)

    def submit(self, step: str, arguments: dict[str, Any], _: Progress | None = None) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(getattr(self, f"_{step}")(arguments))
        return future

    def _reconstruct(self, arguments: dict[str, Any]) -> dict[str, Any]:
        folder = Path(arguments["folder"])
        folder.mkdir(parents=True)
        (folder / "reconstruction.h5").write_bytes(bytes(20_000))
        return {"reconstruction": str(folder / "reconstruction.h5"), "diverged": False, "r_factor": 0.1}

    def _judge(self, _: dict[str, Any]) -> dict[str, Any]:
        return {"ssim_1px": 0.1}

    def _label(self, arguments: dict[str, Any]) -> dict[str, Any]:
        store, key = CorpusStore(Path(arguments["corpus"])), arguments["key"]
        store.append(key, self._corpus(key), provenance={"scan": arguments["scan"]})
        store.keep(self._keep_pairs, key)
        return {"pairs": self._pairs, "corpus_pairs": len(store)}

    def _train(self, arguments: dict[str, Any]) -> dict[str, Any]:
        with CorpusStore(Path(arguments["corpus"])).opened(newest=10) as (corpus, _, _):
            assert len(corpus) > 0
        self.trained += 1
        return {"sha256": f"{self.trained:064x}"}

    def _corpus(self, key: str) -> Corpus:
        count, shape = self._pairs, (32, 32)
        return Corpus(
            counts=self._random.integers(0, 500, (count, *shape)).astype(np.uint16),
            phase=np.zeros((count, *shape), np.float32),
            amplitude=np.ones((count, *shape), np.float32),
            source=np.zeros(count, np.intp),
            weights=np.ones((1, *shape), np.float32),
            pixel_m=1e-8,
            preprocessing=Preprocessing(),
            scans=(key,),
            measured=count,
        )

    def find(self, sha256: str) -> _Model | None:
        return _Model(self.folder / f"{sha256}.onnx")

    def switches(self) -> Switches:
        return Switches(policy=PolicySettings(tolerance=0.2))

    def live_model(self) -> str | None:
        return self.live

    def previous_model(self) -> str | None:
        return None

    def saves_canvases(self) -> bool:
        return False

    def dose(self) -> EdgeDose:
        return EdgeDose()

    def refining(self) -> Refining:
        return Refining()

    def report(self, **values: Any) -> None:
        """Nobody reads it."""

    def push(self, sha256: str) -> None:
        self.live = sha256

    def collect(self, event: ScanEvent) -> Collected:
        return Collected(Path(event.file), ScanOptions(), event.scan_id, _STATISTICS)


class _Ended:
    """Tells when a scan has ended."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, key: str) -> None:
        with self._changed:
            self.keys.add(key)
            self._changed.notify_all()

    def wait(self, key: str) -> None:
        with self._changed:
            if not self._changed.wait_for(lambda: key in self.keys, _WAIT_S):
                raise TimeoutError(f"scan {key} has not ended within {_WAIT_S:g} s")
            self.keys.discard(key)


class _Work(ScanWork):
    """Reports the end of each scan."""

    def __init__(self, *parts: Any, ended: _Ended, **more: Any) -> None:
        super().__init__(*parts, **more)
        self._ended = ended

    def work(self, entry: Any, stop: threading.Event) -> str:
        outcome = super().work(entry, stop)
        self._ended(entry.key)
        return outcome


def measure(
    folder: Path, scans: int, pairs: int, *, keep_pairs: int, keep_scans: int, seconds: float = math.inf
) -> dict[str, Any]:
    """Run the loop over so many scans, one after the other, or until the tenth in which the time is over."""
    world, ended = _World(folder, pairs, keep_pairs), _Ended()
    room = DiskRoom(folder)
    journal = Journal(folder / "journal.sqlite", patience=room)
    policy = PolicyKeeper(journal, lambda: world.switches().policy, lambda _: None)
    work = _Work(
        journal,
        world,
        world,
        WorkSettings(folder, keep_scans=keep_scans),
        collect=world.collect,
        edge=world,
        policy=policy,
        room=room,
        report=lambda _: None,
        on_progress=lambda _: None,
        ended=ended,
    )
    agent = Agent(journal, policy, work, world, world.push, ScanKeys(journal, {}), room)
    thread = threading.Thread(target=agent.run)
    thread.start()
    tenths: list[dict[str, Any]] = []
    end = time.monotonic() + seconds
    try:
        for tenth in range(_TENTHS):
            if time.monotonic() >= end:
                break
            numbers = range(tenth * scans // _TENTHS, (tenth + 1) * scans // _TENTHS)
            tenths.append(_tenth(agent, ended, numbers))
            rss_mb = round(status_bytes("VmRSS") / 2**20, 1)
            tenths[-1].update(scans=numbers.stop, rss_mb=rss_mb, disk_mb=_disk_mb(folder))
            say(f"{tenths[-1]}")
        shards = len(CorpusStore(folder / "corpus").shards())
        folders = len(list((folder / "scans").iterdir()))
    finally:
        agent.stop()
        thread.join()
        journal.close()
    return {
        "scans": tenths[-1]["scans"],
        "trained": world.trained,
        "pairs_of_a_scan": pairs,
        "keep_pairs": keep_pairs,
        "keep_scans": keep_scans,
        "shards_at_the_end": shards,
        "scan_folders_at_the_end": folders,
        "cpu": cpu_name(),
        "tenths": tenths,
    }


def _tenth(agent: Agent, ended: _Ended, numbers: range) -> dict[str, Any]:
    times = []
    cpu = time.process_time()
    for number in numbers:
        began = time.perf_counter()
        agent.scan_completed(ScanEvent(str(number), f"/data/{number}.h5"))
        ended.wait(str(number))
        times.append(time.perf_counter() - began)
    return {
        "ms": round(statistics.median(times) * 1e3, 2),
        "cpu_ms": round((time.process_time() - cpu) / len(numbers) * 1e3, 2),
    }


def _disk_mb(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)
