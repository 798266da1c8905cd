"""A cluster on loopback for the tests: its TOML file, its processes, and what its canvas ought to be."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from epics_env import IOC_FOLDER, EpicsEnv, Process, wait_until
from folders import HELPERS
from numpy.typing import NDArray

from ptychostream.imaging.phase_image import PhaseImage, canvas_part
from ptychostream.imaging.stitching import Canvas
from ptychostream.plugins.consumer.consumer_report import Report
from ptychostream.plugins.consumer.consumer_wire import read_report

SIZE, PIXEL_M, COLUMNS, ROWS, STEP_PX = 16, 10e-9, 20, 20, 4.25


PLAIN = f"""
engine = {{ name = "None", frame_shape = [{SIZE}, {SIZE}], pixel_m = {PIXEL_M} }}
"""
"""Keys of a consumer without a network."""


class Cluster:
    """`ptychostream cluster`, its collector on CA and PVA.

    Parameters
    ----------
    folder
        For its file and logs.
    channel
        The detector's.
    consumers
        How many.
    mirror
        Put pvaPy's mirror server in front.
    consumer
        Keys of every consumer; by default engine None on frames of 16 × 16.
    environment
        Variables besides those of `env`.
    dealing
        More keys of the section consumers.
    run
        Options: what of the cluster runs here.
    """

    def __init__(
        self,
        env: EpicsEnv,
        folder: Path,
        prefix: str,
        channel: str,
        consumers: int,
        mirror: bool = False,
        consumer: str = PLAIN,
        environment: Mapping[str, str] | None = None,
        dealing: str = "",
        run: tuple[str, ...] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.env, self.prefix, self.consumers = env, prefix, consumers
        self.logs = folder / "logs"
        self.toml = path = folder / "cluster.toml"
        (folder / "key").write_bytes(b"a key for the tests alone")
        (folder / "key").chmod(0o600)
        path.write_text(
            f"""
prefix = "{prefix}"
key_file = "{(folder / "key").as_posix()}"
log_dir = "{self.logs.as_posix()}"
[source]
channel = "{channel}"
mirror = {str(mirror).lower()}
[consumers]
count = {consumers}
group = "{prefix.strip(":")}"
dead_after_s = 3
{dealing}
[consumer]
state_s = 0.3
{consumer}
[ioc]
phase_rate_hz = 10
"""
        )
        self.environment = {**env.cluster_env(), **(environment or {})}
        self.process: Process = self.start(*run)

    def start(self, *run: str) -> Process:
        """One more `ptychostream cluster` with the same file."""
        command = (sys.executable, "-m", "ptychostream", "cluster", str(self.toml), *run)
        return self.env.start(*command, env=self.environment, cwd=IOC_FOLDER)

    def get(self, name: str) -> Any:
        """A record, or None while the collector does not answer."""
        try:
            return self.env.caget(f"{self.prefix}{name}", timeout=1.0)
        except (TimeoutError, OSError):
            return None

    def wait(self, name: str, value: Any, timeout: float = 40.0) -> None:
        """Until the record has the value."""
        wait_until(lambda: self._alive() and self.get(name) == value, timeout, lambda: f"{name} = {value}; {self}")

    def wait_ready(self) -> None:
        """Until every consumer is live, runs its engine and follows the collector."""
        self.wait("ConsumersLive_RBV", self.consumers, 90)
        self.wait("ModelState_RBV", 4)

    def wait_image(self, name: str, wanted: NDArray[np.float32], timeout: float = 20.0) -> None:
        """Until the image is that, bit for bit."""
        pv = f"{self.prefix}{name}"
        wait_until(lambda: image(self.env, pv).tobytes() == wanted.tobytes(), timeout, lambda: f"{pv}; {self}")

    def pid(self, name: str) -> int:
        """Of the newest process of that name, as the supervisor says."""
        return int(re.findall(rf"{name}: started, process (\d+)", self.process.output)[-1])

    def figures(self, *names: str) -> dict[str, Any]:
        """Several records; they must answer."""
        return {name: self.env.caget(f"{self.prefix}{name}_RBV", timeout=20.0) for name in names}

    def report(self, consumer: int) -> Report:
        """What a consumer said last, with its canvas."""
        report = read_report(self.env.pvget(f"{self.prefix}consumer:{consumer}"))
        assert report is not None
        return report

    def laid(self, consumer: int) -> set[int]:
        """Ids of the frames on its canvas, by its last report."""
        ids = self.report(consumer).run.laid
        return set(ids.common(ids)) if ids is not None else set()

    def stop(self) -> int:
        return self.process.stop(timeout=60.0)

    def _alive(self) -> bool:
        assert self.process.popen.poll() is None, self.process.output
        return True

    def __str__(self) -> str:
        logs = "\n".join(f"{path.name}: {path.read_text()[-800:]}" for path in sorted(self.logs.glob("*.log")))
        return f"{self.get('Consumers_RBV')}\n{self.process.output[-2000:]}\n{logs}"

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *details: object) -> None:
        if self.process.popen.poll() is None:
            self.process.popen.terminate()  # its children end with it
            self.process.wait(60)
        self.process.__exit__(*details)


def image(env: EpicsEnv, pv: str) -> NDArray[np.float32]:
    """The canvas in an image that is served, [H, W]; 0 × 0 before the first."""
    served = env.pvget(pv)
    width, height = (dimension.size for dimension in served.dimension)
    pixels: NDArray[np.float32] = np.asarray(served.value, np.float32).reshape(height, width)
    return pixels[canvas_part({attribute.name: attribute.value for attribute in served.attribute})]


def counts_of(number: int, size: int = SIZE) -> NDArray[np.uint16]:
    """The pattern of a frame: engine None makes a patch of it as it is."""
    return np.random.default_rng(number).integers(0, 30, (size, size)).astype(np.uint16)


def place_of(number: int) -> tuple[float, float]:
    """Its position, metres: overlapping, between the pixels."""
    return (number % COLUMNS) * STEP_PX * PIXEL_M, (number // COLUMNS % ROWS) * STEP_PX * PIXEL_M


def canvas_of(numbers: Iterable[int]) -> PhaseImage:
    """What these frames make, with the spread."""
    canvas = Canvas(PIXEL_M, np.ones((SIZE, SIZE), np.float32), spread=True)
    for number in numbers:
        canvas.add(counts_of(number).astype(np.float32), *place_of(number))
    return canvas.image()


class Source:
    """`cluster_source.py` as a child process."""

    def __init__(self, env: EpicsEnv, channel: str, environment: Mapping[str, str] | None = None) -> None:
        self.channel = channel
        self._popen = subprocess.Popen(
            [sys.executable, str(HELPERS / "cluster_source.py"), channel],
            env={**env.server_env(), **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._expect("serving")

    def send(self, scan: str, first: int, count: int, rate: float = 400, end: bool = False, size: int = SIZE) -> None:
        """Send frames `first` to `first + count - 1`; returns when all are out."""
        order = {"scan": scan, "first": first, "count": count, "rate": rate, "end": end, "size": size}
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()
        self._expect("sent")

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._popen.send_signal(number)

    def _expect(self, word: str) -> None:
        assert self._popen.stdout is not None
        assert self._popen.stdout.readline().strip() == word

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self._popen.kill()
        self._popen.wait()
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                pipe.close()
