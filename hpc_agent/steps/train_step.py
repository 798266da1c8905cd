"""The step that trains a network on the corpus and adds it to the model store."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.errors import GeometryError, TrainingError
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.training_data import Corpus, Source, measured
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.running.runner_process import Progress
from ptychostream.hpc_agent.steps.step_parts import opened, read_options, silent, source_of
from ptychostream.hpc_agent.steps.train_files import TrainFiles
from ptychostream.hpc_agent.steps.training_start import TrainingStart, from_checkpoint, from_store
from ptychostream.hpc_agent.steps.training_state import load_state, save_state
from ptychostream.hpc_agent.training.bootstrap import BootstrapOptions
from ptychostream.hpc_agent.training.model_job import Judged, TrainedModel, judge_frames, write_trained
from ptychostream.hpc_agent.training.training import Epoch, TrainingOptions, TrainingResult, TrainingState, train
from ptychostream.model.contract import ModelContract
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan import Scan

_log = logging.getLogger(__name__)


class TrainStepOptions(TrainingOptions):
    """As for `train`, and besides:

    Attributes
    ----------
    newest
        Train only on this many of the newest scans; None: on all scans of this geometry.
    warm
        Whether to start from the given weights.
    bootstrap
        How stored models are tried if no weights are given; None: start with a new network.
    processes
        Number of processes that train together, each on its own CUDA device; 0: one for each device.
    """

    newest: int | None = Field(None, ge=1)
    warm: bool = True
    bootstrap: BootstrapOptions | None = BootstrapOptions()
    processes: int = Field(1, ge=0)


@dataclasses.dataclass(frozen=True)
class TrainJob:
    """The arguments of the step.

    Attributes
    ----------
    scan, scan_options, key, reconstruction
        The newest scan. It gives the contract's geometry and probe, and the network is judged by its validation frames.
    folder
        The scan's folder, for files that are kept between attempts.
    corpus, store
        Folders of `CorpusStore` and `ModelStore`.
    name
        Name of the model.
    options
        See `TrainStepOptions`.
    warm_start, parent
        Checkpoint to start from, and the sha256 of its model. A checkpoint of another network is not used.
    """

    scan: str
    scan_options: Mapping[str, Any]
    key: str
    reconstruction: str
    folder: str
    corpus: str
    store: str
    name: str
    options: Mapping[str, Any]
    warm_start: str | None = None
    parent: str = ""

    @cached_property
    def chosen(self) -> TrainStepOptions:
        """The options. Raises ConfigError."""
        return read_options(TrainStepOptions, self.options, "train")

    @cached_property
    def processes(self) -> int:
        """Number of processes that train together."""
        return self.chosen.processes or max(1, torch.cuda.device_count())

    @cached_property
    def pairs(self) -> CorpusStore:
        return CorpusStore(Path(self.corpus))

    @cached_property
    def models(self) -> ModelStore:
        return ModelStore(self.store)

    @cached_property
    def files(self) -> TrainFiles:
        return TrainFiles(Path(self.folder), self.name)

    @cached_property
    def task(self) -> str:
        """A digest of everything that decides the result. Raises TrainingError."""
        try:
            start = hashlib.sha256(Path(self.warm_start).read_bytes()).hexdigest() if self.warm_start else ""
        except OSError as error:
            what = error.strerror or str(error)
            raise TrainingError(what, where=str(self.warm_start), remedy="give a checkpoint that is there") from error
        shards = [[shard.key, shard.pairs, shard.number] for shard in self.pairs.shards()]
        content = json.dumps([shards, self.chosen.model_dump(mode="json"), start])
        return hashlib.sha256(content.encode()).hexdigest()

    def start(self, corpus: Corpus, scan: Scan) -> TrainingStart:
        """The start of the training, which is decided once."""
        options, found = self.chosen, None
        if self.warm_start is not None and options.warm:
            found = from_checkpoint(self.warm_start, self.parent, corpus, options)
        if found is None and options.bootstrap is not None:
            where = self.files.start
            found = from_store(where, self.task, corpus, self.models, options, options.bootstrap, scan)
        return found or TrainingStart()


def prepare_training(job: TrainJob) -> None:
    """Decide what to start from, before several processes train together. Raises as `train_step`."""
    if job.files.finished(job.task, job.models) is None:
        with job.pairs.opened(job.chosen.newest) as (corpus, validation, _), opened(job.scan, job.scan_options) as scan:
            job.start(dataclasses.replace(corpus, validation=validation), scan)


def train_step(*, progress: Progress = silent, **arguments: Any) -> dict[str, Any]:
    """Train on the corpus, and add the model to the store.

    The training's state is written after each epoch. A training that was killed continues from there, unless corpus,
    options or start have changed. A finished model is not trained again.

    Parameters
    ----------
    progress
        Called after each epoch with epoch, epochs, train_loss, val_loss, corpus_pairs, seconds.
    arguments
        See `TrainJob`.

    Returns
    -------
    dict
        `sha256`, `validation_loss`, `ssim` (of the stitched validation frames; None where they are too few), `seconds`,
        `epochs`, `best_epoch`, `corpus_pairs`, `parents`, `passed_over` (scans of another geometry), `bootstrap` (what
        was tried). Empty in a process that trains with others and writes nothing.

    Raises
    ------
    TrainingError, ModelError, ScanFileError, GeometryError, FrameError, ConfigError
        The loss is not finite or there is too little to train on, the model is refused, a file cannot be read or
        written, an option is wrong.
    """
    job = TrainJob(**arguments)
    finished = job.files.finished(job.task, job.models)
    if finished is not None:
        return finished
    with (
        job.pairs.opened(job.chosen.newest) as (stored, validation, passed_over),
        opened(job.scan, job.scan_options) as scan,
    ):
        corpus = dataclasses.replace(stored, validation=validation)
        start = job.start(corpus, scan)
        result = _train(job, corpus, start, progress)
        if not result.leads:
            return {}
        source = source_of(scan, read_reconstruction(job.reconstruction))
        trained = _write(job, result, corpus, source, start)
    summary = {
        "sha256": trained.sha256,
        "validation_loss": result.best.validation_loss,
        "ssim": trained.contract.training.ssim,
        "seconds": result.history[-1].seconds,
        "epochs": len(result.history),
        "best_epoch": result.best.number,
        "corpus_pairs": len(corpus),
        "parents": start.parents,
        "passed_over": passed_over,
        "bootstrap": start.metrics,
    }
    job.files.finish(job.task, summary, job.models)
    return summary


def _train(job: TrainJob, corpus: Corpus, start: TrainingStart, progress: Progress) -> TrainingResult:
    def tell(epoch: Epoch) -> None:
        progress(
            {
                "epoch": epoch.number,
                "epochs": job.chosen.epochs,
                "train_loss": epoch.training_loss,
                "val_loss": epoch.validation_loss,
                "corpus_pairs": len(corpus),
                "seconds": epoch.seconds,
            }
        )

    def keep(state: TrainingState) -> None:
        save_state(job.files.state, state, job.task)

    state = load_state(job.files.state, job.task)
    if state is not None:
        _log.info("training goes on after epoch %d", state.history[-1].number)
    return train(corpus, job.chosen, initial=start.network, on_epoch=tell, state=state, on_state=keep)


def _write(job: TrainJob, result: TrainingResult, corpus: Corpus, source: Source, start: TrainingStart) -> TrainedModel:
    aside = job.pairs.validation(job.key)

    def judge(contract: ModelContract) -> list[Judged]:
        frames = _frames(source, corpus, len(aside))[aside]
        try:
            return [judge_frames(result.network, contract, source, frames)]
        except GeometryError as error:
            _log.info("the frames set aside are too few to judge by: %s", error)
            return []

    parent = start.parents[0] if start.parents else ""
    return write_trained(result, corpus, [source], job.files.model, name=job.name, parent=parent, judge_held_out=judge)


def _frames(source: Source, corpus: Corpus, pairs: int) -> NDArray[np.intp]:
    """The frames of `source` in the corpus, in its order: those that are a measurement."""
    frames = source.selected
    if len(frames) == pairs:
        return frames
    return measured(source, corpus.preprocessing).selected
