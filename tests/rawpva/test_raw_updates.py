"""Raw recordings: the wire's bytes taken apart and put together, the file, and a round trip through a replay."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from epics_env import EpicsEnv, wait_until
from folders import CORPUS, HELPERS
from hypothesis import given, settings
from hypothesis import strategies as st
from p4p import Type, Value
from p4p.server import Server
from p4p.server.thread import SharedPV
from raw_samples import SMALL, small

from ptychostream.cli.main import main
from ptychostream.errors import ScanFileError
from ptychostream.rawpva.encoding import ANYTHING, CODES, array, encode, scalar, structure, structures, union
from ptychostream.rawpva.fields import FIXED_ARRAY, Field, Layout, copy_value, default_value, read_field, select
from ptychostream.rawpva.raw_client import RawChannel
from ptychostream.rawpva.raw_server import RawServer
from ptychostream.rawpva.raw_updates import MAGIC, RawFile, RawWriter
from ptychostream.rawpva.raw_values import Decoder, RawUpdate, WireUpdates
from ptychostream.rawpva.wire import MessageStream, Reader, WireError, pack_bits, pack_message, pack_size, pack_text
from ptychostream.recording.raw_record import RawRecordSettings, record_raw
from ptychostream.sim.replay.gate import Gate
from ptychostream.sim.replay.raw_replay import RawReplay, replay_raw, schedule

NAMES = sorted(path.stem for path in CORPUS.glob("*.pvaraw"))
TIMEOUT_S = 60.0


@pytest.fixture(scope="module")
def env() -> Iterator[EpicsEnv]:
    with EpicsEnv(ca_servers=8) as environment:
        yield environment


def small_file(path: Path, count: int) -> list[RawUpdate]:
    updates = [small(number) for number in range(1, count + 1)]
    with RawWriter(path, "t:small") as writer:
        for update in updates:
            writer.write(update)
    return updates


# ------------------------------------------------------------ types and values

numbers = st.sampled_from([name for name in CODES if name not in ("str", "bool")])
leaves = st.one_of(
    numbers.map(lambda name: (scalar(name), 1)),
    numbers.map(lambda name: (array(name), [1, 2, 3])),
    st.text(max_size=300).map(lambda text: (scalar("str"), text)),
    st.lists(st.text(max_size=4), max_size=3).map(lambda texts: (array("str"), texts)),
    st.integers(0, 4).map(lambda bound: (Field(CODES["int16"] | FIXED_ARRAY, bound=bound), [7] * bound)),
    st.just((ANYTHING, None)),
)


def _structure(members: list[tuple[Field, Any]], name: str) -> tuple[Field, Any]:
    named = {f"m{n}": member for n, member in enumerate(members)}
    of = structure(name, **{key: member for key, (member, _) in named.items()})
    return of, {key: value for key, (_, value) in named.items()}


typed = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(_structure, st.lists(inner, max_size=4), st.sampled_from(["", "some_t"])),
        inner.map(lambda one: (ANYTHING, one)),
        st.tuples(inner, inner).map(lambda two: (union(a=two[0][0], b=two[1][0]), ("b", two[1][1]))),
        st.builds(_structure, st.lists(inner, max_size=3), st.just("el_t")).map(
            lambda one: (structures(one[0]), [one[1], None, one[1]])
        ),
    ),
    max_leaves=12,
)


@pytest.mark.slow
@given(typed)
def test_every_type_and_value_is_kept_to_the_byte(of: tuple[Field, Any]) -> None:
    field, value = of
    described = field.pack()
    reader = Reader(described)
    assert read_field(reader, {}) == field
    assert reader.left == 0
    data, out = encode(field, value), []
    reader = Reader(data)
    copy_value(reader, field, {}, out)
    assert b"".join(out) == data
    assert reader.left == 0
    for cut in {0, len(data) // 2, len(data) - 1} - {len(data), -1}:
        with pytest.raises(WireError):
            copy_value(Reader(data[:cut]), field, {}, [])
    assert default_value(field) == encode(field)


def test_the_other_byte_order_is_turned_round() -> None:
    field = structure("", n=scalar("int32"), x=array("uint16"), s=scalar("str"), v=ANYTHING)
    big = b"\x00\x00\x01\x02" + b"\x02\x00\x03\x00\x04" + b"\x01a" + b"\x21\xff\xfe"
    out: list[bytes] = []
    copy_value(Reader(big, big_endian=True), field, {}, out)
    assert b"".join(out) == encode(field, {"n": 258, "x": [3, 4], "s": "a", "v": (scalar("int16"), -2)})
    words = bytes(range(1, 9))
    assert Reader(pack_size(9) + words[::-1] + b"\x01", big_endian=True).bits() == int.from_bytes(
        words + b"\x01", "little"
    )


def test_types_that_the_sender_has_numbered() -> None:
    inner = structure("in_t", x=scalar("int32"))
    described = b"\x80\x00\x02" + pack_text("a") + b"\xfd\x07\x00" + inner.pack() + pack_text("b") + b"\xfe\x07\x00"
    assert read_field(Reader(described), {}) == structure("", a=inner, b=inner)
    with pytest.raises(WireError, match="never described"):
        read_field(Reader(b"\xfe\x08\x00"), {})


def test_types_that_would_grow_without_bound_are_refused() -> None:
    described = b"\xfd\x00\x00" + structure("", a=scalar("int8")).pack()
    cache: dict[int, Field] = {}
    read_field(Reader(described), cache)
    with pytest.raises(WireError, match="more than"):
        for number in range(1, 40):
            twice = b"\x80\x00\x02\x01a\xfe" + bytes((number - 1, 0)) + b"\x01b\xfe" + bytes((number - 1, 0))
            read_field(Reader(b"\xfd" + bytes((number, 0)) + twice), cache)
    with pytest.raises(WireError, match="deeper"):
        read_field(Reader(b"\x80\x00\x01\x00" * 200), {})
    with pytest.raises(WireError, match="bound"):
        read_field(Reader(b"\x3b\xfe\xff\xff\xff\x7f"), {})


@pytest.mark.slow
@given(st.binary(max_size=60), st.binary(max_size=60))
@settings(max_examples=300)
def test_bytes_that_mean_nothing_are_an_error_and_no_more(described: bytes, value: bytes) -> None:
    with contextlib.suppress(WireError):
        field = read_field(Reader(described), {})
        if field is not None:
            copy_value(Reader(value), field, {}, [])
    with contextlib.suppress(WireError):
        list(MessageStream().feed(b"\xca\x02" + described))


@given(st.lists(st.tuples(st.integers(3, 30), st.binary(max_size=400)), max_size=6), st.integers(1, 60))
def test_messages_come_out_whole_however_they_are_cut(sent: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(pack_message(command, payload) for command, payload in sent)
    stream = MessageStream()
    got = [m for at in range(0, len(data), step) for m in stream.feed(data[at : at + step])]
    assert [(m.command, m.payload) for m in got] == sent


def test_segments_are_put_together() -> None:
    parts = [bytearray(pack_message(13, bytes((65 + n,)) * 5)) for n in range(3)]
    for part, flag in zip(parts, (0x10, 0x30, 0x20), strict=True):
        part[2] |= flag
    (message,) = MessageStream().feed(b"".join(map(bytes, parts)))
    assert message.payload == b"AAAAABBBBBCCCCC"


def test_a_request_selects_fields() -> None:
    full = structure("t", a=scalar("int8"), s=structure("in", b=scalar("int8"), c=scalar("int8")), d=scalar("int8"))
    wanted = structure("", d=structure(), s=structure("", c=structure()), absent=structure())
    assert select(full, wanted) == (structure("t", s=structure("in", c=scalar("int8")), d=scalar("int8")), [2, 3])
    assert select(full, structure()) == (full, [0, 1, 2, 3])
    layout = Layout(full)
    assert layout.changed(0b00100) == [1, 2]  # the bit of the structure stands for all in it
    assert [layout.pack_changed([leaf]) for leaf in range(4)] == [0b10, 0b1000, 0b10000, 0b100000]


# ------------------------------------------------------------ the file


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.pvaraw"
    updates = small_file(path, 5)
    with RawFile(path) as recording:
        assert (recording.channel, recording.updates, recording.torn) == ("t:small", 5, 0)
        assert list(recording) == updates
        assert list(recording) == updates


def test_a_file_is_added_to(tmp_path: Path) -> None:
    path = tmp_path / "x.pvaraw"
    updates = small_file(path, 3) + small_file(path, 2)
    with RawFile(path) as recording:
        assert list(recording) == updates
    with pytest.raises(ScanFileError, match="t:small, not of t:other"):
        RawWriter(path, "t:other")


def test_a_file_cut_anywhere_is_readable_up_to_there_and_added_to(tmp_path: Path) -> None:
    path, cut = tmp_path / "x.pvaraw", tmp_path / "cut.pvaraw"
    updates = small_file(path, 4)
    data = path.read_bytes()
    readable = 0
    for end in range(len(MAGIC), len(data)):
        cut.write_bytes(data[:end])
        try:
            recording = RawFile(cut)
        except ScanFileError as error:
            assert "before its channel" in str(error)
            continue
        with recording:
            readable += 1
            assert list(recording) == updates[: recording.updates]
            assert recording.size + recording.torn == end
        if end % 7 == 0:
            with RawWriter(cut, "t:small") as writer:
                writer.write(small(0))
            with RawFile(cut) as recording:
                assert [update.value for update in recording][-1] == small(0).value
                assert recording.torn == 0
    assert readable > 100


def test_damaged_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "x.pvaraw"
    small_file(path, 4)
    data = path.read_bytes()
    for content, said in (
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "not a recording"),
        (b"", "not a recording"),
        (MAGIC, "before its channel"),
        (data[:-1] + bytes((data[-1] ^ 1,)), "checksum"),
        (MAGIC + data[len(MAGIC) :].replace(b"\x01\0\0\0", b"\x07\0\0\0", 1), "kind 7"),
    ):
        path.write_bytes(content)
        with pytest.raises(ScanFileError, match=said), RawFile(path) as recording:
            list(recording)
    with pytest.raises(ScanFileError, match="No such file"):
        RawFile(tmp_path / "absent")
    path.write_bytes(data)
    with pytest.raises(ScanFileError, match="not a recording"):
        RawWriter(Path(__file__), "t:small")


@given(st.binary(max_size=200))
def test_blocks_that_mean_nothing_are_an_error(tail: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".pvaraw") as file:
        file.write(MAGIC + tail)
        file.flush()
        with contextlib.suppress(ScanFileError), RawFile(file.name) as recording:
            list(recording)


@pytest.mark.slow
def test_a_full_disk_is_told(tmp_path: Path) -> None:
    program = (
        "import resource, sys\n"
        "sys.path[:0] = sys.argv[2:]\n"
        "from raw_samples import small\n"
        "from ptychostream.rawpva.raw_updates import RawWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "with RawWriter(sys.argv[1], 't:small') as writer:\n"
        "    for number in range(100_000): writer.write(small(100))\n"
    )
    path = tmp_path / "x.pvaraw"
    command = [sys.executable, "-c", program, str(path), str(CORPUS), str(HELPERS)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert ran.stderr.strip().splitlines()[-1].startswith("ptychostream.errors.ScanFileError")
    assert "cannot be written" in ran.stderr
    with RawFile(path) as recording:
        assert [update.value for update in recording] == [small(100).value] * recording.updates


# ------------------------------------------------------------ served and recorded again


def recorded_again(env: EpicsEnv, path: Path, updates: list[RawUpdate], channel: str) -> list[RawUpdate]:
    """What a recording of the updates' replay holds."""
    stop = threading.Event()
    with env.active(), RawServer([channel], env.server_env()) as server:
        server.announce(channel, updates[0])
        recording = RawRecordSettings(frames=len(updates), seconds=TIMEOUT_S)
        recorder = threading.Thread(target=record_raw, args=(channel, path, recording, stop))
        recorder.start()
        wait_until(lambda: server.monitors(channel) == 1, TIMEOUT_S, "the recorder to subscribe")
        for update in updates:
            server.publish(channel, update)
        recorder.join()
        assert server.overruns(channel) == 0
    with RawFile(path) as again:
        return list(again)


