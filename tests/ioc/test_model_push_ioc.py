"""Models pushed to a real IOC by PVA RPC: live when the call returns, or refused with the old one running on."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from epics_env import EpicsEnv, Process, wait_until
from ioc_helpers import wait_for
from p4p.client.thread import RemoteError
from p4p.nt import NTURI
from tiny_model import tiny_contract, tiny_graph, write_tiny

from ptychostream.errors import AgentError, ConfigError, ModelError
from ptychostream.hpc_agent.edge.push import Pushed, PushRefusedError, PushSettings, push
from ptychostream.model.contract import CONTRACT_KEY, CONTRACT_VERSION
from ptychostream.model.model_push import QUERY, push_channel, signature

pytestmark = pytest.mark.server

P = "mp:"
KEY = b"0123456789abcdef0123456789abcdef"
LIMIT = 200_000


class Rig:
    """An IOC that wants signed models, and a folder with some."""

    def __init__(self, env: EpicsEnv, ioc: Process, folder: Path) -> None:
        self.env, self.ioc, self.folder = env, ioc, folder
        self.settings = PushSettings(prefix=P, key_file=folder / "key", timeout_s=30)
        self.made = 0

    def get(self, name: str) -> Any:
        return self.env.caget(P + name)

    def model(self, gain: float = 0.01, **options: Any) -> Path:
        """A model that was never pushed."""
        self.made += 1
        path = self.folder / f"m{self.made}.onnx"
        write_tiny(path, gain=gain * self.made, name=f"m{self.made}", **options)
        return path

    def push(self, path: Path, **changes: Any) -> Pushed:
        return push(self.settings.model_copy(update=changes), path, self.env.epics)

    def call(self, **arguments: Any) -> Any:
        """The call itself, whatever its arguments."""
        channel = push_channel(P)
        arguments["model"] = np.frombuffer(arguments.get("model", b""), np.uint8)
        request = NTURI(list(QUERY)).wrap(channel, kws=arguments)
        return self.env.pva.rpc(channel, request, timeout=30)

    def staged(self) -> set[str]:
        return {path.stem for path in (self.folder / "models").glob("*.onnx")}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    folder = tmp_path_factory.mktemp("push")
    (folder / "models").mkdir()
    (folder / "key").write_bytes(KEY + b"\n")
    (folder / "key").chmod(0o600)
    config = folder / "ioc.toml"
    config.write_text(
        f"[model]\nkey_file = {json.dumps(str(folder / 'key'))}\nkeep = 2\nmax_bytes = {LIMIT}\n"
        f"directory = {json.dumps(str(folder / 'models'))}\n"
    )
    arguments = ["--config", str(config), "--prefix", P, "--engine", "ONNXRuntime", "--threads", "1"]
    with EpicsEnv() as env:
        arguments += ["--engine-cache", str(folder / "cache")]
        with env.start_ioc(*arguments, wait="up") as ioc:
            wait_for(env, P + "ModelMessage_RBV", "no model loaded")
            yield Rig(env, ioc, folder)
            assert ioc.stop() == 0, ioc.output
            assert "Traceback" not in ioc.output


def test_a_pushed_model_is_live_when_the_call_returns(rig: Rig) -> None:
    path = rig.model()
    sha = hashlib.sha256(path.read_bytes()).hexdigest()
    pushed = rig.push(path)
    assert (pushed.sha256, pushed.name) == (sha, "m1")
    assert "runs on ONNXRuntime" in pushed.message
    assert (rig.get("ModelSHA_RBV"), rig.get("ModelState_RBV"), rig.get("ModelVersion_RBV")) == (sha, 4, "m1")
    assert Path(rig.get("ModelFile_RBV")) == rig.folder / "models" / f"{sha}.onnx"
    age = rig.get("ModelAge_RBV")
    assert rig.push(path).message == "runs already"
    assert rig.get("ModelAge_RBV") >= age  # not built again


def test_a_pushed_model_can_be_rolled_back_and_old_files_go(rig: Rig) -> None:
    shas = [rig.push(rig.model()).sha256 for _ in range(5)]
    rig.env.caput(P + "RollbackModel", 1)
    assert rig.get("ModelSHA_RBV") == shas[-2]
    assert {shas[-1], shas[-2]} <= rig.staged()
    assert len(rig.staged()) <= 4  # two in the slot, two kept


def test_a_model_that_the_slot_refuses_leaves_no_file_and_the_old_one_running(rig: Rig) -> None:
    live = rig.push(rig.model()).sha256
    before = rig.staged()
    with pytest.raises(PushRefusedError, match="golden pair"):
        rig.push(rig.model(lie=0.5))
    assert rig.staged() == before
    assert (rig.get("ModelSHA_RBV"), rig.get("ModelState_RBV")) == (live, 5)
    assert "golden pair" in rig.get("ModelMessage_RBV")


def test_bytes_that_are_not_what_their_sha256_says_never_touch_the_slot(rig: Rig) -> None:
    live, before = rig.push(rig.model()).sha256, rig.staged()
    data = rig.model().read_bytes()
    sha = hashlib.sha256(data).hexdigest()
    for wrong in (data[:-1], data[: len(data) // 2], data[:-1] + bytes([data[-1] ^ 1])):
        nonce = rig.call().nonce
        signed = signature(KEY, push_channel(P), nonce, sha, "x")
        with pytest.raises(RemoteError, match=r"refused: model: .* have sha256"):
            rig.call(model=wrong, sha256=sha, name="x", nonce=nonce, hmac=signed)
    assert rig.staged() == before
    assert (rig.get("ModelSHA_RBV"), rig.get("ModelState_RBV")) == (live, 4)  # 4: nothing was even tried


def test_a_push_that_was_recorded_cannot_be_sent_again(rig: Rig) -> None:
    first = rig.model().read_bytes()
    nonce, sha = rig.call().nonce, hashlib.sha256(first).hexdigest()
    recorded = {"model": first, "sha256": sha, "name": "first", "nonce": nonce}
    recorded["hmac"] = signature(KEY, push_channel(P), nonce, sha, "first")
    assert rig.call(**recorded).sha256 == sha
    live = rig.push(rig.model()).sha256
    with pytest.raises(RemoteError, match="used before"):
        rig.call(**recorded)
    with pytest.raises(RemoteError, match="signature is wrong"):  # nor with another nonce in it
        rig.call(**{**recorded, "nonce": rig.call().nonce})
    assert rig.get("ModelSHA_RBV") == live


def test_without_the_right_key_nothing_is_loaded(rig: Rig, tmp_path: Path) -> None:
    path, live = rig.model(), rig.get("ModelSHA_RBV")
    with pytest.raises(PushRefusedError, match="signed models only"):
        rig.push(path, key_file=None)
    (tmp_path / "other").write_bytes(KEY[::-1])
    (tmp_path / "other").chmod(0o600)
    with pytest.raises(PushRefusedError, match="signature is wrong"):
        rig.push(path, key_file=tmp_path / "other")
    with pytest.raises(ConfigError, match="key_file"):
        rig.push(path, key_file=tmp_path / "nowhere")
    assert rig.get("ModelSHA_RBV") == live


def test_a_model_beyond_the_limit_is_refused_before_and_after_it_is_sent(rig: Rig) -> None:
    big = tiny_graph()
    big.doc_string = "x" * LIMIT
    path = rig.folder / "big.onnx"
    contract = tiny_contract(name="big")
    entry = big.metadata_props.add()
    entry.key, entry.value = CONTRACT_KEY, contract.to_json()
    path.write_bytes(big.SerializeToString())
    with pytest.raises(PushRefusedError, match="the edge takes 200,000"):
        rig.push(path)
    with pytest.raises(RemoteError, match="the limit is 200,000"):
        rig.call(model=path.read_bytes(), sha256="0" * 64, name="big")


def test_a_contract_of_a_newer_agent_says_who_is_to_be_updated(rig: Rig) -> None:
    live = rig.get("ModelSHA_RBV")
    model = onnx.load(str(rig.model()))
    values = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps({**values, "version": 99, "of_the_future": 1})
    data = model.SerializeToString()
    path = rig.folder / "future.onnx"
    path.write_bytes(data)
    newer = f"contract version 99, this program reads {CONTRACT_VERSION}"
    with pytest.raises(ModelError, match=newer):
        rig.push(path)
    nonce, sha = rig.call().nonce, hashlib.sha256(data).hexdigest()
    with pytest.raises(RemoteError, match=f"refused: .*{newer}.*update ptychostream"):
        rig.call(model=data, sha256=sha, name="f", nonce=nonce, hmac=signature(KEY, push_channel(P), nonce, sha, "f"))
    assert rig.get("ModelSHA_RBV") == live


def test_an_older_agents_contract_is_taken(rig: Rig) -> None:
    model = onnx.load(str(rig.model()))
    values = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps({**values, "version": 1})
    path = rig.folder / "old.onnx"
    path.write_bytes(model.SerializeToString())
    assert rig.push(path).sha256 == rig.get("ModelSHA_RBV")


def test_of_pushes_at_once_one_is_taken_and_the_others_come_again(rig: Rig) -> None:
    paths = [rig.model() for _ in range(4)]
    gate = threading.Barrier(len(paths))

    def go(path: Path) -> Any:
        gate.wait()
        try:
            return rig.push(path)
        except AgentError as error:
            return error

    with ThreadPoolExecutor(len(paths)) as pool:
        results = list(pool.map(go, paths))
    done = [result for result in results if isinstance(result, Pushed)]
    assert done, results
    assert rig.get("ModelSHA_RBV") in {pushed.sha256 for pushed in done}
    assert rig.get("ModelState_RBV") == 4
    # each either ran, or was told that another was under way or took its place in the same moment
    assert all(
        isinstance(result, Pushed) or "runs" in str(result) or "under way" in str(result) for result in results
    ), results


def test_what_is_no_push_is_answered(rig: Rig) -> None:
    from p4p import Type, Value

    strange = Value(Type([("foo", "s")]), {"foo": "bar"})
    with pytest.raises(RemoteError, match="refused: not a push"):
        rig.env.pva.rpc(push_channel(P), strange, timeout=10)
    with pytest.raises(RemoteError):
        rig.env.pva.put(push_channel(P), {"value": "x"}, timeout=10)


def test_an_edge_that_is_away_is_an_error_that_says_so(rig: Rig) -> None:
    with pytest.raises(AgentError, match=r"does not answer.*start the IOC"):
        rig.push(rig.model(), prefix="nobody:", connect_s=0.5)


@pytest.mark.parametrize("allowed", [True, False])
def test_access_security_decides_who_may_push(tmp_path: Path, allowed: bool) -> None:
    import getpass

    models = tmp_path / "models"
    models.mkdir()
    user = getpass.getuser() if allowed else "somebody-else"
    config = tmp_path / "ioc.toml"
    config.write_text(
        f"[model]\ndirectory = {json.dumps(str(models))}\n[access]\noperators = ['nobody-here']\nagents = ['{user}']\n"
    )
    write_tiny(tmp_path / "a.onnx", name="a")
    settings = PushSettings(prefix="ac:", timeout_s=30)
    with (
        EpicsEnv() as env,
        env.start_ioc("--config", str(config), "--prefix", "ac:", "--engine", "ONNXRuntime", wait="up") as ioc,
    ):
        wait_until(lambda: "serving" in ioc.output, 10, "serving")
        if allowed:
            assert push(settings, tmp_path / "a.onnx", env.epics).name == "a"
        else:
            with pytest.raises(PushRefusedError, match="may not load models"):
                push(settings, tmp_path / "a.onnx", env.epics)
            assert env.caget("ac:ModelState_RBV") == 0
        assert ioc.stop() == 0
