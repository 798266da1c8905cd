"""`ptychostream bench training`: compare training from the corpus on disk with a simple training loop.

The simple loop has the same network, batch size, loss and optimiser. It uses float32 in contiguous order, and its pairs
are in memory. The two take turns in one process, and the ratio is computed within each turn, because shared machines
are noisy. The time of validation is not counted.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ptychostream.benchmarks.training_memory import measure_memory, synthetic_corpus, write_corpus
from ptychostream.errors import ConfigError
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.training_data import Corpus, measure_normalisation
from ptychostream.hpc_agent.training.architectures import ARCHITECTURES, NETWORK_NAMES
from ptychostream.hpc_agent.training.devices import choose_device
from ptychostream.hpc_agent.training.networks import Network, make_network
from ptychostream.hpc_agent.training.training import TrainingOptions, train

WANTED_RATIO, WANTED_WAITING, WANTED_BYTES = 2.0, 0.10, 4 * 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sizes", default="64,128", help="pixels across a pattern (default %(default)s)")
    parser.add_argument("--network", choices=NETWORK_NAMES, default="ptychonn2", help="(default %(default)s)")
    parser.add_argument("--batch", type=int, default=16, metavar="N", help="(default %(default)s)")
    parser.add_argument("--steps", type=int, default=16, metavar="N", help="batches per turn (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each (default %(default)s)")
    parser.add_argument("--device", default="auto", help="cpu, cuda … (default: CUDA if there is one)")
    parser.add_argument(
        "--pairs", type=int, metavar="N", help="measure the memory that a corpus of N pairs takes instead (100000)"
    )
    parser.add_argument("--shape", default="128x128", metavar="HxW", help="shape of its patterns (default %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=20.0, metavar="S", help="duration of its training (default %(default)g)"
    )
    parser.add_argument(
        "--epochs", type=int, default=1, metavar="N", help="epochs of its training (default %(default)s)"
    )
    parser.add_argument("--folder", type=Path, metavar="DIR", help="folder of the corpora (default: temporary)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if min(arguments.rounds, arguments.steps) < 1 or arguments.batch < 2:
        raise ConfigError(
            "rounds, steps or batch", where="bench training", remedy="give 1 or more, a batch of 2 or more"
        )
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": {
            "threads": torch.get_num_threads(),
            "device": str(choose_device(arguments.device)),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "network": arguments.network,
        "batch": arguments.batch,
    }
    with Progress(console=Console(file=sys.stderr)) as progress, _folder(arguments.folder) as folder:
        if arguments.pairs is None:
            report["speed"] = [_measure_speed(size, arguments, folder, progress) for size in _sizes(arguments)]
        else:
            report["memory"] = _measure_memory(arguments, folder, progress)
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


class PlainLoop:
    """A simple training loop: float32, contiguous, everything in memory."""

    def __init__(self, corpus: Corpus, name: str, batch: int, device: torch.device) -> None:
        self.network: Network = make_network(name, 1, measure_normalisation(corpus.sample(256))).to(device).train()
        self._batch = batch
        self._counts = torch.from_numpy(np.asarray(corpus.counts[:], np.float32))[:, None].to(device)
        self._labels = {
            head: torch.from_numpy(np.asarray(getattr(corpus, head)[:], np.float32))[:, None].to(device)
            for head in self.network.heads
        }
        self._weight = torch.from_numpy(corpus.weights[0])[None, None].to(device)
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    def rate(self, pairs: int) -> float:
        """Pairs per second over one epoch with `pairs` pairs."""
        order = torch.randperm(pairs)
        started = time.perf_counter()
        total = 0.0
        for chosen in order.split(self._batch):
            predicted = self.network(self._counts[chosen])
            loss = sum(
                (self._weight * (predicted[head] - label[chosen]).abs()).sum() / (self._weight.sum() * len(chosen))
                for head, label in self._labels.items()
            )
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
            total += float(loss.detach())
        return pairs / (time.perf_counter() - started)


def _measure_speed(size: int, arguments: argparse.Namespace, folder: Path, progress: Progress) -> dict[str, Any]:
    pairs = arguments.steps * arguments.batch
    aside = arguments.batch
    store = CorpusStore(folder / f"speed{size}")
    whole = synthetic_corpus(pairs + aside, (size, size))
    store.append("bench", whole)
    options = TrainingOptions(network=arguments.network, batch=arguments.batch, epochs=1, device=arguments.device)
    plain = PlainLoop(whole, arguments.network, arguments.batch, choose_device(arguments.device))
    turns: list[dict[str, float]] = []
    task = progress.add_task(f"{size}×{size}", total=arguments.rounds + 1)
    with store.opened() as (stored, _, _):
        corpus = replace(stored, validation=np.arange(len(stored)) >= pairs)
        for number in range(arguments.rounds + 1):
            first = plain.rate(pairs) if number % 2 else 0.0
            result = train(corpus, options)
            epoch = result.history[0]
            turns.append({"plain": first or plain.rate(pairs), "train": epoch.rate, "waiting": epoch.waiting})
            progress.advance(task)
    turns = turns[1:]  # the first one warms up
    found: dict[str, Any] = {
        name: statistics.median(turn[name] for turn in turns) for name in ("plain", "train", "waiting")
    }
    ratio = statistics.median(turn["train"] / turn["plain"] for turn in turns)
    reached = ratio >= WANTED_RATIO and found["waiting"] <= WANTED_WAITING
    found |= {"size": size, "pairs": pairs, "precision": result.options.precision, "ratio": ratio, "reached": reached}
    return found | {"turns": turns}


def _measure_memory(arguments: argparse.Namespace, folder: Path, progress: Progress) -> dict[str, Any]:
    try:
        height, width = (int(side) for side in arguments.shape.split("x"))
    except ValueError as error:
        raise ConfigError(f"--shape {arguments.shape}", where="bench training", remedy="as in 128x128") from error
    task = progress.add_task("writing the corpus", total=arguments.pairs)
    corpus = folder / "memory"
    corpus.mkdir()
    write_corpus(corpus, arguments.pairs, (height, width), lambda done: progress.update(task, completed=done))
    size = sum(file.stat().st_size for file in corpus.iterdir())
    options = TrainingOptions(
        network=arguments.network,
        batch=arguments.batch,
        epochs=arguments.epochs,
        time_limit_s=arguments.seconds,
        device=arguments.device,
    )
    task = progress.add_task("training", total=None)
    found = measure_memory(corpus, options)
    progress.update(task, total=1, completed=1)
    found |= {"shape": [height, width], "corpus_bytes": size, "reached": found["peak_bytes"] < WANTED_BYTES}
    return found


@contextmanager
def _folder(parent: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ptychostream-bench-", dir=parent) as folder:
        yield Path(folder)


def _sizes(arguments: argparse.Namespace) -> list[int]:
    try:
        sizes = [int(word) for word in arguments.sizes.split(",")]
    except ValueError as error:
        where = "bench training"
        raise ConfigError(f"--sizes {arguments.sizes}", where=where, remedy="numbers with commas: 64,128") from error
    divisor = ARCHITECTURES[arguments.network].divisor
    if any(size < divisor or size % divisor for size in sizes):
        raise ConfigError(f"--sizes {arguments.sizes}", where="bench training", remedy=f"multiples of {divisor}")
    return sizes


def _print(report: dict[str, Any]) -> None:
    console = Console()
    if "speed" in report:
        table = Table("size", "plain, pairs/s", "from the store, pairs/s", "ratio", "waiting for batches")
        for row in report["speed"]:
            figures = [f"{row['plain']:.1f}", f"{row['train']:.1f} ({row['precision']})", f"{row['ratio']:.2f}"]
            table.add_row(str(row["size"]), *figures, f"{row['waiting']:.1%}")
        console.print(table)
    if "memory" in report:
        memory = report["memory"]
        console.print(
            f"{memory['pairs']:,} pairs, {memory['corpus_bytes'] / 1e9:.2f} GB on disk: "
            f"{memory['peak_bytes'] / 2**20:.0f} MiB resident at most, {memory['before_training_bytes'] / 2**20:.0f} "
            f"before training; {memory['pairs_per_s']:.0f} pairs/s, waiting for batches {memory['waiting']:.1%}"
        )
