"""Temperature and power of a graphics processor: NVIDIA's tool on a workstation, sysfs on a Jetson."""

from __future__ import annotations

import logging
import math
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

_QUERY = ("--query-gpu=temperature.gpu,power.draw", "--format=csv,noheader,nounits")
_TIMEOUT_S = 5.0
SYSFS = Path("/sys")


class GpuHealth(NamedTuple):
    """Degrees Celsius and watts; NaN where the machine does not tell."""

    temperature_c: float
    power_w: float


def parse_smi(text: str) -> GpuHealth | None:
    """The first line of the tool's answer, as "45, 71.20"; None when there is none."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    fields = [_number(field) for field in first.split(",")]
    return GpuHealth(fields[0], fields[1]) if len(fields) == 2 and not math.isnan(fields[0]) else None


def read_sysfs(root: Path = SYSFS) -> GpuHealth | None:
    """A Jetson's thermal zone of the GPU and its power monitor; None on other machines."""
    zones = root.glob("class/thermal/thermal_zone*")
    zone = next((zone for zone in zones if _text(zone / "type").lower().startswith("gpu")), None)
    if zone is None:
        return None
    power_w = math.nan
    for monitor in root.glob("class/hwmon/hwmon*"):
        for label in monitor.glob("in*_label"):
            if "GPU" in _text(label):
                channel = label.name.removeprefix("in").removesuffix("_label")
                millivolts = _number(_text(monitor / f"in{channel}_input"))
                milliamperes = _number(_text(monitor / f"curr{channel}_input"))
                power_w = millivolts * milliamperes / 1e6
    return GpuHealth(_number(_text(zone / "temp")) / 1e3, power_w)


def read() -> GpuHealth | None:
    """What this machine tells; None when it has no graphics processor that is known how to ask."""
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        try:
            answer = subprocess.run([tool, *_QUERY], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        except (OSError, subprocess.SubprocessError):
            return read_sysfs()
        return parse_smi(answer.stdout) or read_sysfs()
    return read_sysfs()


class GpuWatch:
    """Asks every `period_s` on a thread of its own, for the tool may take its time."""

    def __init__(self, on_health: Callable[[GpuHealth], None], period_s: float = 5.0) -> None:
        self._on_health = on_health
        self._period_s = period_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            health = read()
            if health is not None:
                self._on_health(health)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
