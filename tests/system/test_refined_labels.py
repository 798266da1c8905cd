"""A real edge refines a scan while it runs; a real agent learns from the result, and reconstructs where it may not."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from epics_env import EpicsEnv, Process, wait_until
from refine_case import SIZE, case
from sequencer_records import DATABASE
from tiny_model import tiny_contract, tiny_graph

from ptychostream.hpc_agent.journal.journal import Journal
from ptychostream.model.contract import PackedArray
from ptychostream.model.model_file import write_model
from ptychostream.scans.reconstruction_file import read_reconstruction
from ptychostream.scans.scan_writer import write_scan

pytestmark = [pytest.mark.server, pytest.mark.slow]

P, CHANNEL = "rl:", "rl:det:Image"
CONFIGURATION = """
prefix = "rl:"
work = {work}
[watch]
complete_pv = "s:Complete"
id_pv = "s:ID"
file_pv = "s:File.VAL$"
[collect]
quiet_s = 0.1
[policy]
training = "always"
[steps]
canvases = {canvases}
refined = {refined}
refined_wait_s = 60
reconstruct = {{ iterations = 5 }}
train = {{ epochs = 1, batch = 20, precision = "float32" }}
"""


class World:
    """An edge with a network that draws almost nothing, a sequencer, and an agent."""

    def __init__(self, env: EpicsEnv, folder: Path) -> None:
        one = case()
        self.env, self.folder = env, folder
        for name in ("canvases", "scans", "models"):
            (folder / name).mkdir()
        contract = tiny_contract(SIZE, gain=1e-7, name="drawn").model_copy(
            update={
                "object_pixel_m": one.truth.pixel_m,
                "probe": PackedArray.pack(one.probe),
                "mean_counts": float(np.mean([counts.sum() for counts in one.scan.counts])),
            }
        )
        write_model(folder / "models/model.onnx", tiny_graph(SIZE, 1e-7), contract)
        (folder / "scan.db").write_text(DATABASE)
        words = ["--prefix", P, "--input-pv", CHANNEL, "--engine", "ONNXRuntime", "--threads", "1"]
        words += [
            "--model",
            str(folder / "models/model.onnx"),
            "--models-dir",
            str(folder / "models"),
            "--engine-cache",
            str(folder / "cache"),
        ]
        words += ["--save-directory", str(folder / "canvases"), "--save-automatic", "yes"]
        self.edge = env.start_ioc(*words)
        self.sequencer = env.start(
            sys.executable, "-m", "pvxslibs.ioc", "-d", str(folder / "scan.db"), env=env.server_env()
        )
        wait_until(lambda: self._answers("s:Complete"), 30, "the sequencer")

    def _answers(self, name: str) -> bool:
        try:
            self.env.caget(name, timeout=0.5)
        except TimeoutError:
            return False
        return True

    def agent(self, refined: str) -> Process:
        paths = {
            "work": str(self.folder / f"work-{refined}"),
            "canvases": str(self.folder / "canvases"),
            "refined": refined,
        }
        text = CONFIGURATION.format(**{name: json.dumps(value) for name, value in paths.items()})
        (self.folder / f"{refined}.toml").write_text(text)
        command = (sys.executable, "-m", "ptychostream", "agent", "--config", str(self.folder / f"{refined}.toml"))
        return self.env.start(*command)

    def scan(self, name: str, frames: slice = slice(None)) -> None:
        """The detector takes a scan; its file has all frames, the stream those of `frames`."""
        from dataclasses import replace

        one = case().scan
        path = self.folder / "scans" / f"{name}.h5"
        write_scan(path, replace(one, scan_id=name))
        part = replace(one, scan_id=name, counts=one.counts[frames], positions_m=one.positions_m[frames],
                       frame_ids=None, times=None)  # fmt: skip
        write_scan(self.folder / "sent.h5", part)
        words = ["replay", str(self.folder / "sent.h5"), "--pv", CHANNEL, "--rate", "400"]
        words += ["--wait-for", f"{P}Connected_RBV", "--scan-id", name]
        with self.env.start(sys.executable, "-m", "ptychostream", *words, env=self.env.server_env()) as process:
            assert process.wait(60) == 0, process.output
        self.env.caput("s:Complete", 0)
        self.env.caput("s:ID", name)
        self.env.caput("s:File.VAL$", str(path))
        self.env.caput("s:Complete", 1)

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def step(self, refined: str, key: str, step: str) -> dict[str, Any]:
        """The result of a step in the agent's journal; {} while it is not done."""
        path = self.folder / f"work-{refined}" / "journal.sqlite"
        if not path.exists():
            return {}
        journal = Journal(path)
        try:
            found = journal.steps(key).get(step)
            return dict(found.result) if found is not None and found.result else {}
        finally:
            journal.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with EpicsEnv(ca_servers=8) as env:
        world = World(env, tmp_path)
        with world.edge, world.sequencer:
            yield world


@pytest.mark.timeout(280)
def test_the_agent_learns_from_what_the_edge_refined(world: World) -> None:
    world.env.caput(P + "Refine:Budget", 0.9)
    world.env.caput(P + "Refine:Enable", 1)
    first = world.get("ModelSHA_RBV")
    with world.agent("when_converged") as agent:
        wait_until(lambda: world.get("Agent:Lease_RBV"), 60, lambda: f"the agent: {agent.output}")
        world.scan("whole")
        step = wait_until(lambda: world.step("when_converged", "whole", "reconstruct"), 120, lambda: agent.output)
        assert step["refined_refused"] == "" and Path(step["refined"]).parent == world.folder / "canvases/refined"
        made = read_reconstruction(step["reconstruction"])
        assert made.engine == "refined live" and case().ssim(made.phase_image()) > 0.75
        labels = wait_until(lambda: world.step("when_converged", "whole", "label"), 60, lambda: agent.output)
        assert labels["pairs"] == 120
        wait_until(lambda: world.get("ModelSHA_RBV") != first, 120, lambda: f"a model of it: {agent.output}")

        world.scan("half", slice(0, 60))
        step = wait_until(lambda: world.step("when_converged", "half", "reconstruct"), 120, lambda: agent.output)
        assert step["refined"] == "" and "60 of 120 frames" in step["refined_refused"]
        assert read_reconstruction(step["reconstruction"]).engine == "epie"
        assert agent.stop() == 0
