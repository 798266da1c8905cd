"""The record of the loop, assembled from monitored records and the agent's journal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ptychostream.demo.journal_view import JournalScan, JournalStep, JournalView


@dataclass(frozen=True)
class ScanTaken:
    """A scan with the figures of beamline and edge.

    Attributes
    ----------
    scan, sample
        Id of the scan, and kind of sample.
    began_s, complete_s
        POSIX times of the start and the end, from the beamline's records Busy_RBV and Complete_RBV.
    version
        Version of the model that was live while the scan streamed. Empty: none.
    sent, stitched, no_model, lost
        Numbers of frames: sent by the detector, in the live image, dropped because there was no model, and the rest.
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
    """A model that became live at the edge.

    Attributes
    ----------
    version, sha256
        Values of the edge's records.
    time_s
        Time when it became live.
    scan
        The last scan of its training.
    seconds
        Time from that scan's completion to `time_s`. None if the edge went back to this model from a later one.
    validation_loss, training_s
        Values of the journal.
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
    """The comparison of a live image with the scan's reconstruction. `value` is the SSIM at one pixel's resolution."""

    scan: str
    version: str
    value: float
    ssim: float
    pearson: float
    time_s: float


@dataclass(frozen=True)
class PolicyChange:
    """A change of the policy's mode: time, new mode and reason."""

    time: float
    state: str
    reason: str


@dataclass(frozen=True)
class LoopRecord:
    """The record of the loop. Times are POSIX seconds.

    Attributes
    ----------
    decisions
        (time, scan, reason) of each decision about a scan.
    losses
        (time, validation loss) of the record Agent:ValLoss, in rad.
    corpus
        (time, pairs) after each labelled scan.
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
        """The number of pairs at the end."""
        return self.corpus[-1][1] if self.corpus else 0

    def to_json(self) -> dict[str, Any]:
        """The record as plain values for report.json."""
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
    """Assemble the record.

    Parameters
    ----------
    journal
        The agent's journal. Its keys are the ids of the scans.
    scans
        The scans in order.
    lives
        (time, sha256, version) of each live model, from the edge's records.
    first_mode
        (time, value) of the record Agent:State after the agent's start. The journal has the later changes.
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
    modes = [PolicyChange(*first_mode, "the agent starts")]
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
    """Whether the step has one of these names. After an operator's command the name ends with a number."""
    return step.name.partition("#")[0] in names
