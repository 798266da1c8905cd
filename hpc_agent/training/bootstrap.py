"""Chooses the start of training at a new experiment: the best stored model, if it is better than a new network.

Babu et al. 2023 train a new network for each experiment and name the reuse of older ones, as in fairDMS, as the better
way. Here every suitable stored model is evaluated on pairs that it has not seen. The best of them and a new network are
then trained in the same way for a few epochs. The stored model is used if its loss is lower by a margin, since a model
from elsewhere may also learn more slowly.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ptychostream.config import Settings
from ptychostream.errors import ModelError, TrainingError
from ptychostream.hpc_agent.corpus.normalisation import Normalisation
from ptychostream.hpc_agent.corpus.training_data import Corpus
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.models.stored_model import StoredModel
from ptychostream.hpc_agent.training.checkpoint import load_checkpoint
from ptychostream.hpc_agent.training.networks import Network
from ptychostream.hpc_agent.training.training import TrainingOptions, split_validation, train, validation_loss
from ptychostream.model.contract import ModelContract

_log = logging.getLogger(__name__)

SCRATCH = "scratch"
"""Key of the new network in the losses."""


class BootstrapOptions(Settings):
    """How stored models are tried.

    Attributes
    ----------
    margin
        The stored model's loss must be lower than the new network's by this fraction of it.
    candidates
        Largest number of stored models to try; the newest suitable ones are taken.
    pixel_tolerance, energy_tolerance
        Largest relative difference between a model's and the corpus's object pixel and energy.
    epochs, pairs
        Number of epochs, and largest number of pairs, of the trial of the best model and of a new network.
    time_limit_s
        Time limit of each of the two trials, s.
    """

    margin: float = Field(0.1, ge=0, lt=1)
    candidates: int = Field(8, ge=0)
    pixel_tolerance: float = Field(0.05, ge=0)
    energy_tolerance: float = Field(0.05, ge=0)
    epochs: int = Field(3, ge=1)
    pairs: int = Field(1000, ge=4)
    time_limit_s: float = Field(30.0, gt=0)


@dataclass(frozen=True)
class StartChoice:
    """The chosen start of a training.

    Attributes
    ----------
    sha256, checkpoint
        The stored model; "" and None: a new network.
    network
        Its network with the normalisation set to the corpus's dose: `initial` of `train`. None: a new network.
    reason
        The reason, for people.
    as_stored
        Validation loss of each stored model before the trial, by sha256.
    tried
        Validation loss after the trial, by sha256 and `SCRATCH`.
    """

    sha256: str = ""
    checkpoint: Path | None = None
    network: Network | None = None
    reason: str = ""
    as_stored: Mapping[str, float] = field(default_factory=dict)
    tried: Mapping[str, float] = field(default_factory=dict)

    @property
    def parents(self) -> list[str]:
        return [self.sha256] if self.sha256 else []

    def metrics(self) -> dict[str, Any]:
        """Values for the metrics of the trained model; a loss that is not finite is None."""
        return {
            "start": self.sha256,
            "reason": self.reason,
            "as_stored": {name: _finite(loss) for name, loss in self.as_stored.items()},
            "tried": {name: _finite(loss) for name, loss in self.tried.items()},
        }


def fits(
    contract: ModelContract,
    corpus: Corpus,
    network: str,
    energy_ev: float | None,
    options: BootstrapOptions,
    radiation: str | None = None,
) -> bool:
    """Whether a model is suitable: same network, shapes and optics. An unknown energy or radiation counts as equal."""
    same = (contract.network, contract.input_shape, contract.output_shape)
    if same != (network, corpus.input_shape, corpus.output_shape):
        return False
    if not math.isclose(contract.object_pixel_m, corpus.pixel_m, rel_tol=options.pixel_tolerance):
        return False
    if None not in (contract.radiation, radiation) and contract.radiation != radiation:
        return False
    if contract.energy_ev is None or energy_ev is None:
        return True
    return math.isclose(contract.energy_ev, energy_ev, rel_tol=options.energy_tolerance)


def decide(tried: Mapping[str, float], margin: float) -> tuple[str, str]:
    """The sha256 of the model to start from ("": a new network) and the reason, from the losses after the trial.

    Parameters
    ----------
    tried
        Loss by sha256 and `SCRATCH`; a loss that is not finite means that the trial failed.
    margin
        See `BootstrapOptions`.
    """
    scratch = tried.get(SCRATCH, math.nan)
    stored = {name: loss for name, loss in tried.items() if name != SCRATCH and math.isfinite(loss)}
    if not stored:
        return "", "from scratch: no stored model that fits could be trained"
    best = min(stored, key=lambda name: stored[name])
    told = f"{best[:12]} came to a validation loss of {stored[best]:.4f}"
    if not math.isfinite(scratch):
        return best, f"from {told}, a fresh network to none"
    told += f", a fresh network to {scratch:.4f}"
    if stored[best] <= (1 - margin) * scratch:
        return best, f"from {told}"
    return "", f"from scratch: {told}, less than {margin:.0%} apart"


def choose_start(
    corpus: Corpus,
    store: ModelStore,
    options: TrainingOptions | None = None,
    trial: BootstrapOptions | None = None,
    *,
    energy_ev: float | None = None,
    radiation: str | None = None,
    on_step: Callable[[str], None] | None = None,
) -> StartChoice:
    """Evaluate the suitable stored models on the corpus's validation pairs, and choose the start of the training.

    Parameters
    ----------
    corpus
        The training data.
    store
        The model store. Models that are damaged, have no weights, or were rolled back and are not pinned are skipped.
    options
        Options of the training.
    trial
        None means the defaults.
    energy_ev, radiation
        Energy of the corpus, for electrons the accelerating voltage, and its radiation; None: unknown.
    on_step
        Called with a message for people before each trial.

    Raises
    ------
    TrainingError
        Too few pairs, or no such device.
    """
    options, trial = options or TrainingOptions(), trial or BootstrapOptions()
    tell = on_step or _log.info
    suitable = [
        model
        for model in store.models()
        if model.checkpoint is not None
        and not model.shunned
        and fits(model.contract, corpus, options.network, energy_ev, trial, radiation)
    ]
    candidates = suitable[len(suitable) - min(len(suitable), trial.candidates) :]
    if not candidates:
        return StartChoice(reason="from scratch: no stored model fits")
    few = _few(corpus, options, trial.pairs)
    networks: dict[str, Network] = {}
    as_stored: dict[str, float] = {}
    for model in candidates:
        tell(f"trying stored model {model.contract.name} ({model.sha256[:12]})")
        try:
            networks[model.sha256] = _load(model, few, options)
            as_stored[model.sha256] = validation_loss(networks[model.sha256], few, options)
        except (TrainingError, ModelError) as error:
            _log.warning("stored model %s cannot be tried: %s", model.sha256[:12], error)
            as_stored[model.sha256] = math.nan
    alive = {name: loss for name, loss in as_stored.items() if math.isfinite(loss)}
    if not alive:
        return StartChoice(reason="from scratch: no stored model that fits could be read", as_stored=as_stored)
    best = min(alive, key=lambda name: alive[name])
    tried: dict[str, float] = {}
    for name, network in ((best, networks[best]), (SCRATCH, None)):
        tell(f"trying {name[:12]} for {trial.epochs} epochs")
        tried[name] = _train_a_little(few, options, trial, network)
    chosen, reason = decide(tried, trial.margin)
    if not chosen:
        return StartChoice(reason=reason, as_stored=as_stored, tried=tried)
    checkpoint = next(model.checkpoint for model in candidates if model.sha256 == chosen)
    return StartChoice(chosen, checkpoint, networks[chosen], reason, as_stored, tried)


def _train_a_little(
    corpus: Corpus, options: TrainingOptions, trial: BootstrapOptions, network: Network | None
) -> float:
    """Lowest validation loss; NaN where the training fails."""
    limit = min(trial.time_limit_s, options.time_limit_s or math.inf)
    short = options.model_copy(update={"epochs": trial.epochs, "time_limit_s": limit})
    try:
        return train(corpus, short, initial=network).best.validation_loss
    except TrainingError as error:
        _log.warning("the trial from %s failed: %s", "a stored model" if network else SCRATCH, error)
        return math.nan


def _load(model: StoredModel, corpus: Corpus, options: TrainingOptions) -> Network:
    """The network of a stored model, set to the corpus's dose as the edge would by DoseMode Auto.

    Raises
    ------
    TrainingError
        Its checkpoint cannot be read, or belongs to another model.
    """
    assert model.checkpoint is not None
    network, sha256 = load_checkpoint(model.checkpoint)
    if sha256 != model.sha256:
        what = f"belongs to model {sha256[:12] or 'without a name'}, not to {model.sha256[:12]}"
        raise TrainingError(what, where=str(model.checkpoint), remedy="add the model again with its own checkpoint")
    counts = mean_counts(corpus) * options.dose.factor
    if model.contract.mean_counts and counts > 0:
        scale, gain, offset = network.normalisation.tolist()
        network.set_normalisation(Normalisation(scale * model.contract.mean_counts / counts, gain, offset))
    return network


def mean_counts(corpus: Corpus) -> float:
    """Mean counts of a measured frame, summed over the frame."""
    sample = corpus.sample(256)
    return float(sample.mean(dtype=np.float64) * sample[0].size)


def _few(corpus: Corpus, options: TrainingOptions, pairs: int) -> Corpus:
    """At most about `pairs` measured pairs of the corpus, in memory, its validation pairs among them in proportion."""
    training, validation = split_validation(corpus, options.validation, options.seed)
    training = training[training < corpus.measured]
    part = min(1.0, pairs / (len(training) + len(validation)))
    chosen = [_spread(rows, max(least, round(part * len(rows)))) for rows, least in ((training, 3), (validation, 1))]
    rows = np.sort(np.concatenate(chosen))
    return replace(
        corpus,
        counts=corpus.counts[rows],
        phase=corpus.phase[rows],
        amplitude=corpus.amplitude[rows],
        source=corpus.source[rows],
        measured=len(rows),
        validation=np.isin(rows, chosen[1]),
    )


def _spread(rows: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """`count` of `rows`, evenly over all of them; all where they are fewer."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(np.intp))]


def _finite(loss: float) -> float | None:
    return loss if math.isfinite(loss) else None
