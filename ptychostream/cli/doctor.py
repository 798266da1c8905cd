"""`ptychostream doctor`: what this machine has, and what is missing for which command."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform

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
    found = examine()
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
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
    return 0
