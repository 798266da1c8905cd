"""Training with Adam on the mean absolute error, weighted by the probe's footprint; the best epoch is kept.

The defaults are those of Babu et al. 2023 (Nat. Commun. 14, 7059): 50 epochs, a cyclic learning rate, a tenth of
the pairs for validation.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ptychostream.config import Settings
from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.corpus.normalisation import Normalisation
from ptychostream.hpc_agent.corpus.simulated_pairs import FreshPairs
from ptychostream.hpc_agent.corpus.training_data import Corpus, measure_normalisation
from ptychostream.hpc_agent.training.architectures import NetworkName
from ptychostream.hpc_agent.training.batches import Batch, Dose, batches, thin
from ptychostream.hpc_agent.training.devices import choose_device, fast_bfloat16
from ptychostream.hpc_agent.training.distributed import TrainingGroup, joined
from ptychostream.hpc_agent.training.networks import Network, make_network
from ptychostream.hpc_agent.training.schedules import ScheduleName, make_schedule

NORMALISATION_FRAMES = 256


class TrainingOptions(Settings):
    """Options of a training."""

    network: NetworkName = "ptychonn2"
    """PtychoNN 2.0, PtychoNN ("ptychonn", 4.7 million parameters), or "swiftnn" with a fifth of the arithmetic."""
    epochs: int = Field(50, ge=1)
    """Passes over all pairs."""
    batch: int = Field(16, ge=2)
    """Pairs in one step of the optimiser."""
    learning_rate: float = Field(1e-3, gt=0)
    """Highest learning rate of the schedule."""
    schedule: ScheduleName = "cyclic"
    """How the learning rate changes during the training."""
    validation: float = Field(0.1, gt=0, lt=1)
    """Fraction of the pairs for choosing the best epoch."""
    time_limit_s: float | None = Field(None, gt=0)
    """If the epochs would take longer, the schedule is compressed into this time, s."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the convolutions; weights and loss are float32. "auto": bfloat16 if the device has it."""
    device: str = "auto"
    """A torch device, or "auto": CUDA if there is a device."""
    dose: Dose = Dose()
    """The dose to train for."""
    simulated: float = Field(0.0, ge=0)
    """Simulated pairs for each measured one, others in each epoch
    (see `ptychostream.hpc_agent.corpus.simulated_pairs`)."""
    seed: int = 0
    """Seed of the first weights, of the order of the pairs and of the choice of the validation pairs."""


@dataclass(frozen=True)
class Epoch:
    """The result of one epoch.

    Attributes
    ----------
    training_loss, validation_loss
        Loss in rad (plus that of the amplitude if it is trained).
    seconds
        Time since the start.
    rate
        Pairs per second that this process trained, without validation.
    waiting
        Fraction of the time in which the training waited for a batch.
    """

    number: int
    training_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float
    rate: float = 0.0
    waiting: float = 0.0


