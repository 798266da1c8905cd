"""`ptychostream cluster`: several consumers, their collector and the mirror, from one TOML file."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from ptychostream.cluster.commands import Command
    from ptychostream.cluster.settings import ClusterSettings
    from ptychostream.processes.restarter import Restarter

PARTS = ("mirror", "collector", "consumers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, help="TOML file of the cluster, the same on every host")
    parser.add_argument(
        "--run", nargs="+", choices=PARTS, default=PARTS, metavar="PART", help=f"of {', '.join(PARTS)} (default all)"
    )
    parser.add_argument(
        "--consumer", type=int, nargs="+", metavar="N", help="numbers of the consumers to run (default all)"
    )
    parser.add_argument("--check", action="store_true", help="check the file, print the commands, start nothing")


def run(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.live import Live

    from ptychostream.cluster.settings import ClusterSettings
    from ptychostream.cluster.supervisor import Supervisor
    from ptychostream.config import load_settings
    from ptychostream.processes.stopping import stop_on_signals

    settings = load_settings(ClusterSettings, arguments.config, {})
    check(settings, arguments.config)
    commands = chosen(settings, arguments)
    if arguments.check:
        for command in commands:
            variables = [f"{name}={value}" for name, value in command.environment.items()]
            print(shlex.join([*variables, sys.executable, "-m", command.module, *command.arguments]))
        return 0
    supervisor = Supervisor(commands, settings.log_dir)
    console = Console(soft_wrap=True, highlight=False)
    with stop_on_signals() as stop:
        if not console.is_terminal:
            return supervisor.run(stop, lambda _: None)
        with Live(console=console, refresh_per_second=4) as live:
            return supervisor.run(stop, lambda processes: live.update(table(processes, settings.prefix)))


def chosen(settings: ClusterSettings, arguments: argparse.Namespace) -> list[Command]:
    """The commands to run here, in the order in which they start."""
    from ptychostream.cluster.commands import collector_command, consumer_command, mirror_command
    from ptychostream.errors import ConfigError

    numbers = arguments.consumer or settings.numbers
    if unknown := [number for number in numbers if number not in settings.numbers]:
        known = f"{settings.numbers[0]} to {settings.numbers[-1]}"
        raise ConfigError(f"no consumer {unknown[0]}", where="command line", remedy=f"there are {known}")
    commands = []
    if "mirror" in arguments.run and settings.source.mirror:
        commands.append(mirror_command(settings))
    if "collector" in arguments.run:
        commands.append(collector_command(arguments.config))
    if "consumers" in arguments.run:
        commands += [consumer_command(settings, number) for number in numbers]
    return commands


def check(settings: ClusterSettings, path: Path) -> None:
    """Validate the sections that the children read, so that a mistake shows here and not only in their logs.

    Raises
    ------
    ConfigError
        A value is wrong; the error names the file and the key.
    """
    from ptychostream.cluster.settings import dotted
    from ptychostream.config import load_settings
    from ptychostream.errors import ConfigError
    from ptychostream.ioc.config.settings import IocSettings
    from ptychostream.plugins.consumer.consumer_settings import consumer_settings

    for number in settings.numbers:
        try:
            consumer_settings(settings.consumer_values(number))
        except ConfigError as error:
            raise ConfigError(error.what, where=f"{path}, section consumer", remedy=error.remedy) from error
    try:
        load_settings(IocSettings, None, dotted(settings.ioc_values()))
    except ConfigError as error:
        raise ConfigError(error.what, where=f"{path}, section ioc", remedy=error.remedy) from error


def table(processes: Sequence[Restarter], prefix: str) -> Table:
    """A table of the processes and their state."""
    from rich.table import Table

    shown = Table(title=f"cluster {prefix}", title_justify="left")
    for column in ("process", "state", "pid", "up", "restarts", "log"):
        shown.add_column(column)
    for process in processes:
        ended = "" if process.status is None else f"ended with {process.status}, waits"
        shown.add_row(
            process.name,
            "[green]running" if process.program else f"[red]{ended or 'not started'}",
            str(process.program.pid) if process.program else "",
            f"{process.uptime_s():.0f} s" if process.program else "",
            str(process.restarts),
            str(process.log),
        )
    return shown