@pytest.fixture(scope="module")
def many_servers() -> Iterator[EpicsEnv]:
    with EpicsEnv(ca_servers=len(NAMES) + 1) as environment:
        yield environment


@pytest.mark.server
@pytest.mark.parametrize("name", NAMES)
def test_a_replay_recorded_again_is_equal_bit_for_bit(name: str, many_servers: EpicsEnv, tmp_path: Path) -> None:
    with RawFile(CORPUS / f"{name}.pvaraw") as recording:
        updates = list(recording)
    again = recorded_again(many_servers, tmp_path / "again.pvaraw", updates, f"t:{name}")
    assert [update.type for update in again] == [update.type for update in updates]
    assert [update.value for update in again] == [update.value for update in updates]
    assert [update.overrun for update in again] == [update.overrun for update in updates]
    assert again[0].type.pack() == updates[0].type.pack()


@pytest.mark.server
def test_a_second_pass_is_equal_to_the_first(many_servers: EpicsEnv, tmp_path: Path) -> None:
    """Though the recording's updates name only what changed since the one before."""
    with RawFile(CORPUS / "p4p_everything.pvaraw") as recording:
        updates = list(recording)
    assert updates[0].changed.bit_count() < updates[1].changed.bit_count()
    again = recorded_again(many_servers, tmp_path / "again.pvaraw", updates * 2, "t:passes")
    assert [update.value for update in again] == [update.value for update in updates * 2]


