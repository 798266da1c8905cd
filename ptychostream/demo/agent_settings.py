"""Write the agent's configuration for the demonstration: a TOML file like that of a beamline."""

from __future__ import annotations

import json
from pathlib import Path

from ptychostream.demo.loop_plan import LoopPlan
from ptychostream.storage.atomic import write_bytes_atomic

CONFIGURATION = "agent.toml"


def write_agent_settings(path: Path, plan: LoopPlan, beamline: str, canvases: Path, cores: int) -> None:
    """Write the configuration of an agent that watches the beamline's records with the prefix `beamline`.

    Parameters
    ----------
    canvases
        Folder where the edge saves canvases.
    cores
        Number of cores for a step. The agent runs at lower priority than the edge on the same cores.
    """
    write_bytes_atomic(path, agent_settings(plan, beamline, canvases, cores).encode())


def agent_settings(plan: LoopPlan, beamline: str, canvases: Path, cores: int) -> str:
    """The text of the file."""
    text = json.dumps  # a JSON string is a TOML basic string
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
