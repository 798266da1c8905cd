"""Where Parsl runs steps: the section [runner.parsl] of the agent's configuration."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from ptychostream.config import Settings

_PARTS = {"slurm": ("partition", "qos", "constraint", "exclusive", "memory_gb"), "pbspro": ("queue", "select_options")}
_CLUSTER = ("account", "walltime", "cores", "gpus", "scheduler_options")


class ParslSettings(Settings):
    """A Parsl executor and its provider.

    Attributes
    ----------
    provider
        "local": this machine; "slurm", "pbspro": jobs of a cluster.
    executor
        "threads" of the agent, or "htex", Parsl's HighThroughputExecutor; a cluster's jobs are always the latter.
    walltime
        Time limit of a job, HH:MM:SS. A step that exceeds it is tried again in another job.
    account
        Account that is charged for the jobs.
    partition, qos, constraint, exclusive, memory_gb
        Options of Slurm.
    queue, select_options
        Options of PBS.
    nodes, cores, gpus
        Number of nodes of a job; cores and GPUs of each node.
    scheduler_options
        Further lines of the submit script, such as "#SBATCH --reservation=beamtime".
    worker_init
        Shell commands that set up the Python environment on a node; empty: the environment of this machine, by path.
    launcher
        Starts the worker in a job: "simple" where the job script runs on the job's one node, else the site's.
    address
        Address of this machine for the nodes; empty: all addresses are tried.
    blocks
        Largest number of jobs at a time.
    idle_s
        A job that was idle for so long is ended.
    status_s
        Time between queries of the scheduler.
    heartbeat_s
        A job without a heartbeat for so long is lost; a job treats the agent in the same way.
    orphan_s
        A step ends when its agent has not touched its file on the shared disk for so long.
    """

    provider: Literal["local", "slurm", "pbspro"] = "local"
    executor: Literal["threads", "htex"] = "threads"
    walltime: str = "01:00:00"
    account: str = ""
    partition: str = ""
    qos: str = ""
    constraint: str = ""
    exclusive: bool = True
    memory_gb: int | None = Field(None, ge=1)
    queue: str = ""
    select_options: str = ""
    nodes: int = Field(1, ge=1)
    cores: int | None = Field(None, ge=1)
    gpus: int = Field(0, ge=0)
    scheduler_options: str = ""
    worker_init: str = ""
    launcher: Literal["simple", "single", "srun", "mpiexec", "aprun"] = "simple"
    address: str = ""
    blocks: int = Field(1, ge=1)
    idle_s: float = Field(600.0, gt=0)
    status_s: float = Field(30.0, gt=0)
    heartbeat_s: int = Field(60, ge=4)
    orphan_s: float = Field(180.0, gt=0)

    @field_validator("walltime")
    @classmethod
    def _hours(cls, walltime: str) -> str:
        if not re.fullmatch(r"\d+:[0-5]\d:[0-5]\d", walltime):
            raise ValueError("give it as HH:MM:SS")
        return walltime

    @model_validator(mode="before")
    @classmethod
    def _of_this_provider(cls, values: Any) -> Any:
        """Refuse options of another scheduler, which would be ignored silently."""
        if not isinstance(values, dict):
            return values
        provider = values.get("provider", "local")
        for other, names in (*_PARTS.items(), ("slurm or pbspro", _CLUSTER)):
            if provider not in other.split(" or "):
                for name in names:
                    if name in values:
                        raise ValueError(f"{name} is for provider {other}, not {provider}: remove it")
        if provider != "local" and values.get("executor", "htex") != "htex":
            raise ValueError(f"executor {values['executor']} cannot reach {provider}: remove it, or give htex")
        return values

    @model_validator(mode="after")
    def _one_node(self) -> ParslSettings:
        if self.nodes > 1 and self.launcher in ("simple", "single"):
            raise ValueError(f"nodes = {self.nodes} with launcher {self.launcher}: give srun, mpiexec or aprun")
        return self
