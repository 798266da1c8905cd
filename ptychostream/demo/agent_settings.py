"""The agent's configuration for the demonstration: a TOML file as a beamline would write it."""

from __future__ import annotations

import json
from pathlib import Path

from ptychostream.demo.loop_plan import LoopPlan
from ptychostream.storage.atomic import write_bytes_atomic

CONFIGURATION = "agent.toml"


def write_agent_settings(path: Path, plan: LoopPlan, beamline: str, canvases: Path, cores: int) -> None:
    """Write the configuration of an agent that watches the beamline with the records `beamline`.

    Parameters
    ----------
    canvases
        Where the edge saves them.
    cores
        What a step may use. It stands back behind the edge, which runs on the same ones.
    """
    write_bytes_atomic(path, agent_settings(plan, beamline, canvases, cores).encode())


def agent_settings(plan: LoopPlan, beamline: str, canvases: Path, cores: int) -> str:
    """The text of the file."""
    text = json.dumps  # of a string: TOML's basic strings are JSON's
    return f"""\
# The agent of the demonstration: ptychostream agent --config {CONFIGURATION} --prefix … --work …

[watch]
complete_pv = {text(f"{beamline}Complete_RBV")}
id_pv = {text(f"{beamline}ScanID_RBV")}
file_pv = {text(f"{beamline}FullFileName_RBV.VAL$")}
frames_pv = {text(f"{beamline}FramesSent_RBV")}

[collect]
quiet_s = 0.2  # the beamline writes Complete_RBV when the file is closed

[steps]
canvases = {text(str(canvases))}

[steps.reconstruct]
iterations = {plan.iterations}

[steps.train]
epochs = {plan.epochs}
schedule = "onecycle"
learning_rate = {plan.learning_rate}
time_limit_s = {plan.training_limit_s}

[runner]
nice = 10
threads = {cores}
"""