@dataclass
class TrainingResult:
    """The trained network with the weights of its best epoch.

    Attributes
    ----------
    network
        The network, on the CPU and in evaluation mode.
    history
        One entry for each epoch.
    best
        The epoch with the lowest validation loss, whose weights `network` has.
    options
        The options, with the precision that was used.
    interrupted
        Whether the training was stopped before its last epoch.
    leads
        Whether this process writes files, of those that trained together.
    """

    network: Network
    history: list[Epoch]
    best: Epoch
    options: TrainingOptions
    interrupted: bool = False
    leads: bool = True


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training needs to continue after an epoch.

    Attributes
    ----------
    history
        The finished epochs, at least one.
    network, best, optimiser
        State dictionaries of torch: the present weights, those of the best epoch, and the optimiser's state.
    """

    history: list[Epoch]
    network: dict[str, Tensor]
    best: dict[str, Tensor]
    optimiser: dict[str, Any]


def train(
    corpus: Corpus,
    options: TrainingOptions | None = None,
    *,
    initial: Network | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    state: TrainingState | None = None,
    on_state: Callable[[TrainingState], None] | None = None,
    fresh: FreshPairs | None = None,
) -> TrainingResult:
    """Train a network on `corpus`.

    Parameters
    ----------
    corpus
        At least four measured pairs. Simulated pairs are never used for validation.
    options
        None means the defaults.
    initial
        Warm start: the training begins with its weights and normalisation. It is not changed.
    on_epoch
        Called after each epoch. A KeyboardInterrupt, there or in between, ends the training and keeps the best epoch.
    state
        State of an unfinished training of the same corpus and options, which is continued.
    on_state
        Called after each epoch, before `on_epoch`, with a state that is valid only during the call.
    fresh
        Gives the simulated pairs of each epoch, beside those of the corpus.

    Raises
    ------
    TrainingError
        There are too few pairs, the warm start does not fit, there is no such device, or the loss is not finite.
    """
    options = options or TrainingOptions()
    if corpus.measured < 4:
        raise TrainingError(f"{corpus.measured} pairs", where="training", remedy="train on at least four frames")
    device, options = _settle(options)
    torch.manual_seed(options.seed)
    history: list[Epoch] = [] if state is None else list(state.history)
    best = None if state is None else (min(history, key=lambda epoch: epoch.validation_loss), state.best)
    interrupted = False
    with joined(device) as group:
        network = _start(corpus, options, initial).to(device, memory_format=torch.channels_last)
        run = _Run(network, corpus, options, device, group, fresh=fresh)
        if state is not None:
            run.resume(state)
        try:
            for epoch in run.epochs(len(history)):
                history.append(epoch)
                if best is None or epoch.validation_loss < best[0].validation_loss:
                    best = epoch, copy.deepcopy(network.state_dict())
                if on_state is not None and group.leads:
                    on_state(TrainingState(history, network.state_dict(), best[1], run.optimiser.state_dict()))
                if on_epoch is not None and group.leads:
                    on_epoch(epoch)
        except KeyboardInterrupt:
            if best is None:
                raise
            interrupted = True
    assert best is not None
    network.load_state_dict(best[1])
    return TrainingResult(network.cpu().eval(), history, best[0], options, interrupted, group.leads)


def validation_loss(network: Network, corpus: Corpus, options: TrainingOptions | None = None) -> float:
    """Loss of a network without training, on the validation pairs that `train` would use; see `Epoch`.

    Raises
    ------
    TrainingError
        The network does not fit the corpus or the options, there is no such device, or the loss is not finite.
    """
    device, options = _settle(options or TrainingOptions())
    run = _Run(_start(corpus, options, network).to(device), corpus, options, device)
    return run.evaluate(split_validation(corpus, options.validation, options.seed)[1], 0)


def _settle(options: TrainingOptions) -> tuple[torch.device, TrainingOptions]:
    """The device, and the options with the precision for it."""
    device = choose_device(options.device)
    if options.precision == "auto":
        precision = "bfloat16" if fast_bfloat16(device) else "float32"
        options = options.model_copy(update={"precision": precision})
    return device, options


def _start(corpus: Corpus, options: TrainingOptions, initial: Network | None) -> Network:
    reduction = corpus.input_shape[0] // corpus.output_shape[0]
    if initial is None:
        network = make_network(options.network, reduction, _normalisation(corpus, options))
    elif initial.name != options.network or initial.reduction != reduction:
        what = f"{initial.name} with reduction {initial.reduction}, asked for {options.network} with {reduction}"
        raise TrainingError(what, where="warm start", remedy="start from a checkpoint of the same network, or afresh")
    else:
        network = copy.deepcopy(initial)
    if network.output_shape(corpus.input_shape) != corpus.output_shape:
        what = f"labels of {corpus.output_shape} for patterns of {corpus.input_shape}"
        raise TrainingError(what, where="training", remedy="make labels of the patterns' size or half of it")
    return network


def _normalisation(corpus: Corpus, options: TrainingOptions) -> Normalisation:
    """Normalisation for the counts that the network is trained on."""
    random = np.random.default_rng(options.seed)
    learnt, _ = split_validation(corpus, options.validation, options.seed)
    return measure_normalisation(thin(corpus.sample(NORMALISATION_FRAMES, learnt), options.dose, random))


def split_validation(corpus: Corpus, fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(training, validation) indices: the corpus's own validation pairs, or else at least one measured pair, drawn at
    random."""
    if corpus.validation is not None:
        return np.flatnonzero(~corpus.validation), np.flatnonzero(corpus.validation)
    order = np.random.default_rng(seed).permutation(corpus.measured)
    kept = min(max(1, round(fraction * corpus.measured)), corpus.measured - 2)
    simulated = np.arange(corpus.measured, len(corpus))
    return np.concatenate([np.sort(order[kept:]), simulated]), np.sort(order[:kept])


