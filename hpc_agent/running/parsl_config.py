"""Parsl's configuration, made from `ParslSettings`. Imports parsl."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from ptychostream.errors import ConfigError
from ptychostream.hpc_agent.running.parsl_settings import ParslSettings

try:
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
    from parsl.executors.base import ParslExecutor
    from parsl.jobs.error_handlers import windowed_error_handler
    from parsl.launchers import (
        AprunLauncher,
        MpiExecLauncher,
        SimpleLauncher,
        SingleNodeLauncher,
        SrunLauncher,
    )
    from parsl.providers import LocalProvider, PBSProProvider, SlurmProvider
    from parsl.providers.base import ExecutionProvider
except ImportError as error:
    raise ConfigError(
        f"parsl cannot be imported: {error}", where="runner.kind", remedy="pip install parsl, or set kind = 'local'"
    ) from error

_LABEL = "steps"
_STRATEGY_S = 1.0
_LAUNCHERS = {
    "simple": SimpleLauncher,
    "single": SingleNodeLauncher,
    "srun": SrunLauncher,
    "mpiexec": MpiExecLauncher,
    "aprun": AprunLauncher,
}


class _Slurm(SlurmProvider):  # type: ignore[misc]
    status_polling_interval = 30.0  # the base class's is a constant of 60


class _PBSPro(PBSProProvider):  # type: ignore[misc]
    status_polling_interval = 30.0


def make_config(settings: ParslSettings, folder: Path) -> Config:
    """Parsl's configuration.

    Parameters
    ----------
    folder
        For Parsl's files: submit scripts, output of jobs, logs. On a cluster it is on the shared disk.
    """
    return Config(
        executors=[make_executor(settings)],
        run_dir=str(folder),
        strategy="simple",
        strategy_period=_STRATEGY_S,
        max_idletime=settings.idle_s,
        initialize_logging=False,
    )


def make_executor(settings: ParslSettings) -> ParslExecutor:
    """An executor with threads of this process, or with workers on nodes; one step at a time on a node."""
    if settings.provider == "local" and settings.executor == "threads":
        return ThreadPoolExecutor(label=_LABEL, max_threads=settings.blocks)
    return HighThroughputExecutor(
        label=_LABEL,
        provider=make_provider(settings),
        address=settings.address or ("127.0.0.1" if settings.provider == "local" else None),
        max_workers_per_node=1,
        heartbeat_threshold=settings.heartbeat_s,
        heartbeat_period=max(1, settings.heartbeat_s // 4),
        # Parsl's default command would have to be on PATH, and would outlive the agent
        interchange_launch_cmd=[
            sys.executable,
            "-m",
            "ptychostream.hpc_agent.running.parsl_interchange",
            str(os.getpid()),
        ],
        block_error_handler=windowed_error_handler,
    )


def make_provider(settings: ParslSettings) -> ExecutionProvider:
    """What starts workers; it starts none before there is work."""
    common: dict[str, Any] = {
        "launcher": _LAUNCHERS[settings.launcher](),
        "worker_init": settings.worker_init or f"export PATH={shlex.quote(str(Path(sys.executable).parent))}:$PATH",
        "init_blocks": 0,
        "min_blocks": 0,
        "max_blocks": settings.blocks,
        "nodes_per_block": settings.nodes,
    }
    if settings.provider == "local":
        return LocalProvider(**common)
    common |= {
        "walltime": settings.walltime,
        "account": settings.account or None,
        "scheduler_options": settings.scheduler_options,
    }
    provider: ExecutionProvider
    if settings.provider == "slurm":
        provider = _Slurm(
            **common,
            partition=settings.partition or None,
            qos=settings.qos or None,
            constraint=settings.constraint or None,
            exclusive=settings.exclusive,
            mem_per_node=settings.memory_gb,
            cores_per_node=settings.cores,
            gpus_per_node=settings.gpus or None,
        )
    else:
        gpus = f"ngpus={settings.gpus}" if settings.gpus else ""
        provider = _PBSPro(
            **common,
            queue=settings.queue or None,
            select_options=":".join(part for part in (gpus, settings.select_options.strip(":")) if part),
            cpus_per_node=settings.cores or 1,
        )
    provider.status_polling_interval = settings.status_s
    return provider