def test_updates_are_due_as_they_came_or_at_a_rate() -> None:
    updates = [small(1, 7_000_000_000), small(2, 7_500_000_000), small(3, 9_000_000_000)]
    assert [due for _, due in schedule(updates, None)] == [0.0, 0.5, 2.0]
    assert [due for _, due in schedule(updates, 4.0)] == [0.0, 0.25, 0.5]


@pytest.mark.server
def test_other_clients_see_what_the_first_server_showed(env: EpicsEnv, tmp_path: Path) -> None:
    kind = Type(
        [("b", "b"), ("ab", "ab"), ("v", "v"), ("av", "av"), ("u", ("U", None, [("a", "i"), ("b", "s")])),
         ("s", ("S", "my_t", [("f", "f")])), ("as_", ("aS", "el_t", [("v", "v")]))],
        id="top_t",
    )  # fmt: skip
    values = {"b": -7, "ab": [-1, 2], "v": 5, "av": [1, "x"], "u": ("b", "µ"), "s": {"f": 0.1}, "as_": [{"v": 3}]}
    path = tmp_path / "x.pvaraw"
    pv = SharedPV(initial=Value(kind, values))
    with env.active(), Server(providers=[{"t:first": pv}], conf=env.epics, useenv=False):
        shown = env.pvget("t:first", timeout=TIMEOUT_S)
        record_raw("t:first", path, RawRecordSettings(frames=1, seconds=TIMEOUT_S), threading.Event())
    with RawFile(path) as recording, RawServer(["t:second"], env.server_env()) as server:
        server.publish("t:second", next(iter(recording)))
        replayed = env.pvget("t:second", timeout=TIMEOUT_S)
        part = env.pva.get("t:second", request="field(s.f,b)", timeout=TIMEOUT_S)
    assert replayed.tostr(limit=0) == shown.tostr(limit=0)
    assert replayed.type().aspy() == shown.type().aspy()
    assert replayed.getID() == "top_t"
    assert (part.b, part.s.f) == (values["b"], shown.s.f)


