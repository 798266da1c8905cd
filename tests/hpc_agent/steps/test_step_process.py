"""Steps in processes of their own: killed, interrupted, several together; and what they say when they cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from step_helpers import Arguments, folder, labelled, of, reconstructed, training

from ptychostream import errors
from ptychostream.errors import ConfigError, DropCause, FrameError, PtychostreamError, ScanFileError
from ptychostream.hpc_agent.models.model_store import ModelStore
from ptychostream.hpc_agent.running.step_errors import pack_error, unpack_error
from ptychostream.hpc_agent.scans.scan_checks import CollectError, ScanFault
from ptychostream.hpc_agent.steps import command as steps_command
from ptychostream.hpc_agent.steps import train_step
from ptychostream.hpc_agent.steps.training_state import load_state
from ptychostream.hpc_agent.training import devices

pytestmark = pytest.mark.slow


def started(work: Path, name: str, arguments: Arguments, *more: str) -> subprocess.Popen[str]:
    (work / "arguments.json").write_text(json.dumps(arguments))
    command = [sys.executable, "-m", "ptychostream.hpc_agent.steps", name, str(work / "arguments.json")]
    command += [str(work / "result.json"), "--progress", str(work / "progress.json"), *more]
    with (work / "log.txt").open("w") as log:  # a session of its own, as every runner starts it
        return subprocess.Popen(command, stderr=log, text=True, start_new_session=True)


def result_of(work: Path) -> Arguments:
    found: Arguments = json.loads((work / "result.json").read_text())
    return found


@pytest.mark.server
def test_a_training_that_was_killed_goes_on(work: Path) -> None:
    labelled(work)
    nice = min(19, os.getpriority(os.PRIO_PROCESS, 0) + 1)
    arguments = {**training(work, epochs=400), "threads": 1, "nice": nice}
    process = started(work, "train", arguments)
    try:
        deadline = time.monotonic() + 120
        while not (work / "progress.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, (work / "log.txt").read_text()
            time.sleep(0.05)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == nice
        group = Path(f"/proc/{process.pid}/autogroup")
        assert not group.exists() or group.read_text().split()[-1] == str(nice)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert not (work / "result.json").exists() and ModelStore(work / "models").models() == []
    job = train_step.TrainJob(**training(work, epochs=400))
    state = load_state(job.files.state, job.task)
    assert state is not None
    seen: list[int] = []

    class Seen(BaseException):
        pass

    def progress(told: Arguments) -> None:
        seen.append(told["epoch"])
        raise Seen

    with pytest.raises(Seen):
        train_step.train_step(**training(work, epochs=400), progress=progress)
    assert seen == [len(state.history) + 1]
    with pytest.raises(Seen):  # other options: anew
        train_step.train_step(**training(work, epochs=399), progress=progress)
    assert seen[1:] == [1]


@pytest.mark.server
def test_an_interrupt_does_not_pass_for_a_finished_training(work: Path) -> None:
    labelled(work)
    process = started(work, "train", {**training(work, epochs=400), "threads": 1})
    try:
        deadline = time.monotonic() + 120
        while not (work / "progress.json").exists():
            assert process.poll() is None and time.monotonic() < deadline, (work / "log.txt").read_text()
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == -signal.SIGINT
    finally:
        process.kill()
    assert not (work / "result.json").exists() and ModelStore(work / "models").models() == []


@pytest.mark.server
def test_two_processes_train_one_network(work: Path) -> None:
    labelled(work)
    process = started(work, "train", {**training(work, processes=2), "threads": 1})
    assert process.wait(240) == 0, (work / "log.txt").read_text()
    result = result_of(work)
    assert [model.sha256 for model in ModelStore(work / "models").models()] == [result["sha256"]]
    assert json.loads((work / "progress.json").read_text())["epoch"] == 1


def run_here(work: Path, name: str, arguments: Arguments) -> int:
    (work / "arguments.json").write_text(json.dumps(arguments))
    before = signal.getsignal(signal.SIGINT)
    try:
        return steps_command.main([name, str(work / "arguments.json"), str(work / "result.json")])
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_a_step_says_is_raised_again(work: Path) -> None:
    (work / "result.json").write_text("{}")
    arguments = {**of(work), "scan": str(work / "none.h5"), "folder": folder(work), "options": {}}
    assert run_here(work, "reconstruct", arguments) == steps_command.FAILED
    error = unpack_error(result_of(work))
    assert type(error) is errors.FileMissingError
    assert (error.what, error.where) == ("there is no such file", str(work / "none.h5"))
    assert run_here(work, "reconstruct", {**arguments, **of(work)}) == 0
    assert unpack_error(result_of(work)) is None
    (work / "arguments.json").write_text("[]")
    with pytest.raises(TypeError):
        run_here(work, "reconstruct", {"nonsense": 1})
    assert not (work / "result.json").exists()
    (work / "list.json").write_text("[]")
    assert steps_command.main(["label", str(work / "list.json"), str(work / "result.json")]) == steps_command.FAILED
    assert isinstance(unpack_error(result_of(work)), ConfigError)


def test_a_folder_that_cannot_be_written_is_told(work: Path) -> None:
    (work / "scans").write_text("no folder")
    with pytest.raises(ScanFileError, match="cannot be written"):
        reconstructed(work)


ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, PtychostreamError)]


@pytest.mark.parametrize("kind", ERRORS)
def test_every_error_comes_through(kind: type[PtychostreamError]) -> None:
    if issubclass(kind, FrameError):
        error: PtychostreamError = FrameError(DropCause.SHAPE, "w", where="h", remedy="r")
    else:
        error = kind("w", where="h", remedy="r")
    back = unpack_error(json.loads(json.dumps(pack_error(error))))
    assert back is not None
    assert type(back) is (PtychostreamError if issubclass(kind, FrameError) else kind)
    assert str(back) == str(error)


def test_an_error_of_another_module_comes_as_its_base() -> None:
    error = CollectError(ScanFault.DARK, "dark", where="h", remedy="r")
    back = unpack_error(pack_error(error))
    assert type(back) is ScanFileError and str(back) == str(error)
    assert type(unpack_error({"error": "Unheard", "what": "w"})) is PtychostreamError


def test_processes_that_train_together_have_a_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(devices.torch, "empty", lambda _, device: asked.append(str(device)))
    devices.choose_device("auto")
    monkeypatch.setattr(devices.torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    for name in ("auto", "cuda", "cuda:1", "cpu"):
        devices.choose_device(name)
    assert asked == ["cuda", "cuda:3", "cuda:3", "cuda:1", "cpu"]
