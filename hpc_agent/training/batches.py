"""Batches of pairs for training, which a thread makes while the network trains on the previous one."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.hpc_agent.corpus.simulated_pairs import FreshPairs
from ptychostream.hpc_agent.corpus.training_data import Corpus

_AHEAD = 4


class Dose(Settings):
    """Train for fewer photons than were measured.

    Attributes
    ----------
    factor
        The dose to train for, as a fraction of the measured one.
    method
        How the measured counts are reduced. "binomial": each photon is kept with probability `factor`,
        which is exact for Poisson counts. "floor": counts · `factor`, rounded down, as Babu et al. 2023 do (Suppl. 1).
    """

    factor: float = Field(1.0, gt=0, le=1)
    method: Literal["binomial", "floor"] = "binomial"


def thin(counts: NDArray[np.generic], dose: Dose, random: np.random.Generator) -> NDArray[np.float32]:
    """[N, H, W] counts at a lower dose."""
    if dose.factor == 1:
        return counts.astype(np.float32)
    if dose.method == "floor":
        return np.floor(counts.astype(np.float32) * np.float32(dose.factor))
    return random.binomial(np.rint(counts).astype(np.int64), dose.factor).astype(np.float32)


@dataclass(frozen=True)
class Batch:
    """`counts` [B, H, W] float32, `weight` [B, h, w] of the loss, and the labels by head [B, h, w]."""

    counts: NDArray[np.float32]
    weight: NDArray[np.float32]
    labels: dict[str, NDArray[np.float32]]

    def __len__(self) -> int:
        return len(self.counts)


def make_batch(
    corpus: Corpus,
    indices: NDArray[np.intp],
    heads: Sequence[str],
    dose: Dose,
    random: np.random.Generator,
    fresh: FreshPairs | None = None,
) -> Batch:
    """The pairs at `indices`; for each index behind the corpus's last one, a pair of `fresh`."""
    kept = indices if fresh is None else indices[indices < len(corpus)]
    counts, source = corpus.counts[kept], corpus.source[kept]
    labels = {head: np.asarray(getattr(corpus, head)[kept], np.float32) for head in heads}
    if fresh is not None and len(kept) < len(indices):
        drawn = fresh.draw(len(indices) - len(kept), random)
        counts, source = np.concatenate([counts, drawn.counts]), np.concatenate([source, drawn.source])
        labels = {head: np.concatenate([labels[head], getattr(drawn, head)]) for head in heads}
    return Batch(counts=thin(counts, dose, random), weight=corpus.weights[source], labels=labels)


def batches(
    corpus: Corpus,
    parts: Iterable[NDArray[np.intp]],
    heads: Sequence[str],
    dose: Dose,
    random: np.random.Generator,
    on_wait: Callable[[float], None] | None = None,
    fresh: FreshPairs | None = None,
) -> Iterator[Batch]:
    """A batch for each of `parts`, in order, made up to four ahead; `on_wait` is called with each waiting time, s.

    An exception while a batch is made is raised here. Leaving the loop early ends the thread.
    """
    ready: queue.Queue[Batch | Exception | None] = queue.Queue(_AHEAD)
    left = threading.Event()

    def make() -> None:
        try:
            for part in parts:
                if left.is_set():
                    return
                ready.put(make_batch(corpus, part, heads, dose, random, fresh))
        except Exception as error:  # noqa: BLE001 - handed to the thread that trains, which raises it
            ready.put(error)
        else:
            ready.put(None)

    maker = threading.Thread(target=make, name="batches", daemon=True)
    maker.start()
    try:
        while True:
            began = time.perf_counter()
            item = ready.get()
            if item is None:
                return
            if on_wait is not None:
                on_wait(time.perf_counter() - began)
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        left.set()
        while maker.is_alive():  # it may wait for a place in the queue
            try:
                ready.get(timeout=0.05)
            except queue.Empty:
                continue
        maker.join()