@pytest.mark.server
def test_the_commands_record_and_replay(env: EpicsEnv, tmp_path: Path) -> None:
    source, again = CORPUS / "adcore_codecs.pvaraw", tmp_path / "again.pvaraw"
    ptychostream = (sys.executable, "-m", "ptychostream")
    with env.start(*ptychostream, "record", "--raw", "t:Image", str(again), "--frames", "6") as recorder:
        arguments = ("replay", "--raw", str(source), "--pv", "t:Image", "--wait-for-client", "--rate", "50", "--json")
        with env.start(*ptychostream, *arguments, env=env.server_env()) as replay:
            assert recorder.wait(TIMEOUT_S) == 0, recorder.output
            assert replay.wait(TIMEOUT_S) == 0, replay.output
            summary = json.loads(replay.output.splitlines()[-1])
    assert (summary["channel"], summary["sent"]) == ("t:Image", 6)
    with RawFile(source) as first, RawFile(again) as second:
        sent, got = list(first), list(second)
    assert [(u.type, u.value) for u in got] == [(u.type, u.value) for u in sent]


@pytest.mark.server
def test_a_recording_that_is_killed_is_readable(env: EpicsEnv, tmp_path: Path) -> None:
    path = tmp_path / "x.pvaraw"

    def readable() -> list[bytes]:
        with RawFile(path) as recording:
            return [update.value for update in recording]

    with RawServer(["t:killed"], env.server_env()) as server:
        server.announce("t:killed", small(1))
        words = (sys.executable, "-m", "ptychostream", "record", "--raw", "t:killed", str(path))
        with env.start(*words) as recorder:
            wait_until(lambda: server.monitors("t:killed") == 1, TIMEOUT_S, lambda: recorder.output)
            for number in range(3):
                server.publish("t:killed", small(number))
            wait_until(lambda: len(readable()) == 3, TIMEOUT_S, "all that came to be there")
            recorder.stop(signal.SIGKILL)
    assert readable() == [small(number).value for number in range(3)]


