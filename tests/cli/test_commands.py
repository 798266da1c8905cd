"""What the commands say when a newcomer gives them what they cannot use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from epics_env import EpicsEnv, wait_until

from ptychostream.cli import doctor
from ptychostream.cli.main import build_parser, main
from ptychostream.config import load_settings
from ptychostream.errors import ConfigError, ScanFileError
from ptychostream.hpc_agent.settings import AgentSettings
from ptychostream.quality.figures import Figure, save_figure
from ptychostream.scans.scan_probe import probe
from ptychostream.storage.atomic import check_can_be_written


def test_doctor_names_the_extra_that_brings_a_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        doctor, "PACKAGES", {"nothing": ("no_such_module", "nothing", "tensorrt"), "softioc": ("a", "b", "c")}
    )
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["doctor"]) == 0
    assert "pip install 'ptychostream[tensorrt]'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "known", "unknown"),
    [
        ("[watch]\ncomplet_pv = 'a'", "complete_pv", "keep_models"),
        ("[runner.parsl]\nqueu = 'a'", "queue", "keep_models"),
        ("pefix = 'a'", "keep_models", "complete_pv"),
    ],
)
def test_a_misspelt_key_is_answered_with_its_neighbours(tmp_path: Path, text: str, known: str, unknown: str) -> None:
    (tmp_path / "agent.toml").write_text(text)
    with pytest.raises(ConfigError, match="unknown key") as caught:
        load_settings(AgentSettings, tmp_path / "agent.toml", {})
    names = caught.value.remedy.partition("known there are ")[2].split(", ")
    assert known in names and unknown not in names


@pytest.mark.parametrize("value", ["-13.5e-6", "-1E-05", "-.5", "-2"])
def test_a_negative_number_is_no_option(value: str) -> None:
    words = ["reconstruct", "scan.h5", "-o", "out.h5", "--defocus-m", value]
    assert build_parser("reconstruct").parse_args(words).defocus_m == float(value)


def test_a_figure_of_no_known_format(tmp_path: Path) -> None:
    with pytest.raises(ScanFileError, match=r"no picture format 'xyz' \(end its name in .png"):
        save_figure(Figure(), tmp_path / "figure.xyz")
    assert not list(tmp_path.iterdir())


def test_where_a_result_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for command in (
        ["reconstruct", "none.h5"],
        ["train", "none.h5", "--reconstruction", "n.h5"],
        ["infer", "n.h5", "n"],
    ):
        assert main([*command, "-o", str(tmp_path / "file" / "out")]) == 2
        assert "file/out: cannot be written" in capsys.readouterr().err
    with pytest.raises(ScanFileError, match="is a folder"):
        check_can_be_written(tmp_path)
    check_can_be_written(tmp_path / "new" / "out")
    assert not list((tmp_path / "new").iterdir())


def test_ctrl_c_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where the child that opens the file is interrupted …"""
    child = tmp_path / "child"
    child.write_text(
        f"#!{sys.executable}\n"
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_DFL)  # the suite may have been started with it ignored\n"
        "os.kill(os.getpid(), signal.SIGINT)\n"
    )
    child.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(child))
    with pytest.raises(KeyboardInterrupt):
        probe(tmp_path / "scan.h5")


@pytest.mark.slow
def test_ctrl_c_ends_the_child_that_opens_the_file(tmp_path: Path) -> None:
    """… nor where the command is."""
    os.mkfifo(tmp_path / "scan.h5")  # nobody writes to it: opening it never returns
    command = [sys.executable, "-m", "ptychostream", "reconstruct", str(tmp_path / "scan.h5"), "-o", "out.h5"]
    ran = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def openers() -> list[int]:
        found = [path for path in Path("/proc").glob("[0-9]*/cmdline") if path.parent.name != str(ran.pid)]
        return [int(path.parent.name) for path in found if str(tmp_path / "scan.h5") in _text(path)]

    wait_until(openers, 60, "the child that opens the file")
    os.killpg(ran.pid, signal.SIGINT)
    _, errors = ran.communicate(timeout=60)
    assert (ran.returncode, errors) == (130, "ptychostream reconstruct: interrupted\n")
    assert not openers()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def test_raw_recording_refuses_what_it_does_not_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["record", "--raw", "a:Image", str(tmp_path / "raw.h5"), "--timeout", "3"]) == 2
    assert "--timeout: --raw does not know it (end by --seconds" in capsys.readouterr().err


@pytest.mark.server
def test_raw_recording_of_a_channel_that_nobody_has(tmp_path: Path) -> None:
    with EpicsEnv() as env:
        command = (sys.executable, "-m", "ptychostream", "record", "--raw", "no:Image", "raw.h5", "--seconds", "1")
        with env.start(*command, cwd=tmp_path) as recording:
            assert recording.wait(60) == 1
            assert "nothing was recorded: no server had no:Image" in recording.output


@pytest.mark.server
def test_setpoints_that_cannot_be_saved_are_said_once(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.write_text("a file is in the way")
    arguments = ("--prefix", "t:", "--input-pv", "no:Image", "--engine", "none", "--autosave", str(folder / "a.sav"))
    with EpicsEnv() as env, env.start_ioc(*arguments) as ioc:
        wait_until(lambda: env.caget("t:AutosaveStatus_RBV") == 1, 20, "the failure is shown")
        began = env.caget("t:HEARTBEAT")
        wait_until(lambda: env.caget("t:HEARTBEAT") >= began + 4, 20, "several tries")
        assert ioc.output.count("setpoints cannot be saved") == 1
        folder.unlink()
        wait_until(lambda: env.caget("t:AutosaveStatus_RBV") == 0, 20, "it is saved again")
        assert (folder / "a.sav").is_file() and "are saved to" in ioc.output


@pytest.mark.server
def test_a_second_beamline_of_the_same_prefix_is_refused(tmp_path: Path) -> None:
    """It would write its scan settings into the first one's records."""
    command = (sys.executable, "-m", "ptychostream", "beamline", "--prefix", "b:")
    with EpicsEnv() as env, env.start(*command, env=env.server_env()) as first:
        wait_until(lambda: "serving scan records b:" in first.output, 40, lambda: first.output)
        with env.start(*command, env=env.server_env()) as second:
            assert second.wait(40) == 2
            assert "another beamline serves b:Start (stop that one" in second.output
        assert first.stop() == 0


@pytest.mark.server
def test_ctrl_c_as_a_beamline_starts_is_not_for_its_records(tmp_path: Path) -> None:
    """A terminal interrupts the whole process group."""
    command = ("setsid", sys.executable, "-m", "ptychostream", "beamline", "--prefix", "b:")
    with EpicsEnv() as env, env.start(*command, env=env.server_env()) as beamline:
        pid = beamline.popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children")
        commands = lambda: [_text(Path(f"/proc/{child}/cmdline")) for child in children.read_text().split()]  # noqa: E731
        wait_until(lambda: any("pvxslibs.ioc" in command for command in commands()), 60, lambda: beamline.output)
        os.killpg(pid, signal.SIGINT)
        assert beamline.wait(40) == 0
        assert "0 scans complete" in beamline.output and "Traceback" not in beamline.output
