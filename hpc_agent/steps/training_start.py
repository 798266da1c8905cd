"""Decides once what a training starts from; a restart after a kill keeps the decision."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.corpus.training_data import Corpus
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.steps.step_parts import write_json
from ptychostream.hpc_agent.training.bootstrap import BootstrapOptions, choose_start
from ptychostream.hpc_agent.training.checkpoint import load_checkpoint, save_checkpoint
from ptychostream.hpc_agent.training.networks import Network
from ptychostream.hpc_agent.training.training import TrainingOptions
from ptychostream.scans.scan import Scan

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingStart:
    """The start of a training.

    Attributes
    ----------
    network
        The network to start from; None: a new one.
    parents
        sha256 of the network's model.
    metrics
        What was tried, see `bootstrap.StartChoice.metrics`; empty if nothing was tried.
    """

    network: Network | None = None
    parents: list[str] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)


def from_checkpoint(path: str, parent: str, corpus: Corpus, options: TrainingOptions) -> TrainingStart | None:
    """Start from the weights at `path`; None if they belong to another kind of network.

    Raises
    ------
    TrainingError
        The checkpoint cannot be read.
    """
    network, sha256 = load_checkpoint(path)
    if network.name != options.network or network.reduction != corpus.input_shape[0] // corpus.output_shape[0]:
        _log.warning("%s holds a %s with reduction %d: not started from", path, network.name, network.reduction)
        return None
    found = parent or sha256
    return TrainingStart(network, [found] if found else [])


def from_store(
    path: Path,
    task: str,
    corpus: Corpus,
    models: ModelStore,
    options: TrainingOptions,
    trial: BootstrapOptions,
    scan: Scan,
) -> TrainingStart:
    """Start from the best stored model if it is better than a new network (see `bootstrap`); tried once for a `task`.

    Parameters
    ----------
    path
        File of the decision (JSON), with the weights beside it (.pt).
    scan
        A scan of the corpus; its energy and radiation tell which models suit.

    Raises
    ------
    TrainingError, ScanFileError
        The trial failed, or the decision cannot be written.
    """
    known = _known(path, task)
    if known is not None:
        return known
    start = choose_start(corpus, models, options, trial, energy_ev=scan.energy_ev, radiation=scan.radiation)
    _log.info("%s", start.reason)
    if start.network is not None:
        save_checkpoint(path.with_suffix(".pt"), start.network, start.sha256)
    write_json(path, {"task": task, "parents": start.parents, "metrics": start.metrics()})
    return TrainingStart(start.network, start.parents, start.metrics())


def _known(path: Path, task: str) -> TrainingStart | None:
    """The decision for this task; None: not decided yet."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["task"] != task:
            return None
        network = load_checkpoint(path.with_suffix(".pt"))[0] if content["parents"] else None
        return TrainingStart(network, list(content["parents"]), dict(content["metrics"]))
    except (OSError, ValueError, KeyError, TypeError, TrainingError):
        return None
