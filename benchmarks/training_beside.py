"""A training like the agent's in a separate process, while something else is measured.

`python -m ptychostream.benchmarks.training_beside SIZE`. It has the niceness and the number of threads
of the agent's steps. It prints one line of JSON for every epoch. SIGTERM ends it.
"""

from __future__ import annotations

import json
import os
import sys

from ptychostream.hpc_agent.running.runner import RunnerSettings
from ptychostream.processes.niceness import stand_back
from ptychostream.processes.stopping import stop_on_signals

PAIRS = 512
EPOCH_S = 2.0


def main(size: int) -> None:
    told = RunnerSettings().arguments()
    stand_back(told["nice"])
    os.environ["OMP_NUM_THREADS"] = str(told["threads"])  # torch reads it when it is loaded, as in a step

    from ptychostream.benchmarks.training_memory import synthetic_corpus
    from ptychostream.hpc_agent.training.training import Epoch, TrainingOptions, train

    corpus = synthetic_corpus(PAIRS, (size, size))
    options = TrainingOptions(epochs=1, time_limit_s=EPOCH_S)

    def said(epoch: Epoch) -> None:
        print(json.dumps({"pairs_per_s": epoch.rate}), flush=True)

    with stop_on_signals() as stop:
        while not stop.is_set():
            train(corpus, options, on_epoch=said)


if __name__ == "__main__":
    main(int(sys.argv[1]))
