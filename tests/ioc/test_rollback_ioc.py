"""RollbackModel at a real IOC while a model is tried in its child: it goes first, and the load gives way."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import wait_for
from tiny_model import write_tiny

pytestmark = [pytest.mark.server, pytest.mark.slow]

P = "rb:"
ENGINE = '''
from pathlib import Path
from threading import Event

from ptychostream.plugins.engines.onnxruntime_engine import OnnxRuntimeEngine


class WaitingEngine(OnnxRuntimeEngine):
    """ONNX Runtime; for the model "c" it waits for a file that the test writes at its end."""

    def __init__(self, model, options):
        while model.contract.name == "c" and not Path(__file__).with_name("go").exists():
            Path(__file__).with_name("waits").touch()
            Event().wait(0.05)
        super().__init__(model, options)
'''


def test_a_rollback_goes_before_a_load_that_takes_its_time(tmp_path: Path) -> None:
    (tmp_path / "waiting_engine.py").write_text(ENGINE)
    shas = {name: write_tiny(tmp_path / f"{name}.onnx", gain=gain, name=name) for name, gain in
            (("a", 0.01), ("b", 0.02), ("c", 0.03))}  # fmt: skip
    config = tmp_path / "ioc.toml"
    config.write_text(f'[engine]\nown = "waiting_engine:WaitingEngine"\nthreads = 1\ncache_dir = "{tmp_path}/cache"\n')
    with EpicsEnv() as env:
        env.env["PYTHONPATH"] = str(tmp_path)
        with (
            env.start_ioc(
                "--config", str(config), "--prefix", P, "--model", str(tmp_path / "a.onnx"), wait="up"
            ) as ioc,
            ThreadPoolExecutor(1) as threads,
        ):
            wait_for(env, P + "ModelSHA_RBV", shas["a"], 60.0)
            env.caput(P + "ModelFile", str(tmp_path / "b.onnx"))
            env.caput(P + "LoadModel", 1, timeout=60.0)
            assert env.caget(P + "ModelSHA_RBV") == shas["b"]
            env.caput(P + "ModelFile", str(tmp_path / "c.onnx"))
            load = threads.submit(env.pva.put, P + "LoadModel", 1, timeout=90.0, request="record[block=true]")
            wait_until((tmp_path / "waits").exists, 60, "the trial")
            env.caput(P + "RollbackModel", 1)  # completes though nothing lets the load go on
            assert env.caget(P + "ModelSHA_RBV") == shas["a"]
            load.result(30)
            assert env.caget(P + "ModelSHA_RBV") == shas["a"]
            (tmp_path / "go").touch()
            env.caput(P + "RollbackModel", 1)
            assert env.caget(P + "ModelSHA_RBV") == shas["b"]
            assert ioc.stop() == 0, ioc.output
            assert "Traceback" not in ioc.output
