"""Nothing of ours speaks to the internet: an engine is built and infers without opening an internet socket."""

from __future__ import annotations

import importlib.util
import platform
import signal
import sys
from pathlib import Path

import pytest
from folders import HELPERS
from no_network import run_without_network

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="Linux only"),
]

ENGINE = """
import sys
from pathlib import Path
import numpy as np
from tiny_model import write_tiny
from ptychostream.model.model_file import load_model
from ptychostream.plugins.engines.registry import create_engine
path = Path(sys.argv[1]) / "tiny.onnx"
write_tiny(path)
engine = create_engine(sys.argv[2], load_model(path), batch=3, cache_dir=sys.argv[1])
print(engine.infer(np.ones((3, 16, 16), np.float32)).shape)
engine.close()
"""


def test_the_kernel_kills_what_opens_an_internet_socket() -> None:
    for family in ("AF_INET", "AF_INET6"):
        code = f"import socket; print('before', flush=True); socket.socket(socket.{family}); print('after')"
        ended = run_without_network(code)
        assert (ended.returncode, ended.stdout) == (-signal.SIGSYS, "before\n"), ended.stderr
    local = run_without_network("import socket; socket.socketpair(); print('local')")
    assert local.stdout == "local\n", local.stderr


def test_telemetry_that_is_sent_would_be_seen() -> None:
    if importlib.util.find_spec("openvino_telemetry") is None:
        pytest.skip("openvino-telemetry is not installed")
    code = (
        "import urllib.request\n"
        "import openvino_telemetry.utils.opt_in_checker as checker\n"
        "checker.OptInChecker.check = lambda self, *_: checker.ConsentCheckResult.ACCEPTED\n"
        "from openvino_telemetry import Telemetry\n"
        "t = Telemetry(app_name='x', app_version='1', tid='G-X', backend='ga4', enable_opt_in_dialog=False)\n"
        "t.start_session('x'); t.send_event('x', 'y', 'z'); t.force_shutdown(10)\n"
        "urllib.request.urlopen('http://127.0.0.1:9/')\n"
    )
    assert run_without_network(code).returncode == -signal.SIGSYS


@pytest.mark.parametrize("engine", ["OpenVINO", "ONNXRuntime"])
def test_an_engine_opens_no_internet_socket(tmp_path: Path, engine: str) -> None:
    ended = run_without_network(ENGINE, str(tmp_path), engine, path=str(HELPERS))
    assert ended.returncode == 0, f"status {ended.returncode} (-{signal.SIGSYS.value}: a socket)\n{ended.stderr}"
    assert ended.stdout == "(3, 16, 16)\n"
