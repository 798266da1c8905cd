"""A setting and a figure that a test declares are found wherever those of the package are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from epics_env import EpicsEnv, Process, wait_until
from folders import HELPERS
from ioc_helpers import wait_for

pytestmark = pytest.mark.server

PROGRAM = (sys.executable, str(HELPERS / "declared_here.py"))
PLAIN = ("--engine", "None", "--frame-shape", "16x16")


@pytest.fixture
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv() as made:
        yield made


def start(env: EpicsEnv, prefix: str, *options: str) -> Process:
    """The IOC that has the setting and the figure, once it answers."""
    process = env.start(*PROGRAM, "ioc", "--prefix", prefix, *PLAIN, *options, env=env.server_env())

    def up() -> bool:
        assert process.popen.poll() is None, process.output
        try:
            return bool(env.caget(f"{prefix}HEARTBEAT", timeout=0.5))
        except TimeoutError:
            return False

    wait_until(up, 120, lambda: process.output)
    return process


def program(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*PROGRAM, *words], capture_output=True, text=True, timeout=180, check=False)


def test_over_ca_and_pva_in_the_autosave_file_and_on_the_command_line(env: EpicsEnv, tmp_path: Path) -> None:
    save, config = tmp_path / "setpoints.sav", tmp_path / "ioc.toml"
    config.write_text("[pipeline]\ngain = 3.5\n", encoding="utf-8")
    kept = ("--config", str(config), "--autosave", str(save))
    with start(env, "one:", *kept) as ioc:
        assert env.caget("one:SparkGain") == env.caget("one:SparkGain_RBV") == 3.5
        wait_for(env, "one:Sparks_RBV", 35)
        shown = env.pvget("one:SparkGain")
        assert (shown.display.description, shown.display.units) == ("Sparks in ten frames, over 10", "")
        assert (shown.control.limitLow, shown.control.limitHigh, shown.display.precision) == (0.0, 100.0, 2)
        figure = env.pvget("one:Sparks_RBV")
        assert (figure.value, figure.display.description, figure.display.units) == (35, "Sparks seen", "sparks")

        env.caput("one:SparkGain", 4.5)  # the pipeline acts on it
        assert env.caget("one:SparkGain_RBV") == 4.5
        assert env.caget("one:Sparks_RBV") == 45
        env.pva.put("one:SparkGain", 5.5, timeout=10)
        wait_for(env, "one:Sparks_RBV", 55)
        with pytest.raises(PermissionError):
            env.caput("one:Sparks_RBV", 1)
        wait_until(lambda: save.exists() and "one:SparkGain 5.5\n" in save.read_text(), 15, "the setpoint on disk")
        assert ioc.stop() == 0, ioc.output
    with start(env, "one:", *kept) as ioc:  # what was kept wins over the file
        wait_for(env, "one:Sparks_RBV", 55)
        assert ioc.stop() == 0, ioc.output
    with start(env, "one:", *kept, "--spark-gain", "6") as ioc:  # and the command line over both
        wait_for(env, "one:Sparks_RBV", 60)
        assert env.caget("one:SparkGain") == 6
        assert ioc.stop() == 0, ioc.output


def test_in_the_help_and_in_both_references() -> None:
    text = " ".join(program("ioc", "--help").stdout.split())
    assert "--spark-gain GAIN a tenth of the sparks (2.0)" in text
    rows = program("reference").stdout.splitlines()
    assert "| `SparkGain` | ao | Sparks in ten frames, over 10 |  | 0 … 100 | OPERATOR | yes |" in rows
    assert "| `Sparks_RBV` | longin | Sparks seen | sparks | 0 … 1000000 | READONLY |  |" in rows
    what = "A tenth of the sparks that are seen."
    assert f"| `gain` | {what} | number, ≥ 0, ≤ 100 | `2` |  | `--spark-gain` | `SparkGain` |" in rows


def test_a_value_that_does_not_fit_is_named(tmp_path: Path) -> None:
    done = program("ioc", "--prefix", "x:", "--spark-gain", "101")
    assert "pipeline.gain = '101'" in done.stderr
    config = tmp_path / "ioc.toml"
    config.write_text("[pipeline]\ngane = 1\n", encoding="utf-8")
    done = program("ioc", "--config", str(config))
    assert f"{config}: unknown key 'pipeline.gane'" in done.stderr
    assert "gain" in done.stderr.rpartition("known there are")[2]


def test_the_figure_of_several_consumers_is_added_up(env: EpicsEnv, tmp_path: Path) -> None:
    config = tmp_path / "ioc.toml"
    config.write_text('[cluster]\nconsumers = [1, 2]\noutput = "sp:consumer:*"\n', encoding="utf-8")
    consumers = [
        env.start(*PROGRAM, "consumer", f"sp:consumer:{number}", str(number), gain, env=env.cluster_env())
        for number, gain in ((1, "1.5"), (2, "4"))
    ]
    try:
        with start(env, "sp:", "--config", str(config)) as ioc:
            wait_for(env, "sp:ConsumersLive_RBV", 2, timeout=120)
            assert env.pvget("sp:consumer:1:Status").sparks == 15
            wait_for(env, "sp:Sparks_RBV", 55)
            consumers[1].stop()
            wait_for(env, "sp:Sparks_RBV", 15, timeout=30)
            assert ioc.stop() == 0, ioc.output
    finally:
        for consumer in consumers:
            consumer.__exit__()
