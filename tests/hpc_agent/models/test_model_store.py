"""The model store: whole entries alone, each once, whoever dies or writes at the same time; and its command line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from epics_env import EpicsEnv
from folders import HELPERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_model import write_tiny

from ptychostream.cli.main import main
from ptychostream.errors import ModelError, ScanFileError
from ptychostream.hpc_agent.models.model_store import ABANDONED_S, ModelStore
from ptychostream.hpc_agent.models.rollback_notes import RollbackNotes
from ptychostream.hpc_agent.models.stored_model import CHECKPOINT, ENTRY, MARK, MODEL
from ptychostream.model.model_file import load_model
from ptychostream.model.rollback_text import BY_OPERATOR, went_back
from ptychostream.storage import atomic

MODELS = 5


def write_model(folder: Path, number: int) -> tuple[Path, Path]:
    """An ONNX file and something in its checkpoint's place."""
    onnx, checkpoint = folder / f"net{number}.onnx", folder / f"net{number}.pt"
    write_tiny(onnx, gain=0.01 * (number + 1), name=f"net{number}")
    checkpoint.write_bytes(b"weights %d" % number)
    return onnx, checkpoint


def fill(folder: Path, models: int = MODELS) -> tuple[ModelStore, list[str]]:
    """Models that each descend from the one before."""
    store, names = ModelStore(folder / "models"), []
    for number in range(models):
        onnx, checkpoint = write_model(folder, number)
        names.append(store.add(onnx, checkpoint, {"ssim": 0.5 + 0.1 * number}, names[-1:]))
    return store, names


@pytest.fixture
def filled(tmp_path: Path) -> tuple[ModelStore, list[str]]:
    return fill(tmp_path)


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelStore, list[str]]:
    return fill(tmp_path_factory.mktemp("store"))


def test_what_is_added_is_there_newest_last(tmp_path: Path, filled: tuple[ModelStore, list[str]]) -> None:
    store, names = filled
    models = store.models()
    assert [model.sha256 for model in models] == names
    assert [model.number for model in models] == [1, 2, 3, 4, 5]
    last = models[-1]
    assert load_model(last.path).sha256 == last.sha256 == names[-1]
    assert last.checkpoint is not None and last.checkpoint.read_bytes() == b"weights 4"
    assert last.contract.name == "net4" and last.contract.golden is None
    assert last.metrics == {"ssim": 0.9} and last.parents == (names[3],)
    assert store.find(names[0]) == models[0]
    assert store.damaged() == []
    assert {path.name for path in store.root.iterdir()} == set(names)


def test_a_model_is_in_it_once(tmp_path: Path, filled: tuple[ModelStore, list[str]]) -> None:
    store, names = filled
    onnx, checkpoint = write_model(tmp_path, 0)
    assert store.add(onnx, checkpoint, {"ssim": 0.0}, ["f" * 64]) == names[0]
    again = store.get(names[0])
    assert (again.metrics, again.parents, again.number) == ({"ssim": 0.5}, (), 1)


