"""Starts the processes of a cluster, starts again those that end, stops them all."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from ptychostream.cluster.commands import Command
from ptychostream.errors import ConfigError
from ptychostream.processes.restarter import Restarter, stop_all

_LOOK_S = 0.2
_STOP_S = 20.0


class Supervisor:
    """The processes of one host.

    Parameters
    ----------
    commands
        In the order in which they are started; they are stopped in the reverse order.
    log_dir
        Folder of their logs. It is made if it is missing.

    Raises
    ------
    ConfigError
        The folder cannot be made.
    """

    def __init__(self, commands: Sequence[Command], log_dir: Path) -> None:
        try:
            log_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"cannot be made: {error.strerror or error}"
            raise ConfigError(what, where=str(log_dir), remedy="give log_dir a folder that can be written") from error
        self.processes = [
            Restarter(
                command.name,
                command.module,
                command.arguments,
                log_dir / f"{command.name.replace(' ', '-')}.log",
                {**os.environ, **command.environment},
            )
            for command in commands
        ]

    def run(self, stop: threading.Event, show: Callable[[Sequence[Restarter]], None]) -> int:
        """Keep them running until `stop`; `show` is called after every check. Returns 0 when all ended cleanly."""
        try:
            for process in self.processes:
                process.start()
            show(self.processes)
            while not stop.wait(_LOOK_S):
                for process in self.processes:
                    process.check()
                show(self.processes)
        finally:
            clean = self.stop()
            show(self.processes)
        return 0 if clean else 1

    def stop(self) -> bool:
        """Stop the consumers first, then the collector. Returns False when one had to be killed."""
        clean = True
        for kind in dict.fromkeys(process.name.split()[0] for process in reversed(self.processes)):
            clean = stop_all([each for each in self.processes if each.name.split()[0] == kind], _STOP_S) and clean
        return clean
