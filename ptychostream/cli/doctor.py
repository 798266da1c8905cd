"""`ptychostream doctor`: what this machine has, and whether all is well with what a configuration names."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import logging
import os
import platform
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ptychostream.cli import finite

if TYPE_CHECKING:
    from ptychostream.doctor.finding import Finding

PACKAGES = {
    "pvapy": ("pvaccess", "cluster, beamline, replay, bench stream", "edge"),
    "softioc": ("softioc", "ioc", "edge"),
    "aioca": ("aioca", "PVs of Channel Access that ioc and record read", "edge"),
    "onnxruntime": ("onnxruntime", "the ONNXRuntime engine", "edge"),
    "openvino": ("openvino", "the OpenVINO engine", "edge"),
    "tensorrt": ("tensorrt", "the TensorRT engine", "tensorrt"),
    "pycuda": ("pycuda", "the TensorRT engine", "tensorrt"),
    "torch": ("torch", "train, reconstruct on CUDA", "hpc"),
    "caproto": ("caproto", "the agent", "hpc"),
    "p4p": ("p4p", "ioc, record, demo, the agent", "hpc"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="look at the detector, positions, model, files of this IOC's TOML file",
    )
    parser.add_argument(
        "--seconds", type=finite, default=3.0, metavar="S", help="watch the streams so long (default %(default)g)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def examine() -> dict[str, object]:
    """Versions, engines and EPICS environment of this machine."""
    packages = {}
    for distribution, (module, purpose, extra) in PACKAGES.items():
        found = importlib.util.find_spec(module) is not None
        try:
            version = importlib.metadata.version(distribution) if found else None
        except importlib.metadata.PackageNotFoundError:
            version = "system"
        packages[distribution] = {"version": version, "for": purpose, "extra": extra}
    engines: list[dict[str, object]] = []
    if packages["softioc"]["version"] is not None:
        from ptychostream.plugins.engines import probe_engines

        engines = [
            {"name": status.name, "available": status.available, "reason": status.reason} for status in probe_engines()
        ]
    return {
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "packages": packages,
        "engines": engines,
        "receiver": _receiver(),
        "epics_environment": {k: v for k, v in sorted(os.environ.items()) if k.startswith("EPICS_")},
    }


def _receiver() -> str:
    """What receives a detector's images: "compiled", "p4p" where that was not built, "" where neither is there."""
    if importlib.util.find_spec("p4p") is None:
        return ""
    from ptychostream.pva.array_monitor import receiver_kind

    return receiver_kind()


def run(arguments: argparse.Namespace) -> int:
    """Status 1 if a check of a configuration fails."""
    from ptychostream.doctor.finding import exit_code

    checks = _checks(arguments.config, arguments.seconds)
    if arguments.json:
        told = [{**asdict(one), "level": one.level.value} for one in checks]
        print(json.dumps({**examine(), "checks": told}, indent=2))
    elif arguments.config is not None:
        _print_checks(checks)
    else:
        _print_machine(examine())
    return exit_code(checks)


def _checks(config: Path | None, seconds: float) -> list[Finding]:
    if config is None:
        return []
    from ptychostream.config import load_settings

    logging.getLogger("ptychostream").setLevel(logging.ERROR)  # the findings say it
    from ptychostream.doctor.examine import examine as look
    from ptychostream.ioc.config.settings import IocSettings

    return look(load_settings(IocSettings, config, {}), seconds)


def _print_checks(checks: list[Finding]) -> None:
    from rich.console import Console
    from rich.text import Text

    console, styles = Console(highlight=False), {"OK": "green", "WARN": "yellow", "FAIL": "bold red"}
    for one in checks:
        line = Text(f"{one.level.value:<4} ", style=styles[one.level.value]).append(
            f"{one.check}: {one.what}", "default"
        )
        console.print(line, soft_wrap=True)
        if one.remedy:
            console.print(f"     → {one.remedy}", soft_wrap=True, markup=False)


def _print_machine(found: dict[str, object]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    machine: dict[str, object] = found["machine"]  # type: ignore[assignment]
    console.print(", ".join(f"{name} {value}" for name, value in machine.items()), highlight=False)
    table = Table("package", "version", "needed for")
    packages: dict[str, dict[str, str | None]] = found["packages"]  # type: ignore[assignment]
    for name, entry in packages.items():
        remedy = f"missing: pip install 'ptychostream[{entry['extra']}]'"
        table.add_row(name, entry["version"] or escape(remedy), entry["for"])
    console.print(table)
    table = Table("engine", "here", "why")
    engines: list[dict[str, object]] = found["engines"]  # type: ignore[assignment]
    for engine in engines:
        table.add_row(str(engine["name"]), "yes" if engine["available"] else "no", str(engine["reason"]))
    console.print(table)
    console.print(f"receiver of images: {found['receiver'] or 'none'}")
    environment: dict[str, str] = found["epics_environment"]  # type: ignore[assignment]
    for name, value in environment.items():
        console.print(f"{name}={value}")