def test_a_model_without_a_checkpoint(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    name = store.add(write_model(tmp_path, 0)[0])
    found = store.find(name)
    assert found is not None and found.checkpoint is None


def test_a_model_that_is_refused_does_not_get_in(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError):
        store.add(tmp_path / "bad.onnx")
    with pytest.raises(ModelError, match=r"gone\.pt"):
        store.add(write_model(tmp_path, 0)[0], tmp_path / "gone.pt")
    assert store.models() == [] and not store.root.exists()


def test_models_are_named_by_the_beginning_of_their_sha256(filled: tuple[ModelStore, list[str]]) -> None:
    store, names = filled
    assert store.get(names[2][:8]).sha256 == names[2]
    assert store.get(names[2].upper()).sha256 == names[2]
    with pytest.raises(ModelError, match="too short"):
        store.get(names[2][:3])
    with pytest.raises(ModelError, match="no model"):
        store.get("0" * 64)
    (store.root / (names[2][:10] + "0" * 54)).mkdir()
    with pytest.raises(ModelError, match="names 2 models"):
        store.get(names[2][:10])
    assert store.find(names[2][:10]) is None and store.find("../" + names[2]) is None


def cut(folder: Path) -> None:
    data = (folder / MODEL).read_bytes()
    (folder / MODEL).write_bytes(data[: len(data) // 2])


def flip(folder: Path) -> None:
    data = bytearray((folder / MODEL).read_bytes())
    data[100] ^= 1
    (folder / MODEL).write_bytes(data)


def edit(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        entry = json.loads((folder / ENTRY).read_text())
        (folder / ENTRY).write_text(json.dumps(entry | changes))

    return change


DAMAGE: dict[str, Callable[[Path], None]] = {
    "model cut": cut,
    "a bit flipped": flip,
    "model gone": lambda folder: (folder / MODEL).unlink(),
    "checkpoint changed": lambda folder: (folder / CHECKPOINT).write_bytes(b"others"),
    "checkpoint gone": lambda folder: (folder / CHECKPOINT).unlink(),
    "entry gone": lambda folder: (folder / ENTRY).unlink(),
    "entry cut": lambda folder: (folder / ENTRY).write_bytes((folder / ENTRY).read_bytes()[:90]),
    "entry not text": lambda folder: (folder / ENTRY).write_bytes(b"\xff\xfe{"),
    "entry of a later version": edit(version=2),
    "contract without a name": edit(contract={}),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_model_is_named_left_out_and_can_be_added_anew(
    tmp_path: Path, filled: tuple[ModelStore, list[str]], damage: Callable[[Path], None]
) -> None:
    store, names = filled
    damage(store.root / names[1])
    assert [model.sha256 for model in store.models()] == [names[0], *names[2:]]
    ((folder, why),) = store.damaged()
    assert folder.name == names[1] and names[1] in why
    assert store.find(names[1]) is None
    with pytest.raises(ModelError):
        store.get(names[1])
    assert store.add(*write_model(tmp_path, 1)) == names[1]
    assert store.damaged() == [] and store.models()[-1].sha256 == names[1]


def test_what_does_not_belong_there_is_left_alone(filled: tuple[ModelStore, list[str]]) -> None:
    store, names = filled
    foreign = [store.root / "notes.txt", store.root / ("a" * 64), store.root / ".hidden"]
    for path in foreign:
        path.write_text("mine")
    (store.root / "folder").mkdir()
    assert [model.sha256 for model in store.models()] == names and store.damaged() == []
    sweep = store.gc(0)
    assert len(sweep.removed) == MODELS
    assert sorted(store.root.iterdir()) == sorted([*foreign, store.root / "folder"])


def test_lineage_goes_back_to_what_is_gone_and_does_not_go_round(tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models")
    files = [write_model(tmp_path, number) for number in range(4)]
    names = [load_model(onnx).sha256 for onnx, _ in files]
    for files_, parents in zip(files[:3], ([names[3]], [names[0]], [names[1], names[0], names[2]]), strict=True):
        store.add(*files_, parents=parents)
    lineage = store.lineage(names[2])
    assert [name for name, _ in lineage] == [names[2], names[1], names[0], names[3]]
    assert [model is None for _, model in lineage] == [False, False, False, True]


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(
    keep=st.integers(0, 7), protected=st.sets(st.integers(0, MODELS - 1)), pinned=st.sets(st.integers(0, MODELS - 1))
)
def test_what_is_collected(
    untouched: tuple[ModelStore, list[str]], keep: int, protected: set[int], pinned: set[int]
) -> None:
    store, names = untouched
    for number, name in enumerate(names):
        store.pin(name, number in pinned)
    sweep = store.gc(keep, {names[number] for number in protected} | {"", "f" * 64}, dry_run=True)
    wanted = set(range(max(0, MODELS - keep), MODELS)) | pinned | protected
    wanted |= {number - 1 for number in protected if number > 0}  # what each was trained from
    assert {model.sha256 for model in sweep.kept} == {names[number] for number in wanted}
    assert [model.sha256 for model in sweep.removed] == [names[n] for n in range(MODELS) if n not in wanted]
    assert sweep.size == sum(model.size for model in sweep.removed)
    assert len(store.models()) == MODELS


def test_models_that_were_rolled_back_are_the_first_to_go(filled: tuple[ModelStore, list[str]]) -> None:
    store, names = filled
    for name in (names[2], names[4]):
        assert store.mark_rolled_back(name, "worse")
    store.pin(names[4])

    def kept(keep: int, protect: tuple[str, ...] = ()) -> list[int]:
        return [names.index(model.sha256) for model in store.gc(keep, protect, dry_run=True).kept]

    assert kept(4) == [0, 1, 3, 4]
    assert kept(3) == [1, 3, 4]
    assert kept(5) == [0, 1, 2, 3, 4]
    assert kept(0, (names[2],)) == [1, 2, 4], "the edge needs it still, and its parent"


def test_a_mark_is_set_once_and_can_be_lifted(filled: tuple[ModelStore, list[str]]) -> None:
    store, names = filled
    assert store.get(names[0]).rolled_back is None
    assert store.mark_rolled_back(names[0], "SSIM 0.5") is True
    first = store.get(names[0]).rolled_back
    assert first is not None and first.reason == "SSIM 0.5" and store.get(names[0]).shunned
    path = store.root / names[0] / MARK
    inode = path.stat().st_ino
    assert store.mark_rolled_back(names[0], "SSIM 0.5") is False
    assert path.stat().st_ino == inode and store.get(names[0]).rolled_back == first
    assert store.mark_rolled_back(names[0], "by an operator") is True
    store.pin(names[0])
    assert not store.get(names[0]).shunned
    for _ in range(2):
        store.lift_mark(names[0])
        assert store.get(names[0]).rolled_back is None
    with pytest.raises(ModelError, match="no model"):
        store.mark_rolled_back("f" * 64, "worse")
    path.write_bytes(b'{"at": "2026-01-01T00:00:00Z", "rea')
    damaged = store.get(names[0]).rolled_back
    assert damaged is not None and "cannot be read" in damaged.reason
    assert store.mark_rolled_back(names[0], "SSIM 0.5") is True and store.damaged() == []


@pytest.mark.server
def test_killed_while_it_marks_a_model_is_marked_or_not(filled: tuple[ModelStore, list[str]]) -> None:
    """A process that dies in the middle of writing the mark leaves the model as it was."""
    store, names = filled
    code = (
        "import os, sys; from pathlib import Path; from ptychostream.storage import atomic\n"
        "from ptychostream.hpc_agent.models.model_store import ModelStore\n"
        "def dies(temporary, final): os.kill(os.getpid(), 9)\n"
        "atomic.publish = dies\n"
        "ModelStore(sys.argv[1]).mark_rolled_back(sys.argv[2], 'worse')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root), names[1]], timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    assert store.get(names[1]).rolled_back is None and store.damaged() == []
    assert store.mark_rolled_back(names[1], "worse")


def test_the_agent_marks_what_the_edge_went_back_from(filled: tuple[ModelStore, list[str]]) -> None:
    store, names = filled
    said: list[str] = []
    message = went_back(names[4], names[3], "SSIM 0.500 of it, 0.900 before it")
    notes = RollbackNotes(store, said.append)
    for seen in (None, "", "SSIM 0.9 of it, 0.8 before it, tolerance 0.050", message, message):
        notes.look(seen)
    RollbackNotes(store, said.append).look(message)  # in another life
    mark = store.get(names[4]).rolled_back
    assert mark is not None and mark.reason == "SSIM 0.500 of it, 0.900 before it"
    assert said == [f"model {names[4][:12]} is marked as rolled back: {mark.reason}"]
    notes.look(went_back(names[3], names[4], BY_OPERATOR))  # he wants it after all
    assert store.get(names[4]).rolled_back is None and store.get(names[3]).shunned
    notes.look(went_back("e" * 64, "f" * 64, BY_OPERATOR))  # models that are not of this store


def test_a_mark_that_could_not_be_written_is_written_later(
    filled: tuple[ModelStore, list[str]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, names = filled
    notes = RollbackNotes(store, lambda _: None)
    message = went_back(names[4], names[3], "worse")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr("ptychostream.hpc_agent.models.model_store.write_bytes_atomic", full)
        notes.look(message)
        notes.look(message)
    assert store.get(names[4]).rolled_back is None
    assert len([record for record in caplog.records if "not marked yet" in record.message]) == 1
    notes.look(message)
    assert store.get(names[4]).shunned


def test_collection_removes_models_and_what_the_dead_left_but_not_what_is_being_written(
    filled: tuple[ModelStore, list[str]],
) -> None:
    store, names = filled
    dead, alive = (store.root / f".{letter * 12}.tmp.{'b' * 64}" for letter in "de")
    for path in (dead, alive):
        path.mkdir()
        (path / MODEL).write_bytes(b"half")
    os.utime(dead, (time.time() - 2 * ABANDONED_S,) * 2)
    cut(store.root / names[0])
    sweep = store.gc(1)
    assert [model.sha256 for model in sweep.removed] == names[1:4] and sweep.leftovers == [dead]
    assert {path.name for path in store.root.iterdir()} == {names[0], names[4], alive.name}
    with pytest.raises(ModelError, match="keep -1"):
        store.gc(-1)


@pytest.mark.parametrize("step", range(1, 6))
def test_killed_at_any_moment_a_model_is_whole_or_not_there(tmp_path: Path, step: int) -> None:
    """The process dies as it brings the first, second … file or folder to the disk."""
    onnx, checkpoint = write_model(tmp_path, 0)
    store = ModelStore(tmp_path / "models")
    child = os.fork()
    if child == 0:
        calls = iter(range(1, 100))
        fsync = os.fsync

        def dying(descriptor: int) -> None:
            if next(calls) == step:
                os.kill(os.getpid(), signal.SIGKILL)
            fsync(descriptor)

        atomic.os.fsync = dying  # type: ignore[attr-defined]
        try:
            store.add(onnx, checkpoint)
        finally:
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert store.damaged() == []
    assert len(store.models()) == (step == 5)  # after the rename alone
    assert store.add(onnx, checkpoint) == store.models()[0].sha256


def run(program: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, str(HELPERS), *arguments], text=True, stdout=-1, stderr=-1, stdin=-1
    )


@pytest.mark.server
def test_processes_that_add_the_same_models_at_once(tmp_path: Path) -> None:
    for number in range(MODELS):
        write_model(tmp_path, number)
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ptychostream.hpc_agent.models.model_store import ModelStore\n"
        "folder = Path(sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "for number in range(5):\n"
        "    print(ModelStore(folder / 'models').add(folder / f'net{number}.onnx', folder / f'net{number}.pt'))\n"
    )
    processes = [run(program, str(tmp_path)) for _ in range(3)]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert said[0][0] == said[1][0] == said[2][0]
    store = ModelStore(tmp_path / "models")
    assert {path.name for path in store.root.iterdir()} == set(said[0][0].split())
    assert len(store.models()) == MODELS and store.damaged() == []


def test_another_process_that_was_quicker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, files = ModelStore(tmp_path / "models"), write_model(tmp_path, 0)
    publish = atomic.publish

    def late(temporary: Path, final: Path) -> None:
        monkeypatch.setattr(atomic, "publish", publish)
        store.add(*files, {"ssim": 0.8})
        publish(temporary, final)

    monkeypatch.setattr(atomic, "publish", late)
    name = store.add(*files, {"ssim": 0.1})
    assert store.get(name).metrics == {"ssim": 0.8}
    assert [path.name for path in store.root.iterdir()] == [name]


@pytest.mark.server
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    onnx, checkpoint = write_model(tmp_path, 0)
    checkpoint.write_bytes(bytes(200_000))
    program = (
        "import resource, signal, sys\n"
        "from ptychostream.errors import ScanFileError\n"
        "from ptychostream.hpc_agent.models.model_store import ModelStore\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    ModelStore(sys.argv[2]).add(*sys.argv[3:])\n"
        "except ScanFileError as error:\n"
        "    print(error)\n"
    )
    said, errors = run(program, str(tmp_path / "models"), str(onnx), str(checkpoint)).communicate(timeout=60)
    assert "cannot be written" in said, errors
    assert list((tmp_path / "models").iterdir()) == []


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(ScanFileError, match="cannot be written"):
        ModelStore(tmp_path / "models").add(*write_model(tmp_path, 0))


# The command line


def said(capsys: pytest.CaptureFixture[str], *words: str, status: int = 0) -> str:
    """What `ptychostream model …` prints: on stderr where it is to fail."""
    assert main(["model", *words]) == status, capsys.readouterr().err
    captured = capsys.readouterr()
    return captured.err if status else captured.out


def test_the_list(filled: tuple[ModelStore, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    store, names = filled
    store.pin(names[1])
    cut(store.root / names[0])
    where = ["--store", str(store.root)]
    found = json.loads(said(capsys, "list", "--json", *where))
    assert [row["sha256"] for row in found["models"]] == names[1:]
    row = found["models"][0]
    assert (row["name"], row["ssim"], row["parents"], row["pinned"]) == ("net1", 0.6, [names[0]], True)
    assert row["live"] is None
    assert [Path(path).name for path, _ in found["damaged"]] == [names[0]]
    assert main(["model", "list", *where]) == 0
    printed = capsys.readouterr()
    assert all(name[:12] in printed.out for name in names[1:]) and "pinned" in printed.out
    assert names[0] in printed.err
    assert row["rolled_back"] is None and "rolled back" not in printed.out
    store.mark_rolled_back(names[2], "SSIM 0.5, 0.9 before it")
    mark = json.loads(said(capsys, "list", "--json", *where))["models"][1]["rolled_back"]
    assert mark["reason"] == "SSIM 0.5, 0.9 before it" and mark["at"].endswith("+00:00")
    printed_again = said(capsys, "list", *where)
    assert f"{names[2][:12]} was rolled back, {mark['at'][:16].replace('T', ' ')}: SSIM 0.5" in printed_again
    found = json.loads(said(capsys, "inspect", names[2][:8], "--store", str(store.root), "--json"))
    assert found["store"]["rolled_back"] == mark


def test_a_model_of_the_store_is_inspected(
    filled: tuple[ModelStore, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, names = filled
    found = json.loads(said(capsys, "inspect", names[1][:8], "--store", str(store.root), "--json"))
    assert found["sha256"] == names[1] and found["store"]["metrics"] == {"ssim": 0.6}
    assert found["store"]["lineage"] == [f"{names[1][:12]} net1", f"{names[0][:12]} net0"]
    direct = json.loads(said(capsys, "inspect", str(store.get(names[1]).path), "--json"))
    assert direct["sha256"] == names[1] and "store" not in direct


def test_nothing_is_collected_without_yes(
    filled: tuple[ModelStore, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, names = filled
    where = ["--store", str(store.root)]
    said(capsys, "pin", names[0][:8], *where)
    would = json.loads(said(capsys, "gc", "--keep", "2", "--offline", "--json", *where))
    assert would["removed"] == names[1:3] and would["done"] is False
    assert "give --yes" in said(capsys, "gc", "--keep", "2", "--offline", *where)
    assert len(store.models()) == MODELS
    said(capsys, "gc", "--keep", "2", "--offline", "--yes", *where)
    assert [model.sha256 for model in store.models()] == [names[0], *names[3:]]
    said(capsys, "unpin", names[0], *where)
    said(capsys, "gc", "--keep", "1", "--offline", "--yes", *where)
    assert [model.sha256 for model in store.models()] == names[4:]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["list"], "which model store"),
        (["list", "--store", "nowhere"], "no such folder"),
        (["gc", "--offline", "--keep", "0", "--store", "."], "keep one or more"),
        (["gc", "--store", "."], "which edge"),
        (["rollback"], "which edge"),
        (["pin", "abcd", "--store", "."], "no model"),
        (["push", "abcd", "--store", "."], "no model"),
        (["push", "gone.onnx", "--prefix", "x:"], "gone.onnx"),
        (["inspect", "abcd"], "which model store"),
        (["list", "--config", "gone.toml"], "gone.toml"),
    ],
)
def test_what_is_missing_is_said(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert why in said(capsys, *words, status=2)


@pytest.mark.server
def test_the_store_is_the_agents(
    filled: tuple[ModelStore, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store, names = filled
    (tmp_path / "agent.toml").write_text(f"""
        prefix = "nobody:"
        work = "{store.root.parent}"
        watch.complete_pv = "bl:ScanComplete"
        watch.id_pv = "bl:ScanID"
        push.connect_s = 0.2
        """)
    monkeypatch.chdir(tmp_path)
    would = json.loads(said(capsys, "gc", "--keep", "1", "--offline", "--json"))
    assert would["kept"] == names[-1:]
    with EpicsEnv() as nobody, nobody.active():
        assert "nobody:" in said(capsys, "push", names[0][:8], status=2)
        assert "nobody:" in said(capsys, "gc", "--keep", "1", status=2)
        assert "other:" in said(capsys, "push", names[0][:8], "--prefix", "other:", status=2)
    (tmp_path / "agent.toml").write_text("wrok = 3")
    assert "wrok" in said(capsys, "list", status=2)


# With an edge

P = "store:"


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EpicsEnv]:
    folder = tmp_path_factory.mktemp("edge")
    (folder / "models").mkdir()
    write_tiny(folder / "models" / "first.onnx", gain=0.5, name="first")
    options = {
        "--prefix": P,
        "--input-pv": "store:det:Image",
        "--model": "first.onnx",
        "--models-dir": str(folder / "models"),
        "--engine": "ONNXRuntime",
        "--autosave": str(folder / "autosave.json"),
    }
    with EpicsEnv() as env, env.start_ioc(*(word for pair in options.items() for word in pair)):
        yield env


@pytest.mark.server
def test_models_go_to_the_edge_and_back(
    edge: EpicsEnv, filled: tuple[ModelStore, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    store, names = filled
    there = ["--store", str(store.root), "--prefix", P]
    with edge.active():
        assert "no previous model" in said(capsys, "rollback", "--prefix", P, status=2)
        for name in names[:2]:
            pushed = json.loads(said(capsys, "push", name[:10], "--json", *there))
            assert pushed["sha256"] == name == edge.caget(P + "ModelSHA_RBV")
        listed = json.loads(said(capsys, "list", "--json", *there))["models"]
        assert [row["live"] for row in listed] == [False, True, False, False, False]
        would = json.loads(said(capsys, "gc", "--keep", "1", "--json", *there))
        assert would["kept"] == [names[0], names[1], names[4]]  # the one before, the live one, the newest
        back = json.loads(said(capsys, "rollback", "--json", "--prefix", P))
    assert (back["sha256"], back["name"], back["previous"]) == (names[0], "net0", "net1")
    assert edge.caget(P + "ModelSHA_RBV") == names[0]


@pytest.mark.server
def test_an_edge_that_is_not_there(filled: tuple[ModelStore, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    store, _ = filled
    with EpicsEnv() as nobody, nobody.active():
        assert "no answer" in said(capsys, "rollback", "--prefix", "nobody:", "--timeout", "0.5", status=2)
        assert main(["model", "list", "--json", "--store", str(store.root), "--prefix", "nobody:"]) == 0
        printed = capsys.readouterr()
    assert len(json.loads(printed.out)["models"]) == MODELS and "is not known" in printed.err
