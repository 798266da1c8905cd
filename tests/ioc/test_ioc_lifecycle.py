"""The IOC over its life: refused starts, restarts with setpoints, no detector yet, scans told by another IOC."""

from __future__ import annotations

import getpass
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from epics_env import EpicsEnv, wait_until
from ioc_helpers import wait_for
from tiny_model import write_tiny

from ptychostream.processes.loopback import LOOPBACK

pytestmark = pytest.mark.server

SCAN_DB = """record(bo, "bl:Scan:Active") { field(ZNAM, "Done") field(ONAM, "Scanning") field(PINI, "YES") }"""


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as made:
        yield made


def refused(environment: dict[str, str], *arguments: str) -> str:
    """What an IOC says that does not start."""
    command = [sys.executable, "-m", "ptychostream", "ioc", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr.strip().splitlines()[-1]


def test_setpoints_and_model_survive_a_kill_and_a_second_ioc_is_refused(env: EpicsEnv, tmp_path: Path) -> None:
    save = tmp_path / "setpoints.sav"
    model = tmp_path / "a model with spaces.onnx"
    reference = str(tmp_path.resolve() / "a reference, with spaces.h5")
    write_tiny(model, name="kept")
    same = ("--prefix", "keep:", "--autosave", str(save), "--engine-cache", str(tmp_path / "cache"))
    with env.start_ioc(*same, "--engine", "auto", "--model", str(model), "--dose-scale", "2") as ioc:
        env.caput("keep:MaxLatency", 12.345678901234567)
        env.caput("keep:PhaseRate", 7.5)
        env.caput("keep:XAttribute", "Sample X")
        env.caput("keep:SSIMTolerance", 0.25)
        env.caput("keep:Agent:Interval", 120.0)
        env.caput("keep:SSIMReference", list(reference.encode() + b"\0"))
        wait_until(lambda: save.exists() and "a reference, with spaces" in save.read_text(), 10, "setpoints on disk")
        engine = env.caget("keep:EngineName_RBV")
        ioc.stop(signal.SIGKILL)
    assert save.read_text().endswith("<END>\n")

    environment = env.server_env()
    with env.start_ioc(*same, "--dose-scale", "3", env=environment) as ioc:  # the command line wins over what was kept
        expected = {
            "MaxLatency": 12.345678901234567, "PhaseRate": 7.5, "XAttribute": "Sample X", "SSIMTolerance": 0.25,
            "SSIMReference": reference, "DoseScale": 3.0,
        }  # fmt: skip
        for name, value in expected.items():
            assert env.caget(f"keep:{name}") == value
            assert env.caget(f"keep:{name}_RBV") == value
        assert env.caget("keep:Agent:Interval") == 120
        assert env.caget("keep:START_CNT") == 2
        assert env.caget("keep:ModelVersion_RBV") == "kept"
        assert env.caget("keep:EngineName_RBV") == engine  # read from its cache, between EPICS's libraries

        assert "another IOC serves keep:HEARTBEAT" in refused(env.server_env(), "--prefix", "keep:")
        assert "Channel Access port" in refused(environment, "--prefix", "other:")
        env.caput("keep:PhaseRate", 8.5)
        assert ioc.stop(signal.SIGINT) == 0, ioc.output
    assert "keep:PhaseRate 8.5" in save.read_text()


def test_a_start_that_cannot_be_says_why(env: EpicsEnv, tmp_path: Path) -> None:
    environment = {**env.env, "EPICS_CAS_SERVER_PORT": "0"}
    config = tmp_path / "ioc.toml"
    config.write_text("[pipeline]\nbach = 3\n", encoding="utf-8")
    assert "bach" in refused(environment, "--config", str(config))
    assert "prefix 'a.b'" in refused(environment, "--prefix", "a.b")
    save = tmp_path / "cut.sav"
    save.write_text("t:DoseScale 2.0\nt:Phas", encoding="utf-8")
    assert "<END>" in refused(environment, "--prefix", "t:", "--autosave", str(save))
    said = refused(environment, "--prefix", "t:", "--autosave", "")
    assert "autosave = '': no path; give one, or leave the setting out" in said
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        said = refused({**environment, "EPICS_PVAS_SERVER_PORT": port}, "--prefix", "t:")
    assert f"PV Access port {port} is in use" in said
    assert "EPICS_PVAS_SERVER_PORT" in said


def test_frames_of_an_independent_source_between_two_edges_of_a_scan_pv(env: EpicsEnv, tmp_path: Path) -> None:
    """No detector at first; then pvapy's simulator, whose frames name no scan and carry no position."""
    database = tmp_path / "scan.db"
    database.write_text(SCAN_DB, encoding="utf-8")
    prefix = "sim:"
    scan_ioc = env.start(sys.executable, "-m", "pvxslibs.ioc", "-d", str(database), env=env.server_env())
    options = {
        "--prefix": prefix, "--input-pv": "sim:Image", "--engine": "none", "--frame-shape": "24x32",
        "--position-source": "waveform", "--position-unit": "um", "--scan-active-pv": "bl:Scan:Active",
    }  # fmt: skip
    words = [word for pair in options.items() for word in pair]
    with scan_ioc, env.start_ioc(*words) as ioc:
        assert env.caget(f"{prefix}Ready_RBV") == 0
        assert env.caget(f"{prefix}StatusMessage_RBV") == "waiting for sim:Image"
        env.caput(f"{prefix}PositionsX", [0.05 * (i % 20) for i in range(600)])
        env.caput(f"{prefix}PositionsY", [0.05 * (i // 20) for i in range(600)])
        env.caput("bl:Scan:Active", 1)
        wait_for(env, f"{prefix}ScanActive_RBV", 1)

        simulator = "pvapy.cli.adSimServer"
        command = [sys.executable, "-m", simulator, "-cn", "sim:Image", "-nx", "32", "-ny", "24", "-dt", "uint16"]
        command += ["-fps", "50", "-nf", "40", "-cs", "40", "-rt", "6", "-std", "1", "-dc"]
        with env.start(*command) as source:
            wait_for(env, f"{prefix}Ready_RBV", 1, timeout=30)
            wait_until(lambda: env.caget(f"{prefix}FramesStitched_RBV") > 50, 30, lambda: source.output)
            assert source.wait(30) == 0, source.output
        wait_for(env, f"{prefix}Connected_RBV", 0)
        env.caput("bl:Scan:Active", 0)
        wait_for(env, f"{prefix}ScanActive_RBV", 0)
        wait_for(env, f"{prefix}FramesPending_RBV", 0)

        names = ("FramesReceived", "FramesStitched", "FramesMissed", "DroppedArrays")
        received, stitched, missed, dropped = (env.caget(f"{prefix}{name}_RBV") for name in names)
        assert received == stitched > 50
        assert (dropped, missed) == (0, 0)
        assert env.caget(f"{prefix}Accounting_RBV") == 0
        assert env.caget(f"{prefix}ScanID_RBV")  # begun by the PV's rising edge
        assert env.caget(f"{prefix}DataType_RBV") == "uint16"
        image = env.pvget(f"{prefix}Phase")
        assert {a.name: a.value for a in image.attribute}["FramesStitched"] == stitched
        wait_until(lambda: env.caget(f"{prefix}PositionsCount_RBV") == 0, 10, "positions forgotten at the scan's end")
        assert ioc.stop() == 0, ioc.output


def test_without_a_model_frames_are_dropped_and_said_to_be(env: EpicsEnv) -> None:
    with env.start_ioc("--prefix", "bare:", "--model", "/nowhere/model.onnx", wait="up") as ioc:
        # the status is written last; the message names the file while it is still being looked for, too
        wait_until(lambda: env.caget("bare:StatusMessage_RBV").startswith("frames are dropped"), 10, "the status")
        assert "/nowhere/model.onnx" in env.caget("bare:ModelMessage_RBV")
        assert env.caget("bare:ModelState_RBV") == 0
        assert env.pvget("bare:ModelState_RBV").alarm.severity == 2
        env.caput("bare:Engine", 6)  # engine None needs no model
        assert env.caget("bare:ModelState_RBV") == 4
        assert env.caget("bare:StatusMessage_RBV") == "no detector: InputPVAName is empty"
        assert ioc.stop() == 0, ioc.output


def test_only_named_users_may_write(env: EpicsEnv, tmp_path: Path) -> None:
    me = getpass.getuser()
    config = tmp_path / "ioc.toml"
    config.write_text(
        f'prefix = "safe:"\n[engine]\nname = "None"\n[access]\noperators = ["somebody.else"]\nagents = ["{me}"]\n',
        encoding="utf-8",
    )
    with env.start_ioc("--config", str(config), prefix="safe:") as ioc:
        with pytest.raises(PermissionError):
            env.caput("safe:DoseScale", 2.0)
        assert env.caget("safe:DoseScale_RBV") == 1
        env.caput("safe:Agent:Epoch", 3)  # agents report, and may load models
        assert env.caget("safe:Agent:Epoch") == 3
        env.caput("safe:ModelFile", list(b"a.onnx\0"))
        weight = env.pvget("safe:Weight")  # the images can be read before the first frame
        assert [axis.size for axis in weight.dimension] == [512, 512]
        assert not weight.value.any()
        assert ioc.stop() == 0, ioc.output
