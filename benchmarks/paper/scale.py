"""How large a run is: how many scans, how long a training, and which lines it must pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ptychostream.hpc_agent.training.schedules import ScheduleName


@dataclass(frozen=True)
class Scale:
    """The size of a run.

    Attributes
    ----------
    network
        The network that is trained.
    scans, frames
        Training scans, and frames of each spiral.
    label_iterations, iterations, refining
        ePIE iterations for the labels and of the ePIE that the network is compared with; passes of the refinement.
    simulated
        Simulated pairs for each measured one, others in each epoch.
    epochs, batch, schedule, learning_rate
        The training.
    radius_m
        Radius of the area that the scans of different overlap cover.
    overlaps
        1 − step / beam of these scans.
    doses, dose_scans, dose_epochs, warm
        Of the training for fewer photons: parts of the dose, scans and epochs of each training, and whether it begins
        with the network of the whole dose.
    stages, stage_epochs
        Of the continual training: scans that there are at each stage, and epochs of each.
    rounds, turn_s
        Turns of each engine, and the length of each.
    lines
        The lowest figure that passes, by the name of a line.
    """

    network: str
    scans: int
    frames: int
    label_iterations: int
    iterations: int
    refining: int
    simulated: float
    epochs: int
    batch: int
    schedule: ScheduleName
    learning_rate: float
    radius_m: float
    overlaps: tuple[float, ...]
    doses: tuple[float, ...]
    dose_scans: int
    dose_epochs: int
    warm: bool
    stages: tuple[int, ...]
    stage_epochs: int
    rounds: int
    turn_s: float
    lines: Mapping[str, float] = field(default_factory=dict)

    @property
    def pairs(self) -> int:
        """Measured training pairs."""
        return self.scans * self.frames


EVERY_TENTH = tuple(round(0.1 * n, 1) for n in range(9, -1, -1))

SCALES = {
    "quick": Scale(
        network="swiftnn",
        scans=6,
        frames=963,
        label_iterations=8,
        iterations=20,
        refining=4,
        simulated=1.0,
        epochs=4,
        batch=16,
        schedule="onecycle",
        learning_rate=2e-3,
        radius_m=1.9e-6,
        overlaps=EVERY_TENTH,
        doses=(1.0, 1 / 30, 1 / 300, 1 / 3000),
        dose_scans=4,
        dose_epochs=1,
        warm=True,
        stages=(1, 2, 4),
        stage_epochs=2,
        rounds=3,
        turn_s=0.2,
        lines={"fig2": 0.70, "fig3 no overlap": 0.65, "fig4": 0.65, "fig5": 0.0, "s1": 0.50, "table1": 3.0}
        | {f"table2 {network}": 1.0 for network in ("ptychonn", "ptychonn2")},
    ),
    "paper": Scale(
        network="ptychonn2",
        scans=113,
        frames=963,
        label_iterations=30,
        iterations=50,
        refining=4,
        simulated=0.0,
        epochs=50,
        batch=16,
        schedule="cyclic",
        learning_rate=1e-3,
        doses=(1.0, 0.1, 0.01, 1e-3, 1e-4),
        dose_scans=113,
        dose_epochs=50,
        warm=False,
        stages=(10, 21, 42, 83, 113),
        stage_epochs=50,
        rounds=7,
        turn_s=0.3,
        radius_m=3e-6,
        overlaps=EVERY_TENTH,
        lines={
            "fig2": 0.95,
            "fig3 no overlap": 0.90,
            "fig3 area at 0.80": 6.25,
            "fig3 area at 0.90": 25.0,
            "fig4": 0.90,
            "fig5": 0.0,
            "s1": 0.85,
            "table1": 5.0,
            "table2 ptychonn": 1.5,
            "table2 ptychonn2": 3.5,
        },
    ),
    "tiny": Scale(
        network="swiftnn",
        scans=1,
        frames=60,
        label_iterations=2,
        iterations=2,
        refining=1,
        simulated=0.0,
        epochs=2,
        batch=16,
        schedule="onecycle",
        learning_rate=2e-3,
        radius_m=0.9e-6,
        overlaps=(0.7, 0.0),
        doses=(1.0, 1 / 300),
        dose_scans=1,
        dose_epochs=1,
        warm=True,
        stages=(1,),
        stage_epochs=1,
        rounds=1,
        turn_s=0.01,
    ),
}
"""The scales by name. "quick" has lower lines. "tiny" shows in seconds that all parts run; its figures say nothing."""
