"""The folder and PVs of the loop, and the commands of its four processes."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ptychostream.demo.agent_settings import CONFIGURATION
from ptychostream.demo.loop_plan import LoopPlan
from ptychostream.demo.processes import DemoError

BEAMLINE = "bl:"
"""Prefix of the beamline's scan records."""


@dataclass(frozen=True)
class Place:
    """Prefix of the edge's records, environment, Channel Access port of the beamline, and folder."""

    prefix: str
    environment: Mapping[str, str]
    beamline_ca_port: int
    folder: Path

    @property
    def channel(self) -> str:
        """The detector's channel."""
        return f"{BEAMLINE}Pva1:Image"

    @property
    def configuration(self) -> Path:
        """The agent's configuration file."""
        return self.folder / CONFIGURATION

    @property
    def work(self) -> Path:
        """The agent's work folder."""
        return self.folder / "work"

    @property
    def journal(self) -> Path:
        return self.work / "journal.sqlite"

    @property
    def canvases(self) -> Path:
        """The folder where the edge saves the canvas of each scan."""
        return self.folder / "canvases"

    @property
    def received(self) -> Path:
        """The file of the client's newest live image."""
        return self.folder / "received.npz"


def commands(plan: LoopPlan, place: Place) -> dict[str, tuple[str, list[str]]]:
    """The module and the arguments of each process, in the order of their start."""
    beamline: dict[str, object] = {
        "--prefix": BEAMLINE,
        "--pv": place.channel,
        "--ca-port": place.beamline_ca_port,
        "--save": place.folder / "scans",
        "--sample": plan.stages[0].sample,
        "--sample-seed": plan.seed,
        "--frames": plan.frames,
        "--size": plan.size,
        "--step": plan.step_nm,
        "--rate": plan.rate_hz,
        "--wait-for": f"{place.prefix}Connected_RBV",
    }
    ioc: dict[str, object] = {
        "--prefix": place.prefix,
        "--input-pv": place.channel,
        "--models-dir": place.folder / "models",  # of pushed models
        "--save-directory": place.canvases,
        "--save-automatic": "yes",
    }
    agent: dict[str, object] = {"--config": place.configuration, "--prefix": place.prefix, "--work": place.work}
    return {
        "beamline": ("ptychostream", ["beamline", *_words(beamline)]),
        "ioc": ("ptychostream", ["ioc", *_words(ioc)]),
        "client": ("ptychostream.demo.client", [place.prefix, str(place.received)]),
        "agent": ("ptychostream", ["agent", *_words(agent)]),
    }


def prepare_folder(folder: Path) -> None:
    """Make an empty folder. A folder of an earlier run is removed. Raises DemoError if it has other files."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / CONFIGURATION).exists():
            remedy = "name another folder with --output"
            raise DemoError("it has files that are not of the demonstration", where=str(folder), remedy=remedy)
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)


def _words(options: Mapping[str, object]) -> list[str]:
    return [str(word) for option in options.items() for word in option]
