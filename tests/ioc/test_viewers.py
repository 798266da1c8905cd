"""Every served image as the image viewers of others decode it: PyDM, c2dataviewer and p4p (make test-viewers)."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from folders import HELPERS
from image_sources import CanvasSource, RefinedSource
from p4p.client.thread import Context

from ptychostream.ioc.images.images import UNITS, ImageServer
from ptychostream.ioc.images.refined_images import REFINED_IMAGES, RefinedImages

pytestmark = pytest.mark.server

P = "seen:"
IMAGES = (*UNITS, *REFINED_IMAGES)


class Stand:
    """Every image of an IOC, with content of which no two rows and no two columns are alike."""

    def __init__(self, env: EpicsEnv) -> None:
        self.env = env
        self.canvas, refined = CanvasSource(), RefinedSource()
        self.images = ImageServer(P, self.canvas, lambda _: "sha", 50.0, None, (24, 32), 0, REFINED_IMAGES)
        others = RefinedImages(P, refined, lambda _: "sha", lambda: refined.runs, (24, 32))  # type: ignore[arg-type]
        with env.active():
            self.images.start(others.open())
        rows, columns = np.mgrid[:100, :90].astype(np.float32)
        self.canvas.show(np.sin(rows / 7 + columns / 11).astype(np.float32), np.ones((100, 90), np.float32))
        wait_until(lambda: self.images.served, 10, "the canvas")
        refined.show(1, 77)
        others.serve()

    def close(self) -> None:
        self.images.stop()

    def sent(self, name: str) -> dict[str, Any]:
        """An image by its value and dimensions."""
        value = self.env.pvget(P + name)
        columns, rows = (dimension.size for dimension in value.dimension)
        return described(np.asarray(value.value).reshape(rows, columns))


@pytest.fixture(scope="module")
def stand() -> Iterator[Stand]:
    with EpicsEnv() as env:
        stand = Stand(env)
        yield stand
        stand.close()


def described(pixels: np.ndarray[Any, Any]) -> dict[str, Any]:
    about = {"shape": list(pixels.shape), "type": str(pixels.dtype)}
    return {**about, "sha256": hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()}


def decoded_by(viewer: str, env: EpicsEnv) -> Mapping[str, Any]:
    command = [sys.executable, str(HELPERS / "viewer_probe.py"), viewer, *(P + name for name in IMAGES)]
    done = subprocess.run(command, env=env.env, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {name.removeprefix(P): one for name, one in found.items()}


@pytest.mark.parametrize("viewer", ["pydm", "c2dataviewer"])
def test_a_viewer_draws_the_pixels_that_were_served(stand: Stand, viewer: str) -> None:
    if importlib.util.find_spec(viewer) is None:
        pytest.skip(f"{viewer} is not installed: make test-viewers")
    found = decoded_by(viewer, stand.env)
    assert found == {name: stand.sent(name) for name in IMAGES}


def test_p4p_unpacks_the_pixels_that_were_served(stand: Stand) -> None:
    with Context("pva", conf=stand.env.epics, useenv=False) as context:
        for name in IMAGES:
            array = context.get(P + name, timeout=15)
            assert described(np.asarray(array)) == stand.sent(name), name
            assert array.attrib["ColorMode"] == 0