@pytest.mark.server
def test_a_channel_that_comes_back_with_another_type(env: EpicsEnv, tmp_path: Path) -> None:
    other = structure("other_t", text=scalar("str"))
    changed = RawUpdate(5000, other, 1, 0, encode(other, {"text": "new"}))
    path, again = tmp_path / "x.pvaraw", tmp_path / "again.pvaraw"
    with RawWriter(path, "t:types") as writer:
        for update in (small(1), small(2), changed, small(3)):
            writer.write(update)
    stop = threading.Event()
    with env.active():
        recording = RawRecordSettings(frames=4, seconds=TIMEOUT_S)
        recorder = threading.Thread(target=record_raw, args=("t:types", again, recording, stop))
        recorder.start()
        gate = Gate(wait_for_client=True, timeout_s=TIMEOUT_S)
        replay_raw(path, RawReplay(gate=gate), stop)
        stop.set()
        recorder.join()
    with RawFile(path) as first, RawFile(again) as second:
        assert [(u.type, u.value) for u in second] == [(u.type, u.value) for u in first]


@pytest.mark.server
def test_a_slow_client_gets_the_newest_and_is_told(env: EpicsEnv) -> None:
    stop = threading.Event()
    with env.active(), RawServer(["t:slow"], env.server_env()) as server:
        server.announce("t:slow", small(1))
        channel = iter(RawChannel("t:slow", 2, stop, TIMEOUT_S))
        got: list[WireUpdates] = []
        first = threading.Thread(target=lambda: got.append(next(channel)))
        first.start()
        wait_until(lambda: server.monitors("t:slow") == 1, TIMEOUT_S, "a subscription")
        server.publish("t:slow", small(1))
        first.join()
        # nobody reads from here on: the socket's buffers fill, then the queue of two
        count = 0
        while server.overruns("t:slow") < 5:
            count += 1
            server.publish("t:slow", _large(count))
        decoder = Decoder(got[0].type)
        updates = (decoder.update(update) for came in channel for update in came.updates)
        last = next(update for update in updates if update.value == _large(count).value)
        assert last.overrun
        stop.set()
        channel.close()


def _large(number: int) -> RawUpdate:
    return RawUpdate(number, SMALL, 0b11, 0, encode(SMALL, {"n": number, "x": [0.5] * 100_000}))


def test_a_replay_that_would_change_the_updates_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", "--raw", str(CORPUS / "times.pvaraw"), "--codec", "lz4"]) == 2
    assert "--codec" in capsys.readouterr().err
    assert main(["replay", "--raw", __file__]) == 2
    assert "not a recording" in capsys.readouterr().err


def test_bits_are_as_short_as_they_can_be() -> None:
    assert [pack_bits(bits) for bits in (0, 1, 256)] == [b"\0", b"\1\1", b"\2\0\1"]
    assert all(Reader(pack_bits(bits)).bits() == bits for bits in (0, 1, 0x80, 1 << 70))


@pytest.mark.server
@pytest.mark.parametrize("replay_first", [True, False])
def test_it_shares_a_host_with_other_servers_and_clients(replay_first: bool, tmp_path: Path) -> None:
    """All on one broadcast port of the loopback interface, where a search reaches one socket alone."""
    pv = SharedPV(initial=Value(Type([("value", "i")]), {"value": 5}))
    with contextlib.ExitStack() as stack:
        env = stack.enter_context(EpicsEnv())
        stack.enter_context(env.active())

        def serve_other() -> None:
            stack.enter_context(Server(providers=[{"t:other": pv}], conf=env.epics, useenv=False))

        if not replay_first:
            serve_other()
        replay = stack.enter_context(RawServer(["t:replayed"], env.server_env()))
        if replay_first:
            serve_other()
        replay.publish("t:replayed", small(3))
        assert env.pvget("t:other", timeout=TIMEOUT_S).value == 5
        assert env.pvget("t:replayed", timeout=TIMEOUT_S).n == 3
        for channel in ("t:other", "t:replayed"):
            limits = RawRecordSettings(frames=1, seconds=TIMEOUT_S)
            assert record_raw(channel, tmp_path / channel, limits, threading.Event()).updates == 1
