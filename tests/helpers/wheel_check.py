"""Run by `make wheel` with the Python of a clean environment that has the built wheel and one extra: edge or hpc.

Not collected by pytest: it checks an installation, from another folder than the repository's root.
"""

from __future__ import annotations

import importlib
import importlib.resources
import importlib.util
import json
import os
import pkgutil
import queue
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

CORE = ("frames", "positions", "imaging", "model", "scans", "storage", "quality", "reconstruct", "processes", "cli")
ROOMS = {
    "edge": (*CORE, "pva", "rawpva", "recording", "demo", "cluster", "plugins", "ioc", "sim", "db", "opi"),
    "hpc": (*CORE, "hpc_agent", "db", "opi"),
    "web": (*CORE, "pva", "web", "db"),
}
ABSENT = {"edge": ("torch", "caproto", "parsl"), "hpc": ("pvaccess", "softioc", "openvino"),
          "web": ("torch", "pvaccess", "softioc", "openvino", "onnxruntime", "parsl")}  # fmt: skip
"""What an extra must not bring."""
NEEDS_MORE = {
    "ptychostream.plugins.engines.torch_import", "ptychostream.plugins.engines.torch_engine",
    "ptychostream.plugins.engines.tensorrt_engine", "ptychostream.hpc_agent.reconstruct.ptychi_engine",
}  # fmt: skip
"""Engines that need a package of another extra."""
COMMAND = str(Path(sys.executable).parent / "ptychostream")
PREFIX = "wheel:"
TIMEOUT_S = 600.0
LIVE = 4
"""Of ModelState_RBV."""


def import_rooms(extra: str) -> int:
    """Import every module of the extra's rooms. Returns how many."""
    count = 0
    for room in ROOMS[extra]:
        package = importlib.import_module(f"ptychostream.{room}")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            try:
                importlib.import_module(found.name)
            except ModuleNotFoundError:
                if found.name not in NEEDS_MORE:
                    raise
            count += 1
    return count


def command(*words: str) -> str:
    """What a command that succeeds prints."""
    return subprocess.run([COMMAND, *words], check=True, capture_output=True, text=True, timeout=TIMEOUT_S).stdout


def check_edge() -> str:
    """The templates are there, an engine is available, and the IOC serves a record and stops in order."""
    templates = [p.name for p in importlib.resources.files("ptychostream.db").iterdir() if p.name.endswith(".template")]
    assert templates, "no record templates in the wheel"
    engines = {engine["name"]: engine["available"] for engine in json.loads(command("doctor", "--json"))["engines"]}
    assert engines["ONNXRuntime"], engines
    for words in (["ioc", "--help"], ["demo", "--help"], ["replay", "--help"]):
        command(*words)
    compiled = importlib.util.find_spec("ptychostream.pva._array_monitor") is not None
    return f"{len(templates)} templates, compiled receiver {compiled}, engines {engines}, {served()}"


def served() -> str:
    """Start the IOC and read a record over PVA."""
    from p4p.client.thread import Context  # only the edge extra promises p4p here

    from ptychostream.processes.loopback import free_ports, loopback_environment

    ca, pva, broadcast = free_ports(3)
    environment = loopback_environment([ca], broadcast)
    ports = {"EPICS_CAS_SERVER_PORT": str(ca), "EPICS_PVAS_SERVER_PORT": str(pva), "EPICS_PVA_SERVER_PORT": str(pva)}
    words = [COMMAND, "ioc", "--prefix", PREFIX, "--engine", "none", "--input-pv", "wheel:none"]
    ioc = subprocess.Popen(words, env={**environment, **ports}, stdin=subprocess.PIPE)
    try:
        client = {name: value for name, value in environment.items() if name.startswith("EPICS_")}
        with Context("pva", conf=client, useenv=False) as context:
            states: queue.Queue[Any] = queue.Queue()
            with context.monitor(f"{PREFIX}ModelState_RBV", states.put):
                while int(states.get(timeout=TIMEOUT_S)) != LIVE:  # kernels are compiled until then
                    pass
            scale = context.get(f"{PREFIX}DoseScale_RBV", timeout=TIMEOUT_S)
        ioc.send_signal(signal.SIGINT)
        status = ioc.wait(TIMEOUT_S)
    finally:
        ioc.kill()
    assert status == 0, f"the IOC ended with status {status}"
    return f"the IOC served DoseScale_RBV = {float(scale):g}"


def check_hpc() -> str:
    """The agent's command is there, and a small simulated scan is reconstructed."""
    from ptychostream.scans.scan_writer import write_scan
    from ptychostream.sim.diffraction import Simulation, simulate_scan
    from ptychostream.sim.probe import ZonePlate

    for words in (
        ["agent", "--help"],
        ["agent", "--check", "--complete-pv", "w:Complete", "--id-pv", "w:ScanID"],
        ["train", "--help"],
        ["doctor"],
    ):
        command(*words)
    optics = ZonePlate(outermost_zone_m=50e-9)
    scan, _truth = simulate_scan(Simulation(size=32, frames=80, step_m=200e-9, optics=optics, dose=1e7), "wheel")
    write_scan(Path("scan.h5"), scan)
    words = ["reconstruct", "scan.h5", "-o", "object.h5", "--iterations", "10", "--json"]
    r_factors = {}
    for engine in ("epie", "torch"):
        r_factors[engine] = json.loads(command(*words, "--engine", engine))["r_factor"]
        assert r_factors[engine] < 0.5, r_factors
    return f"reconstructed, R factors {r_factors}"


def check_web() -> str:
    """The page's server starts without an IOC, and serves the page's files, which are all in the wheel."""
    import re
    import urllib.request

    words = [COMMAND, "web", PREFIX, "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[-1]
            with urllib.request.urlopen(address, timeout=30) as answer:
                page = answer.read().decode()
            files = set(re.findall(r'"(page/[^"]+)"', page)) | {"page/colours.json", "page/link.js", "page/view.js"}
            for name in files:
                with urllib.request.urlopen(address + name, timeout=30) as answer:
                    assert answer.read()
            with urllib.request.urlopen(f"{address}api/records", timeout=30) as answer:
                records = len(json.load(answer))
            assert records > 200
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    return f"the page with {len(files)} files and {records} records"


def main() -> None:
    extra = sys.argv[1]
    package = Path(importlib.import_module("ptychostream").__file__ or "")
    assert "site-packages" in package.parts, f"not the installed package: {package}"
    brought = [name for name in ABSENT[extra] if importlib.util.find_spec(name)]
    assert not brought, f"the {extra} extra must install without {brought}"
    command("--help")
    modules = import_rooms(extra)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        done = {"edge": check_edge, "hpc": check_hpc, "web": check_web}[extra]()
    print(f"wheel with [{extra}] on Python {sys.version.split()[0]} ok: {modules} modules, {done}")


if __name__ == "__main__":
    main()
