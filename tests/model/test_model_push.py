"""What a push has to pass before the model slot sees it: size, signature, nonce, sha256; and the files it leaves."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from p4p import Type, Value
from p4p.server import Server
from p4p.server.thread import SharedPV
from tiny_model import write_tiny

from ptychostream.errors import ConfigError, ModelError
from ptychostream.hpc_agent.edge.push import PushRefusedError, PushSettings, push
from ptychostream.ioc.model.model_rpc_checks import Nonces, PushRequest, check_bytes, check_request
from ptychostream.ioc.model.model_rpc_folder import PushedModels
from ptychostream.model.contract import CONTRACT_VERSION
from ptychostream.model.model_push import REPLY, push_channel, read_key, signature

KEY = b"k" * 32
CHANNEL = push_channel("p:")
texts = st.text(max_size=30)
four = st.tuples(*[st.text("ab", max_size=2)] * 4)


def request(data: bytes, key: bytes | None = None, nonce: str = "", **changes: Any) -> PushRequest:
    sha = hashlib.sha256(data).hexdigest()
    signed = signature(key, CHANNEL, nonce, sha, "m") if key is not None else ""
    return replace(PushRequest(data, sha, "m", nonce, signed, user="u", host="h"), **changes)


def check(pushed: PushRequest, nonces: Nonces, key: bytes | None = KEY, now_s: float = 1.0) -> None:
    check_request(pushed, channel=CHANNEL, max_bytes=1000, key=key, nonces=nonces, now_s=now_s)
    check_bytes(pushed, hashlib.sha256(pushed.model).hexdigest(), len(pushed.model))
    if key is not None:
        nonces.redeem(pushed.nonce, now_s)


@given(st.binary(max_size=200))
def test_what_is_signed_and_whole_passes_once(data: bytes) -> None:
    nonces = Nonces()
    pushed = request(data, KEY, nonces.issue(0.0))
    check(pushed, nonces)
    with pytest.raises(ModelError, match="used before"):
        check(pushed, nonces)
    check(request(data, KEY, nonces.issue(1.0)), nonces)
    check(request(data), nonces, key=None)


@given(st.binary(min_size=1, max_size=50), st.integers(0, 49), st.integers(1, 255))
def test_one_wrong_byte_is_seen(data: bytes, at: int, by: int) -> None:
    at %= len(data)
    wrong = data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]
    nonces = Nonces()
    pushed = request(data, KEY, nonces.issue(0.0), model=wrong)
    with pytest.raises(ModelError, match="have sha256"):
        check(pushed, nonces)


@pytest.mark.parametrize("field", ["sha256", "name", "nonce", "hmac"])
def test_a_signed_push_cannot_be_changed(field: str) -> None:
    nonces = Nonces()
    other = nonces.issue(0.0)
    pushed = replace(request(b"data", KEY, nonces.issue(0.0)), **{field: other})
    with pytest.raises(ModelError, match="signature is wrong"):
        check(pushed, nonces)


def test_a_push_without_a_signature_or_with_another_channels_is_refused() -> None:
    nonces = Nonces()
    with pytest.raises(ModelError, match="not signed"):
        check(request(b"data", None, nonces.issue(0.0)), nonces)
    nonce, sha = nonces.issue(0.0), hashlib.sha256(b"data").hexdigest()
    of_another = signature(KEY, push_channel("q:"), nonce, sha, "m")
    with pytest.raises(ModelError, match="signature is wrong"):
        check(request(b"data", None, nonce, hmac=of_another), nonces)


def test_a_wrong_signature_does_not_use_a_nonce_up() -> None:
    nonces = Nonces()
    nonce = nonces.issue(0.0)
    with pytest.raises(ModelError):
        check(request(b"data", b"x" * 32, nonce), nonces)
    check(request(b"data", KEY, nonce), nonces)


@given(texts)
def test_a_nonce_that_was_made_up_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match="not one that this edge gave"):
        Nonces().redeem(text, 0.0)


def test_a_nonce_of_another_run_of_the_edge_is_refused() -> None:
    with pytest.raises(ModelError, match="not one that this edge gave"):
        Nonces().redeem(Nonces().issue(0.0), 0.0)


@given(st.floats(0, 1e6), st.floats(0, 1e6), st.floats(1, 1000))
def test_a_nonce_ends_with_its_time_and_is_then_forgotten(start: float, wait: float, lifetime: float) -> None:
    nonces = Nonces(lifetime)
    nonce = nonces.issue(start)
    if wait < lifetime - 1e-3:
        nonces.redeem(nonce, start + wait)
        nonces.redeem(nonces.issue(start + wait), start + wait)
        assert len(nonces._used) == 2
    elif wait > lifetime + 1e-3:
        with pytest.raises(ModelError, match="older than"):
            nonces.redeem(nonce, start + wait)
    later = start + wait + lifetime + 1
    nonces.redeem(nonces.issue(later), later)
    assert len(nonces._used) == 1


@given(four, four)
def test_no_two_pushes_have_one_signature(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert (signature(KEY, *one) == signature(KEY, *other)) == (one == other)


def test_a_push_that_is_too_large_is_not_even_hashed() -> None:
    with pytest.raises(ModelError, match=r"1,001 bytes, the limit is 1,000"):
        check(request(b"x" * 1001, sha256="nonsense"), Nonces(), key=None)


def test_a_key_is_read_without_the_line_end_and_one_that_is_poor_or_known_to_others_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(KEY + b"\r\n")
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(ConfigError, match=r"may be read or changed by other users .*chmod 600"):
            read_key(path, "model.key_file")
    path.chmod(0o600)
    assert read_key(path, "model.key_file") == KEY
    path.write_bytes(b"short\n")
    with pytest.raises(ConfigError, match=r"model\.key_file.*5 characters"):
        read_key(path, "model.key_file")
    with pytest.raises(ConfigError, match="No such file"):
        read_key(tmp_path / "nowhere", "model.key_file")


def test_the_folder_keeps_the_newest_and_those_in_use(tmp_path: Path) -> None:
    folder = PushedModels(tmp_path, keep=2)
    (tmp_path / "of-the-site.onnx").write_bytes(b"stays")
    shas = []
    for number in range(6):
        data = bytes([number]) * 10
        shas.append(hashlib.sha256(data).hexdigest())
        path, new = folder.stage(data, shas[-1].upper())
        assert (path.read_bytes(), new, path.stem) == (data, True, shas[-1])
        os.utime(path, (number, number))
    assert folder.stage(bytes([0]) * 10, shas[0])[1] is False  # it is there already, and newest now
    folder.tidy({shas[1]})
    left = {path.stem for path in tmp_path.glob("*.onnx")}
    assert left == {"of-the-site", shas[0], shas[1], shas[5]}


@pytest.mark.parametrize("there", [b"who", b"WHOLE model"])
def test_a_file_with_other_bytes_is_written_again(tmp_path: Path, there: bytes) -> None:
    folder, data = PushedModels(tmp_path, keep=2), b"whole model"
    sha = hashlib.sha256(data).hexdigest()
    (tmp_path / f"{sha}.onnx").write_bytes(there)
    path, new = folder.stage(data, sha)
    assert (path.read_bytes(), new) == (data, True)


def test_without_a_folder_nothing_is_taken() -> None:
    with pytest.raises(ModelError, match=r"set model\.directory"):
        PushedModels(None, 2).stage(b"data", "0" * 64)
    PushedModels(None, 2).tidy(set())


class Edge:
    """An edge of another version, or with another configuration: says what it takes, and counts what it is sent."""

    def __init__(self, **says: Any) -> None:
        self.says = {"contractVersion": CONTRACT_VERSION, "maxBytes": 10**9, "keyNeeded": False, **says}
        self.models = 0

    def rpc(self, _pv: SharedPV, op: Any) -> None:
        query = op.value().query
        self.models += bool(len(query.model))
        op.done(Value(Type(list(REPLY)), {**self.says, "nonce": "n", "sha256": query.sha256}))


@pytest.mark.parametrize(
    ("says", "remedy"),
    [
        ({"contractVersion": CONTRACT_VERSION - 1}, "update ptychostream at the edge"),
        ({"maxBytes": 100}, "raise model.max_bytes"),
        ({"keyNeeded": True}, "give the agent the key"),
        ({"contractVersion": CONTRACT_VERSION + 1}, ""),  # an edge that is newer reads what was
    ],
)
def test_what_the_edge_says_beforehand_spares_a_push_in_vain(tmp_path: Path, says: dict[str, Any], remedy: str) -> None:
    write_tiny(tmp_path / "m.onnx")
    edge = Edge(**says)
    channel = SharedPV(handler=edge, initial=Value(Type(list(REPLY)), {}))
    with Server([{push_channel("v:"): channel}], isolate=True) as server:
        settings = PushSettings(prefix="v:")
        if remedy:
            with pytest.raises(PushRefusedError, match=remedy):
                push(settings, tmp_path / "m.onnx", epics=server.conf())
            assert edge.models == 0
        else:
            assert push(settings, tmp_path / "m.onnx", epics=server.conf()).name == "tiny"
            assert edge.models == 1
