"""Networks of a run. A training writes its state after each epoch, so that it can be finished over several calls."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from pathlib import Path

from ptychostream.benchmarks.paper.work import Work
from ptychostream.hpc_agent.corpus.normalisation import Normalisation
from ptychostream.hpc_agent.corpus.simulated_pairs import FreshPairs
from ptychostream.hpc_agent.corpus.training_data import build_corpus
from ptychostream.hpc_agent.steps.training_state import load_state, save_state
from ptychostream.hpc_agent.training.batches import Dose
from ptychostream.hpc_agent.training.checkpoint import checkpoint_path, load_checkpoint
from ptychostream.hpc_agent.training.model_job import patch_shape, write_trained
from ptychostream.hpc_agent.training.networks import Network
from ptychostream.hpc_agent.training.training import Epoch, TrainingOptions, TrainingState, train

BASE = "base"
"""Of the network that is trained on all scans of the run."""


def options_of(work: Work) -> TrainingOptions:
    """The run's training."""
    scale = work.scale
    return TrainingOptions(
        network=scale.network,
        epochs=scale.epochs,
        batch=scale.batch,
        schedule=scale.schedule,
        learning_rate=scale.learning_rate,
        simulated=scale.simulated,
        device=work.device,
        seed=work.seed,
    )


def base_model(work: Work) -> Path:
    """The network of all scans of the run, as an ONNX file with its checkpoint beside it."""
    return learnt(work, BASE, work.scale.scans, options_of(work))


def learnt(work: Work, name: str, scans: int, options: TrainingOptions, start: Path | None = None) -> Path:
    """The network `name`, trained on the first `scans` scans: an ONNX file with its checkpoint beside it.

    It begins with the weights of the model `start`, set to the dose of `options`, or afresh.

    A KeyboardInterrupt or OutOfTime leaves the state of the last finished epoch.
    """
    model = work.folder.path / "models" / f"{name}.onnx"

    def make(_checkpoint: Path) -> None:
        with ExitStack() as stack:
            _train(work, model, scans, options, stack, start)

    work.folder.file(f"models/{name}.pt", make)  # the checkpoint is written last
    return model


def _train(work: Work, model: Path, scans: int, options: TrainingOptions, stack: ExitStack, start: Path | None) -> None:
    sources = work.training_sources(stack, scans)
    work.say(f"reading {sum(len(source.scan) for source in sources)} pairs of {scans} scans")
    corpus = build_corpus(sources, patch_shape(sources[0]))
    task = hashlib.sha256(json.dumps([scans, options.model_dump(mode="json")]).encode()).hexdigest()
    state_path = model.with_suffix(".state")

    def on_state(state: TrainingState) -> None:
        save_state(state_path, state, task)

    def on_epoch(epoch: Epoch) -> None:
        work.say(
            f"{model.stem}: epoch {epoch.number} of {options.epochs}, loss {epoch.training_loss:.4f}, "
            f"validation {epoch.validation_loss:.4f} rad, {epoch.rate:.0f} pairs/s, {epoch.seconds:.0f} s"
        )
        if epoch.number < options.epochs:
            work.folder.check_time()

    fresh = FreshPairs(corpus, sources, options.simulated) if options.simulated else None
    state = load_state(state_path, task)
    work.say(f"{model.stem}: {0 if state is None else len(state.history)} of {options.epochs} epochs are done")
    initial = None if start is None else _at_dose(start, options.dose)
    result = train(corpus, options, initial=initial, state=state, on_state=on_state, on_epoch=on_epoch, fresh=fresh)
    if result.interrupted:
        raise KeyboardInterrupt
    write_trained(result, corpus, sources, model, name=model.stem, parent="", judge_held_out=lambda _contract: [])
    state_path.unlink(missing_ok=True)


def _at_dose(model: Path, dose: Dose) -> Network:
    """The network of a model, with the normalisation for that part of its counts."""
    network, _ = load_checkpoint(checkpoint_path(model))
    scale, gain, offset = network.normalisation.tolist()
    network.set_normalisation(Normalisation(scale / dose.factor, gain, offset))
    return network
