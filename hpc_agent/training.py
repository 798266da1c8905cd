"""Training: Adam on the mean absolute error, weighted by the probe's footprint; the best epoch is kept.

The defaults are the recipe of Babu et al. 2023 (Nat. Commun. 14, 7059): 50 epochs, a cyclic learning rate, a tenth of
the pairs for validation.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from ptychostream.config import Settings
from ptychostream.errors import TrainingError
from ptychostream.hpc_agent.batches import Batch, Dose, batches, thin
from ptychostream.hpc_agent.devices import choose_device, fast_bfloat16
from ptychostream.hpc_agent.distributed import Group, joined
from ptychostream.hpc_agent.networks import Network, NetworkName, Normalisation, make_network
from ptychostream.hpc_agent.schedules import ScheduleName, make_schedule
from ptychostream.hpc_agent.training_data import Corpus, measure_normalisation

NORMALISATION_FRAMES = 256


class TrainingOptions(Settings):
    """How to train."""

    network: NetworkName = "ptychonn2"
    epochs: int = Field(50, ge=1)
    batch: int = Field(16, ge=2)
    learning_rate: float = Field(1e-3, gt=0)
    """The schedule's highest."""
    schedule: ScheduleName = "cyclic"
    validation: float = Field(0.1, gt=0, lt=1)
    """Part of the pairs kept for choosing the best epoch."""
    time_limit_s: float | None = Field(None, gt=0)
    """Where the epochs would take longer, the schedule is hurried through in this time."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the convolutions; weights and loss stay in float32. "auto": bfloat16 where the device has it."""
    device: str = "auto"
    """A torch device, or "auto": CUDA where there is one."""
    dose: Dose = Dose()
    """The dose to train for."""
    simulated: float = Field(0.0, ge=0)
    """Simulated pairs for each measured one (see `ptychostream.hpc_agent.simulated_pairs`)."""
    seed: int = 0


@dataclass(frozen=True)
class Epoch:
    """What one epoch came to: losses in rad (amplitude added where it is trained), seconds since the start."""

    number: int
    training_loss: float
    validation_loss: float
    learning_rate: float
    seconds: float


@dataclass
class TrainingResult:
    """The network at its best epoch.

    Attributes
    ----------
    network
        On the CPU, in evaluation mode.
    history
        One entry per epoch.
    best
        The epoch of lowest validation loss, whose weights `network` has.
    options
        As trained, its precision the one that was used.
    interrupted
        Whether it was ended before its last epoch.
    """

    network: Network
    history: list[Epoch]
    best: Epoch
    options: TrainingOptions
    interrupted: bool = False


def train(
    corpus: Corpus,
    options: TrainingOptions | None = None,
    *,
    initial: Network | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> TrainingResult:
    """Train a network on `corpus`.

    Parameters
    ----------
    corpus
        At least four measured pairs. Simulated ones are trained on, never validated on.
    options
        None means the defaults.
    initial
        Warm start: its weights and its normalisation are taken over; it is not changed.
    on_epoch
        Called after each epoch. A KeyboardInterrupt, there or in between, ends the training and keeps the best epoch.

    Raises
    ------
    TrainingError
        Too few pairs, a warm start that does not fit, no such device, or a loss that is not finite.
    """
    options = options or TrainingOptions()
    if corpus.measured < 4:
        raise TrainingError(f"{corpus.measured} pairs", where="training", remedy="train on at least four frames")
    device = choose_device(options.device)
    if options.precision == "auto":
        precision = "bfloat16" if fast_bfloat16(device) else "float32"
        options = options.model_copy(update={"precision": precision})
    torch.manual_seed(options.seed)
    history: list[Epoch] = []
    best: tuple[Epoch, dict[str, Tensor]] | None = None
    interrupted = False
    with joined(device) as group:
        network = _start(corpus, options, initial).to(device, memory_format=torch.channels_last)
        run = _Run(network, corpus, options, device, group)
        try:
            for epoch in run.epochs():
                history.append(epoch)
                if best is None or epoch.validation_loss < best[0].validation_loss:
                    best = epoch, copy.deepcopy(network.state_dict())
                if on_epoch is not None and group.leads:
                    on_epoch(epoch)
        except KeyboardInterrupt:
            if best is None:
                raise
            interrupted = True
    assert best is not None
    network.load_state_dict(best[1])
    return TrainingResult(network.cpu().eval(), history, best[0], options, interrupted)


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
    """Of the counts as the network will see them."""
    random = np.random.default_rng(options.seed)
    return measure_normalisation(thin(corpus.sample(NORMALISATION_FRAMES), options.dose, random))


def split_validation(corpus: Corpus, fraction: float, seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(training, validation) indices: what the corpus set aside for validation, or else a part of the measured pairs,
    drawn at random, at least one."""
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
    group: Group = field(default_factory=Group)
    started: float = field(default_factory=lambda: time.perf_counter())

    def epochs(self) -> Iterator[Epoch]:
        options = self.options
        training, validation = split_validation(self.corpus, options.validation, options.seed)
        optimiser = torch.optim.Adam(self.network.parameters(), lr=options.learning_rate)
        generator = np.random.default_rng(options.seed)
        dosing = np.random.default_rng([options.seed, self.group.rank])
        steps = max(1, math.ceil(len(training) // self.group.size / options.batch))
        rate = make_schedule(options.schedule, options.learning_rate, options.epochs)
        model = self.group.wrap(self.network, self.device)
        now = 0.0
        for number in range(options.epochs):
            model.train()
            losses = []
            parts = np.array_split(self.group.share(generator.permutation(training)), steps)
            for step, batch in enumerate(batches(self.corpus, parts, self.network.heads, options.dose, dosing)):
                now = self.progress(number + step / steps)
                if now >= options.epochs:
                    break
                optimiser.param_groups[0]["lr"] = rate(now)
                loss = self.loss(batch, model)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                losses.append((loss.detach(), len(batch)))
            if losses:
                training_loss, validation_loss = self.mean(losses, number), self.evaluate(validation, number)
                yield Epoch(number + 1, training_loss, validation_loss, optimiser.param_groups[0]["lr"], self.seconds)
            if now >= options.epochs:
                return

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.started

    def progress(self, epoch: float) -> float:
        """How far the schedule is, in epochs: where training is, or where it should be by the time limit."""
        limit = self.options.time_limit_s
        if limit is None:
            return epoch
        return max(epoch, self.options.epochs * self.group.mean(self.seconds, 1.0, self.device) / limit)

    def evaluate(self, indices: NDArray[np.intp], number: int) -> float:
        """Mean loss of the validation pairs, whose thinned counts are the same in every epoch."""
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
        """Mean over all pairs of all processes; read from the device once."""
        total = float(torch.stack([loss * count for loss, count in losses]).sum()) if losses else 0.0
        mean = self.group.mean(total, float(sum(count for _, count in losses)), self.device)
        if not math.isfinite(mean):
            what = f"the loss is not finite in epoch {number + 1}"
            raise TrainingError(what, where="training", remedy="lower the learning rate, or train in float32")
        return mean
