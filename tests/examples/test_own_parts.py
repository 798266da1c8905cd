"""An engine, a position source, a policy, a codec and a command of one's own, as examples/ shows them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from epics_env import EpicsEnv, wait_until
from folders import ROOT
from ioc_helpers import Detector, wait_for
from tiny_model import write_tiny

from ptychostream.cli import main as command_line
from ptychostream.config import load_object
from ptychostream.errors import DropCause, EngineError, FrameError
from ptychostream.frames import codecs
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines import create_engine

EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.timeout(900)
P = "own:"
GAIN = 0.01


@pytest.fixture(autouse=True)
def _examples_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as env:
        yield env


def with_examples(env: EpicsEnv, folder: Path) -> dict[str, str]:
    return {**env.server_env(), "PYTHONPATH": f"{folder}:{EXAMPLES}"}


@pytest.mark.server
def test_an_ioc_runs_an_engine_and_a_position_source_of_ones_own(env: EpicsEnv, tmp_path: Path) -> None:
    write_tiny(tmp_path / "model.onnx", gain=GAIN)
    (tmp_path / "ioc.toml").write_text(
        'input.pv = "own:det"\n'
        f'model.file = "{tmp_path / "model.onnx"}"\n'
        '[engine]\nown = "own_engine:ReferenceEngine"\n'
        '[positions]\nown = "own_position_source:PolarPositions"\n'
    )
    arguments = ("--config", str(tmp_path / "ioc.toml"), "--prefix", P)
    with Detector(env, "own:det") as detector, env.start_ioc(*arguments, timeout=240, env=with_examples(env, tmp_path)):
        assert env.caget(f"{P}EngineName_RBV").startswith("Reference")
        wait_for(env, f"{P}Connected_RBV", 1, timeout=60)
        detector.send(scan="s", count=4, value=100)
        wait_for(env, f"{P}FramesStitched_RBV", 4, timeout=120)
        wait_until(lambda: np.max(env.pvget(f"{P}Phase").value, initial=0) > 0, 60, "a phase image")
        assert np.max(env.pvget(f"{P}Phase").value) == pytest.approx(100 * GAIN, rel=0.05)


@pytest.mark.parametrize("key", ["engine.own", "positions.own"])
@pytest.mark.parametrize(
    ("code", "place", "said"),
    [
        (
            "raise RuntimeError('no licence')",
            "broken:Thing",
            "module broken cannot be imported: RuntimeError: no licence",
        ),
        ("", "broken:Thing", "module broken has no 'Thing'"),
        ("", "absent.module:Thing", "module absent.module cannot be imported: ModuleNotFoundError"),
        ("", "Thing", 'is not of the form "module:name"'),
    ],
)
def test_an_own_part_that_cannot_be_loaded_is_an_error_with_file_key_and_remedy(
    key: str,
    code: str,
    place: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "broken.py").write_text(code)
    (tmp_path / "ioc.toml").write_text(f'{key} = "{place}"\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    assert command_line.main(["ioc", "--config", str(tmp_path / "ioc.toml")]) == 2
    error = capsys.readouterr().err
    assert str(tmp_path / "ioc.toml") in error and f"{key} = '{place}'" in error and said in error
    assert "correct that key" in error and "Traceback" not in error


def test_the_agent_and_a_consumer_name_the_key_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "agent.toml").write_text('policy.own = "absent:step"\n')
    assert command_line.main(["agent", "--config", str(tmp_path / "agent.toml"), "--check"]) == 2
    error = capsys.readouterr().err
    assert "agent.toml" in error and "policy.own = 'absent:step'" in error and "correct that key" in error


def test_the_own_engine_gives_the_phase_of_the_others(tmp_path: Path) -> None:
    write_tiny(tmp_path / "model.onnx", gain=GAIN)
    model = load_model(tmp_path / "model.onnx")
    counts = np.random.default_rng(1).poisson(50, (3, *model.contract.input_shape)).astype(np.float32)
    engine = create_engine("own_engine:ReferenceEngine", model, batch=2 * len(counts))
    np.testing.assert_allclose(engine.infer(counts, 2.0), counts * 2 * GAIN, rtol=1e-5)
    assert engine.reason == "asked for" and engine.name == "Reference"
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.infer(counts)
    with pytest.raises(EngineError, match=r"absent.*engine\.own"):
        create_engine("absent:Engine", model)


@pytest.mark.parametrize(("hour", "trains"), [(3, True), (12, False), (20, True)])
def test_the_own_policy_trains_at_night(hour: int, trains: bool, tmp_path: Path) -> None:
    from ptychostream.hpc_agent.journal.journal import Journal
    from ptychostream.hpc_agent.journal.policy import PolicySettings, PolicyState, ScanCompleted
    from ptychostream.hpc_agent.journal.policy_keeper import PolicyKeeper

    settings = PolicySettings(own="own_policy:step")
    now = datetime(2026, 11, 29, hour, 30, tzinfo=timezone.utc).timestamp()
    decision = load_object(settings.own)(PolicyState(), ScanCompleted(), now, settings)
    assert decision.plan.reconstruct and decision.plan.train is trains
    assert ("no training by day" in decision.reason) is not trains

    said: list[str] = []
    keeper = PolicyKeeper(
        Journal(tmp_path / "journal.sqlite"), lambda: PolicySettings(own="own_policy:step"), said.append
    )
    plan = keeper.tell(ScanCompleted())
    assert plan.train is ("no training by day" not in said[-1])


def test_the_own_codec_is_read_from_a_stream_and_refuses_what_is_damaged(monkeypatch: pytest.MonkeyPatch) -> None:
    import own_codec

    monkeypatch.setitem(codecs.ENCODERS, "sparse", own_codec.encode_sparse)
    monkeypatch.setitem(codecs.DECODERS, "sparse", own_codec.decode_sparse)
    counts = np.random.default_rng(2).poisson(0.05, (32, 48)).astype(np.uint16)
    payload = codecs.compress(counts, "sparse")
    assert len(payload) < counts.nbytes / 2
    np.testing.assert_array_equal(codecs.decompress(payload, "sparse", counts.shape, counts.dtype), counts)
    for damaged in (payload[:-1], payload + b"\xff" * 6):
        with pytest.raises(FrameError) as caught:
            codecs.decompress(damaged, "sparse", counts.shape, counts.dtype)
        assert caught.value.cause is DropCause.CODEC


def test_the_own_command_runs_beside_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import own_command

    from ptychostream import write_scan
    from ptychostream.sim.diffraction import Simulation, simulate_scan

    scan, _ = simulate_scan(Simulation(frames=12, size=64, step_m=50e-9))
    write_scan(tmp_path / "scan.h5", scan)
    monkeypatch.setitem(command_line.COMMANDS, "overlap", "say how much of a scan's frames overlaps")
    monkeypatch.setitem(sys.modules, "ptychostream.cli.overlap", own_command)
    assert command_line.main(["overlap", str(tmp_path / "scan.h5"), "--beam", "750e-9"]) == 0
    assert "overlap 0.9" in capsys.readouterr().out
    assert command_line.main(["overlap", str(tmp_path / "absent.h5"), "--beam", "750e-9"]) == 2
