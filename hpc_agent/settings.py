"""The agent's configuration: one TOML file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ptychostream.config import Settings
from ptychostream.hpc_agent.edge.push import PushSettings
from ptychostream.hpc_agent.journal.policy import PolicySettings
from ptychostream.hpc_agent.running.runner import RunnerSettings
from ptychostream.hpc_agent.scans.collect import CollectSettings
from ptychostream.hpc_agent.scans.watch import ScanWatchSettings
from ptychostream.hpc_agent.scans.watch_folder import FolderSettings


class RecordSettings(Settings):
    """Recording of the detector's stream by `ptychostream record`, where there is no shared disk.

    Attributes
    ----------
    channel
        PVA channel of the NTNDArrays; empty: nothing is recorded.
    arguments
        Further arguments of `ptychostream record`, such as "--energy-pv".
    """

    channel: str = ""
    arguments: tuple[str, ...] = ()


class StepSettings(Settings):
    """Options of the steps; they are documented with each step.

    Attributes
    ----------
    reconstruct, label, train, judge
        Options of the steps.
    attempts
        How often a step is tried that was killed, crashed or took too long.
    ceiling
        SSIM of a perfect network, below 1 where the reconstructions are noisy.
    canvases
        The folder where the edge saves its canvases; reconstructions start from them.
    canvas_wait_s
        How long to wait for a scan's canvas after its completion, where the edge has a model and saves canvases
        automatically. It should be longer than the edge's `save.delay_s`. 0: do not wait.
    refined
        "off": the agent reconstructs every scan. "when_converged": where the edge has refined a scan until it
        converged, and the result passes the checks of `reconstruct.refined` and `reconstruct.limits`, that is its
        reconstruction.
    refined_wait_s
        How long to wait until the edge has refined a scan, counted from the begin of the scan's work.
    """

    reconstruct: dict[str, Any] = {}
    label: dict[str, Any] = {}
    train: dict[str, Any] = {}
    judge: dict[str, Any] = {}
    attempts: int = Field(3, ge=1)
    ceiling: float = Field(1.0, gt=0, le=1)
    canvases: Path | None = None
    canvas_wait_s: float = Field(5.0, ge=0)
    refined: Literal["off", "when_converged"] = "off"
    refined_wait_s: float = Field(30.0, ge=0)

    @model_validator(mode="after")
    def _somewhere(self) -> StepSettings:
        if self.refined != "off" and self.canvases is None:
            raise ValueError('refined = "when_converged" needs canvases: the edge saves refined results in its folder')
        return self


class AgentSettings(Settings):
    """All settings of the agent.

    Attributes
    ----------
    prefix
        Prefix of the edge's records.
    work
        The work folder: journal, corpus, models and the results of each scan. On a cluster it is on the shared disk.
    refused_s
        This agent ends when another one has the edge for so long; longer than the edge's heartbeat timeout.
    enabled
        Whether the agent may work, until the edge's record is read.
    watch, folder, collect, record
        How scans are found.
    policy
        Used until the edge's records are read.
    steps, runner
        Options of the steps, and where they run.
    push
        How models are sent to the edge; its prefix is `prefix`.
    keep_models
        How many of the newest models stay in the store, besides the live, the previous and the pinned ones.
    keep_pairs
        How many pairs the corpus keeps: the newest scans with at most so many together, and always the newest scan.
    keep_scans
        How many reconstructed scans keep their folder in `work`/scans, with the results and logs of their steps.
    least_free_mb
        No step begins while less than this is free on the disk of `work`, in megabytes.
    """

    prefix: str = "ptycho:NN1:"
    work: Path = Path("agent")
    refused_s: float = Field(30.0, gt=0)
    enabled: bool = True
    watch: ScanWatchSettings = ScanWatchSettings()
    folder: FolderSettings = FolderSettings()
    collect: CollectSettings = CollectSettings()
    record: RecordSettings = RecordSettings()
    policy: PolicySettings = PolicySettings()
    steps: StepSettings = StepSettings()
    runner: RunnerSettings = RunnerSettings()
    push: PushSettings = PushSettings()
    keep_models: int = Field(20, ge=1)
    keep_pairs: int = Field(200_000, ge=1)
    keep_scans: int = Field(200, ge=1)
    least_free_mb: float = Field(200.0, ge=0)

    @field_validator("push", mode="before")
    @classmethod
    def _one_prefix(cls, push: Any) -> Any:
        if isinstance(push, dict) and "prefix" in push:
            raise ValueError("the edge is the prefix at the top of the file: remove push.prefix")
        return push

    @model_validator(mode="after")
    def _some_source(self) -> AgentSettings:
        if not self.watch.complete_pv and not self.folder.files:
            raise ValueError("no scans will come: give watch.complete_pv (--complete-pv) or folder.files (--files)")
        if not self.watch.complete_pv and not self.folder.poll_s:
            raise ValueError("without watch.complete_pv the folder must be looked at: give folder.poll_s")
        if self.record.channel and not self.collect.recordings:
            raise ValueError("the stream is recorded, but not to where: give collect.recordings")
        return self

    @property
    def edge(self) -> PushSettings:
        """`push` with the edge's prefix."""
        return self.push.model_copy(update={"prefix": self.prefix})