@dataclass
class _Run:
    """The state of one training run."""

    network: Network
    corpus: Corpus
    options: TrainingOptions
    device: torch.device
    group: TrainingGroup = field(default_factory=TrainingGroup)
    fresh: FreshPairs | None = None
    started: float = field(default_factory=lambda: time.perf_counter())
    optimiser: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=self.options.learning_rate)

    def resume(self, state: TrainingState) -> None:
        """Restore the run after the last epoch of `state`, including the time that it had taken."""
        self.network.load_state_dict(state.network)
        self.optimiser.load_state_dict(state.optimiser)
        self.started -= state.history[-1].seconds

    def epochs(self, done: int = 0) -> Iterator[Epoch]:
        """Train epoch by epoch, after the first `done` epochs."""
        options, optimiser = self.options, self.optimiser
        training, validation = split_validation(self.corpus, options.validation, options.seed)
        if self.fresh is not None:
            training = np.concatenate([training, len(self.corpus) + np.arange(self.fresh.count)])
        generator = np.random.default_rng(options.seed)
        for _ in range(done):
            generator.permutation(training)
        steps = max(1, math.ceil(len(training) // self.group.size / options.batch))
        rate = make_schedule(options.schedule, options.learning_rate, options.epochs)
        model = self.group.wrap(self.network, self.device)
        now = 0.0
        for number in range(done, options.epochs):
            model.train()
            losses: list[tuple[Tensor, int]] = []
            waits: list[float] = []
            began = time.perf_counter()
            dosing = np.random.default_rng([options.seed, self.group.rank, number])
            parts = np.array_split(self.group.share(generator.permutation(training)), steps)
            heads = self.network.heads
            ahead = batches(self.corpus, parts, heads, options.dose, dosing, waits.append, self.fresh)
            for step, batch in enumerate(ahead):
                now = self.progress(number + step / steps)
                if now >= options.epochs and (number or losses):  # at least one step, however short the time
                    break
                optimiser.param_groups[0]["lr"] = rate(min(now, options.epochs))
                loss = self.loss(batch, model)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses.append((loss.detach(), len(batch)))
            if losses:
                training_loss = self.mean(losses, number)
                took = time.perf_counter() - began
                speed = {"rate": sum(count for _, count in losses) / took, "waiting": sum(waits) / took}
                evaluated, last_rate = self.evaluate(validation, number), optimiser.param_groups[0]["lr"]
                yield Epoch(number + 1, training_loss, evaluated, last_rate, self.seconds, **speed)
            if now >= options.epochs:
                return

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def progress(self, epoch: float) -> float:
        """Position in the schedule, in epochs: that of the training, or the later one that the time limit demands."""
        limit = self.options.time_limit_s
        if limit is None:
            return epoch
        return max(epoch, self.options.epochs * self.group.mean(self.seconds, 1.0, self.device) / limit)

    def evaluate(self, indices: NDArray[np.intp], number: int) -> float:
        """Mean loss of the validation pairs; their thinned counts are the same in every epoch."""
        self.network.eval()
        mine = indices[self.group.rank :: self.group.size]
        parts = np.array_split(mine, math.ceil(len(mine) / self.options.batch)) if len(mine) else []
        dosing = np.random.default_rng(self.options.seed)
        with torch.no_grad():
            ahead = batches(self.corpus, parts, self.network.heads, self.options.dose, dosing)
            return self.mean([(self.loss(batch, self.network), len(batch)) for batch in ahead], number)

    def loss(self, batch: Batch, model: nn.Module) -> Tensor:
        """Mean absolute error weighted by the footprint of each pair's probe, summed over the heads."""
        weight = self.tensor(batch.weight)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.options.precision == "bfloat16"):
            predicted = model(self.tensor(batch.counts))
        total = weight.new_zeros(())
        for head, output in predicted.items():
            label = self.tensor(batch.labels[head])
            total = total + (weight * (output.float() - label).abs()).sum() / weight.sum()
        return total

    def tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.from_numpy(array[:, None]).to(self.device, non_blocking=True)

    def mean(self, losses: list[tuple[Tensor, int]], number: int) -> float:
        """Mean over the pairs of all processes, with one read from the device."""
        total = float(torch.stack([loss * count for loss, count in losses]).sum()) if losses else 0.0
        mean = self.group.mean(total, float(sum(count for _, count in losses)), self.device)
        if not math.isfinite(mean):
            what = f"the loss is not finite in epoch {number + 1}"
            raise TrainingError(what, where="training", remedy="lower the learning rate, or train in float32")
        return mean
