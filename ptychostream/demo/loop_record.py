"""What the loop did, put together from the records that were followed and the agent's journal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ptychostream.demo.journal_view import JournalScan, JournalStep, JournalView


@dataclass(frozen=True)
class ScanTaken:
    """A scan as the beamline and the edge saw it.

    Attributes
    ----------
    scan, sample
        Its id, and the kind of sample.
    began_s, complete_s
        POSIX times of the beamline's records Busy_RBV and Complete_RBV.
    version
        Of the model that was live while it streamed; empty: none.
    sent, stitched, no_model, lost
        Frames that left the detector; in the live image; passed over as no model was there; and every other one.
    """

    scan: str
    sample: str
    began_s: float
    complete_s: float
    version: str
    sent: int
    stitched: int
    no_model: int
    lost: int


@dataclass(frozen=True)
class ModelLive:
    """A model that came to the edge.

    Attributes
    ----------
    version, sha256
        As the edge's records have them.
    time_s
        When it was live there.
    scan
        The one that it was trained on last.
    seconds
        From that scan's completion to `time_s`; None where the edge went back to it from a later one.
    validation_loss, training_s
        As the journal has them.
    """

    version: str
    sha256: str
    time_s: float
    scan: str
    seconds: float | None
    validation_loss: float
    training_s: float


@dataclass(frozen=True)
class JudgedScan:
    """The live model against a scan's reconstruction; `value` is the SSIM at one pixel's resolution."""

    scan: str
    version: str
    value: float
    ssim: float
    pearson: float
    time_s: float


@dataclass(frozen=True)
class PolicyChange:
    """The policy's mode from this time on, and why."""

    time: float
    state: str
    reason: str


@dataclass(frozen=True)
class LoopRecord:
    """The whole loop. Times are POSIX seconds.

    Attributes
    ----------
    decisions
        (time, scan, reason) of every decision about a scan.
    losses
        (time, validation loss) of the record Agent:ValLoss, in rad.
    corpus
        (time, pairs) after each scan that was labelled.
    tolerance
        (time, value) of the record Agent:Tolerance.
    """

    began_s: float
    ended_s: float
    scans: list[ScanTaken] = field(default_factory=list)
    models: list[ModelLive] = field(default_factory=list)
    judged: list[JudgedScan] = field(default_factory=list)
    policy: list[PolicyChange] = field(default_factory=list)
    decisions: list[tuple[float, str, str]] = field(default_factory=list)
    losses: list[tuple[float, float]] = field(default_factory=list)
    corpus: list[tuple[float, int]] = field(default_factory=list)
    tolerance: list[tuple[float, float]] = field(default_factory=list)

    @property
    def corpus_pairs(self) -> int:
        """At the end."""
        return self.corpus[-1][1] if self.corpus else 0

    def to_json(self) -> dict[str, Any]:
        """For report.json."""
        return {
            "model_versions": [model.version for model in self.models],
            "policy": [asdict(change) for change in self.policy],
            "ssim": [asdict(judged) for judged in self.judged],
            "corpus_pairs": self.corpus_pairs,
            "push_seconds": [model.seconds for model in self.models if model.seconds is not None],
            "models": [asdict(model) for model in self.models],
            "scans": [asdict(scan) for scan in self.scans],
            "decisions": [{"time": time, "scan": scan, "reason": reason} for time, scan, reason in self.decisions],
        }


def assemble(
    journal: JournalView,
    scans: Sequence[ScanTaken],
    lives: Sequence[tuple[float, str, str]],
    *,
    began_s: float,
    ended_s: float,
    first_mode: tuple[float, str],
    losses: Sequence[tuple[float, float]] = (),
    tolerance: Sequence[tuple[float, float]] = (),
) -> LoopRecord:
    """Put the record together.

    Parameters
    ----------
    journal
        The agent's, whose keys are the scans' ids.
    scans
        As they were taken.
    lives
        (time, sha256, version) of each model that the edge said to be live.
    first_mode
        (time, value) of the record Agent:State when the agent was there; its journal has the changes from then on.
    """
    trained = {
        result["sha256"]: (scan.key, result)
        for scan in journal.scans
        for step in scan.steps.values()
        if _is(step, "train") and (result := scan.result(step.name)) is not None
    }
    versions = {sha256: version for _, sha256, version in lives}
    complete = {scan.scan: scan.complete_s for scan in scans}
    models: list[ModelLive] = []
    for time_s, sha256, version in lives:
        if sha256 in trained:
            key, result = trained[sha256]
            again = any(model.sha256 == sha256 for model in models)
            seconds = None if again or key not in complete else time_s - complete[key]
            figures = float(result["validation_loss"]), float(result["seconds"])
            models.append(ModelLive(version, sha256, time_s, key, seconds, *figures))
    modes = [PolicyChange(*first_mode, "the agent begins")]
    modes += [PolicyChange(*change) for change in journal.transitions]
    return LoopRecord(
        began_s=began_s,
        ended_s=ended_s,
        scans=list(scans),
        models=models,
        judged=[judged for scan in journal.scans for judged in _judged(scan, versions)],
        policy=modes,
        decisions=sorted(
            (step.changed_s, scan.key, step.message)
            for scan in journal.scans
            for step in scan.steps.values()
            if _is(step, "plan", "verdict")
        ),
        losses=list(losses),
        corpus=[
            (step.changed_s, int(result["corpus_pairs"]))
            for scan in journal.scans
            for step in scan.steps.values()
            if _is(step, "label") and (result := scan.result(step.name)) is not None
        ],
        tolerance=list(tolerance),
    )


def _judged(scan: JournalScan, versions: Mapping[str, str]) -> list[JudgedScan]:
    found = []
    for step in scan.steps.values():
        result = scan.result(step.name)
        if _is(step, "judge") and result is not None:
            version = versions.get(result["model"], result["model"][:12])
            ssim_1px, ssim, pearson = (float(result[name]) for name in ("ssim_1px", "ssim", "pearson"))
            found.append(JudgedScan(scan.key, version, ssim_1px, ssim, pearson, step.changed_s))
    return found


def _is(step: JournalStep, *names: str) -> bool:
    """Whether it is a step of one of these names; an operator's command gives it a number."""
    return step.name.partition("#")[0] in names
