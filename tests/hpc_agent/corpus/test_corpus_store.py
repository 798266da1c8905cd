"""The corpus on disk: what is written is read back, in any order, whole or not at all; training takes it as it is."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import pytest
from folders import HELPERS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from training_scans import small_scan

from ptychostream.errors import ScanFileError, TrainingError
from ptychostream.hpc_agent.corpus import shards
from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore
from ptychostream.hpc_agent.corpus.shards import read_shard
from ptychostream.hpc_agent.corpus.simulated_pairs import add_simulated
from ptychostream.hpc_agent.corpus.training_data import Corpus, Source, build_corpus
from ptychostream.hpc_agent.training.batches import Batch, Dose, batches, make_batch, thin
from ptychostream.hpc_agent.training.training import TrainingOptions, TrainingState, split_validation, train

PATHS = f"{Path(__file__).parent}{os.pathsep}{HELPERS}"


@cache
def pairs(seed: int = 0) -> Corpus:
    return build_corpus([Source(*small_scan(seed=seed))], (16, 16))


@pytest.fixture
def store(tmp_path: Path) -> CorpusStore:
    store = CorpusStore(tmp_path / "corpus")
    for seed in (0, 1):
        store.append(f"scan {seed}", pairs(seed), provenance={"r_factor": 0.01 * seed})
    return store


@pytest.mark.slow
def test_what_is_appended_is_read_back(store: CorpusStore) -> None:
    shards = store.shards()
    assert [(shard.key, shard.number, shard.pairs) for shard in shards] == [("scan 0", 1, 80), ("scan 1", 2, 80)]
    assert shards[1].provenance == {"r_factor": 0.01}
    assert len(store) == 160
    with store.opened() as (corpus, validation, passed_over):
        assert passed_over == []
        assert corpus.scans == ("small-0", "small-1") and corpus.measured == 160
        for seed in (0, 1):
            rows = corpus.source == seed
            assert rows.sum() == 80
            np.testing.assert_array_equal(corpus.counts[np.flatnonzero(rows)], pairs(seed).counts)
            np.testing.assert_allclose(corpus.phase[np.flatnonzero(rows)], pairs(seed).phase, atol=2e-3)
            np.testing.assert_array_equal(corpus.weights[seed], pairs(seed).weights[0])
        assert corpus.preprocessing == pairs(1).preprocessing
        assert validation.sum() == 16


def test_a_scan_is_in_it_once(store: CorpusStore) -> None:
    before = (store.folder / "scan_0.h5").read_bytes()
    assert store.append("scan 0", pairs(1)) == 80
    assert (store.folder / "scan_0.h5").read_bytes() == before


@pytest.mark.slow
def test_validation_pairs_stay_what_they_were(store: CorpusStore, tmp_path: Path) -> None:
    with store.opened() as (corpus, before, _):
        kept = corpus.counts[np.flatnonzero(before)]
    store.append("scan 2", pairs(2))
    with store.opened() as (corpus, after, _):
        assert after.sum() == 24
        np.testing.assert_array_equal(corpus.counts[np.flatnonzero(after)][:16], kept)
    again = CorpusStore(tmp_path / "again")
    again.append("scan 1", pairs(1))
    with again.opened() as (_, alone, _):
        np.testing.assert_array_equal(alone, after[80:160])


@pytest.mark.slow
def test_simulated_pairs_lie_behind_and_are_never_set_aside(tmp_path: Path) -> None:
    store = CorpusStore(tmp_path)
    for seed in (0, 1):
        source = Source(*small_scan(seed=seed))
        store.append(f"s{seed}", add_simulated(pairs(seed), [source], 0.5, seed))
    with store.opened() as (corpus, validation, _):
        assert (corpus.measured, len(corpus)) == (160, 240)
        assert not validation[160:].any() and validation[:160].sum() == 16
        assert corpus.source.tolist() == [0] * 80 + [1] * 80 + [0] * 40 + [1] * 40
        np.testing.assert_array_equal(corpus.counts[np.arange(80, 160)], pairs(1).counts)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rows=st.lists(st.integers(0, 159), max_size=30))
def test_rows_in_any_order(store: CorpusStore, rows: list[int]) -> None:
    whole = np.concatenate([pairs(0).counts, pairs(1).counts])
    with store.opened() as (corpus, _, _):
        np.testing.assert_array_equal(corpus.counts[np.array(rows, np.intp)], whole[np.array(rows, np.intp)])
        for row in rows[:2]:
            np.testing.assert_array_equal(corpus.counts[row], whole[row])


def test_scans_of_another_geometry_are_passed_over(store: CorpusStore) -> None:
    store.append("other", dataclasses.replace(pairs(2), pixel_m=2 * pairs(2).pixel_m))
    with store.opened() as (corpus, _, passed_over):
        assert len(corpus) == 80 and passed_over == ["scan 0", "scan 1"]
    with store.opened(newest=1) as (corpus, _, _):
        assert len(corpus) == 80


def test_a_damaged_file_costs_its_scan_alone(store: CorpusStore) -> None:
    path = store.folder / "scan_0.h5"
    path.write_bytes(path.read_bytes()[:3000])
    (store.folder / "note.h5").write_text("not HDF5")
    assert [shard.key for shard in store.shards()] == ["scan 1"]
    assert sorted(found.name for found, _ in store.damaged()) == ["note.h5", "scan_0.h5"]
    with pytest.raises(ScanFileError, match="no corpus file"):
        read_shard(path)
    with h5py.File(store.folder / "foreign.h5", "w") as file:
        file["counts"] = np.zeros(3)
    assert len(store.damaged()) == 3


def test_a_file_that_is_cut_while_it_is_read(store: CorpusStore) -> None:
    with store.opened() as (corpus, _, _):
        os.truncate(store.folder / "scan_0.h5", 3000)
        with pytest.raises(TrainingError, match="ends before its data"):
            corpus.counts[np.arange(5)]


def test_an_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no labelled scan"), CorpusStore(tmp_path / "none").opened():
        pass


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(store: CorpusStore, tmp_path: Path) -> None:
    program = (
        "import resource, signal, sys\n"
        "from pathlib import Path\n"
        f"sys.path[:0] = {PATHS.split(os.pathsep)!r}\n"
        "from test_corpus_store import pairs\n"
        "from ptychostream.errors import ScanFileError\n"
        "from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore\n"
        "corpus = pairs(2)\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    CorpusStore(Path(sys.argv[1])).append('late', corpus)\n"
        "except ScanFileError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(store.folder)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0 and "cannot be written" in done.stdout, done.stderr
    assert sorted(path.name for path in store.folder.glob("*.h5")) == ["scan_0.h5", "scan_1.h5"]
    assert [path.name for path in store.folder.iterdir() if ".tmp." in path.name] == []
    assert store.append("late", pairs(2)) == 80


def test_a_file_is_opened_once_for_the_index(store: CorpusStore, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = shards.read_shard
    monkeypatch.setattr(shards, "read_shard", lambda path: (opened.append(path.name), read(path))[1])
    whole = store.shards()
    opened.clear()
    assert store.shards() == CorpusStore(store.folder).shards() == whole and opened == []
    store.append("scan 2", pairs(2))
    assert len(store) == 240 and opened == ["scan_2.h5"]
    os.utime(store.folder / "scan_0.h5", (1.0, 1.0))
    (store.folder / "scan_1.h5").unlink()
    opened.clear()
    assert [shard.key for shard in store.shards()] == ["scan 0", "scan 2"] and opened == ["scan_0.h5"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 1, "files": {"scan_0.h5": {"shard": 7}}}'])
def test_a_damaged_index_is_made_anew(store: CorpusStore, content: bytes) -> None:
    whole = store.shards()
    (store.folder / ".index.json").write_bytes(content)
    assert store.shards() == whole
    assert json.loads((store.folder / ".index.json").read_bytes())["version"] == 1


def test_damage_that_the_index_does_not_see_is_not_trained_on(store: CorpusStore) -> None:
    assert len(store.shards()) == 2
    path = store.folder / "scan_0.h5"
    status = path.stat()
    path.write_bytes(b"x" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert len(store.shards()) == 2
    with store.opened() as (corpus, _, _):
        assert corpus.scans == ("small-1",)
    path = store.folder / "scan_1.h5"
    os.truncate(path, 100)
    with pytest.raises(TrainingError, match="damaged"), store.opened():
        pass


def test_the_corpus_keeps_the_newest_pairs(store: CorpusStore) -> None:
    store.append("scan 2", pairs(2))
    assert store.keep(240) == [] and len(store) == 240
    assert store.keep(239) == ["scan 0"] and len(store) == 160
    assert store.keep(80, "scan 1") == [] and store.keep(80) == ["scan 1"]
    assert store.keep(1) == [] and [shard.key for shard in store.shards()] == ["scan 2"]
    store.append("scan 3", pairs(3))
    assert [shard.number for shard in store.shards()] == [3, 4]


@pytest.mark.slow
def test_training_from_the_store_is_training_from_memory(store: CorpusStore) -> None:
    options = TrainingOptions(epochs=2, batch=20, precision="float32")
    with store.opened() as (stored, validation, _):
        from_store = train(dataclasses.replace(stored, validation=validation), options)
        rows = np.arange(len(stored))
        held = dataclasses.replace(
            stored,
            counts=stored.counts[rows],
            phase=stored.phase[rows],
            amplitude=stored.amplitude[rows],
            validation=validation,
        )
    in_memory = train(held, options)
    assert [e.validation_loss for e in from_store.history] == [e.validation_loss for e in in_memory.history]
    training, aside = split_validation(held, 0.5, 0)
    assert set(aside) == set(np.flatnonzero(validation)) and len(training) == 144


@pytest.mark.slow
def test_what_is_set_aside_is_never_learned_from_over_scans_and_restarts(store: CorpusStore) -> None:
    """The pairs set aside get labels that no network could miss: the training's own loss would be beyond measure."""
    options = TrainingOptions(epochs=3, batch=20, precision="float32")
    stopped: list[TrainingState] = []

    def trap(corpus: Corpus, aside: NDArray[np.bool_]) -> Corpus:
        rows = np.arange(len(corpus))
        phase = np.array(corpus.phase[rows], np.float32)
        phase[aside] = 1e6
        counts = np.array(corpus.counts[rows])
        counts[aside] = 60_000
        return dataclasses.replace(
            corpus, counts=counts, phase=phase, amplitude=corpus.amplitude[rows], validation=aside
        )

    with store.opened() as (corpus, aside, _):
        train(trap(corpus, aside), options.model_copy(update={"epochs": 1}), on_state=stopped.append)
    with CorpusStore(store.folder).opened() as (corpus, aside, _):  # another process, after a kill
        result = train(trap(corpus, aside), options, state=stopped[-1])
    assert [epoch.number for epoch in result.history] == [1, 2, 3]
    assert all(epoch.training_loss < 10 for epoch in result.history)
    assert all(epoch.validation_loss > 1e5 for epoch in result.history)
    scale = float(result.network.normalisation[0])
    assert 1 / scale == pytest.approx(float(np.mean(pairs().counts[:])), rel=0.2)
    store.append("scan 2", pairs(2))
    with store.opened() as (corpus, aside, _):  # the next training, from where the last one ended
        again = train(trap(corpus, aside), options, initial=result.network)
    assert all(epoch.training_loss < 10 for epoch in again.history)


def _indices(corpus: Corpus, size: int) -> list[NDArray[np.intp]]:
    return np.array_split(np.random.default_rng(0).permutation(len(corpus)), size)


def test_batches_come_in_order_and_whole(store: CorpusStore) -> None:
    parts = _indices(pairs(), 7)
    made = list(batches(pairs(), parts, ("phase", "amplitude"), Dose(), np.random.default_rng(0)))
    assert len(made) == 7
    for batch, part in zip(made, parts, strict=True):
        np.testing.assert_array_equal(batch.counts, pairs().counts[part])
        np.testing.assert_array_equal(batch.labels["amplitude"], pairs().amplitude[part])
        np.testing.assert_array_equal(batch.weight, pairs().weights[pairs().source[part]])


def test_leaving_a_loop_over_batches_early_ends_its_thread() -> None:
    before = threading.active_count()
    for batch in batches(pairs(), _indices(pairs(), 40), ("phase",), Dose(), np.random.default_rng(0)):
        assert isinstance(batch, Batch)
        break
    assert threading.active_count() == before


def test_what_making_a_batch_raises_is_raised_in_the_loop() -> None:
    parts = [np.array([0, 1]), np.array([10**6])]
    with pytest.raises(IndexError):
        list(batches(pairs(), parts, ("phase",), Dose(), np.random.default_rng(0)))


def test_thinned_counts_are_poisson_counts_of_the_lower_dose() -> None:
    random = np.random.default_rng(1)
    mean = 40.0
    counts = random.poisson(mean, (200, 16, 16)).astype(np.uint16)
    thinned = thin(counts, Dose(factor=0.25), random)
    assert thinned.dtype == np.float32
    assert thinned.mean() == pytest.approx(10, rel=0.01)
    assert thinned.var() == pytest.approx(10, rel=0.03)  # a Poisson variable's variance is its mean
    assert (thinned == np.rint(thinned)).all() and (thinned <= counts).all()
    few = thin(random.poisson(4.0, (400, 16, 16)).astype(np.uint16), Dose(factor=0.25), random)
    for number, share in enumerate(np.exp(-1.0) / np.array([1, 1, 2, 6, 24])):  # Poisson at a mean of 1
        assert np.mean(few == number) == pytest.approx(share, abs=0.005)
    floored = thin(counts, Dose(factor=0.25, method="floor"), random)
    np.testing.assert_array_equal(floored, counts // 4)
    np.testing.assert_array_equal(thin(counts, Dose(), random), counts)


@pytest.mark.slow
def test_a_network_is_trained_for_its_dose() -> None:
    corpus = pairs()
    batch = make_batch(corpus, np.arange(8), ("phase",), Dose(factor=0.01), np.random.default_rng(0))
    assert batch.counts.mean() == pytest.approx(0.01 * corpus.counts[np.arange(8)].mean(), rel=0.05)
    full, low = (
        train(corpus, TrainingOptions(epochs=1, batch=20, precision="float32", dose=Dose(factor=factor)))
        for factor in (1.0, 0.01)
    )
    scales = [result.network.normalisation[0].item() for result in (full, low)]
    assert scales[1] == pytest.approx(100 * scales[0], rel=0.05)


@pytest.mark.slow
def test_memory_stays_within_a_few_batches(tmp_path: Path) -> None:
    """A corpus of 400 MB is read through by a process that may take 150 MB more than it has."""
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from ptychostream.model.contract import Preprocessing\n"
        "from ptychostream.hpc_agent.training.batches import Dose, batches\n"
        "from ptychostream.hpc_agent.corpus.corpus_store import CorpusStore\n"
        "from ptychostream.hpc_agent.corpus.training_data import Corpus\n"
        "store, n = CorpusStore(Path(sys.argv[1])), 1000\n"
        "def resident():\n"
        "    return int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        "label = np.zeros((n, 128, 128), np.float16)\n"
        "counts = np.ones((n, 128, 128), np.uint16)\n"
        "for key in 'abcd':\n"
        "    store.append(key, Corpus(counts, label, label, np.zeros(n, int), np.ones((1, 128, 128), np.float32),\n"
        "                             1e-8, Preprocessing(), (key,), n))\n"
        "del label, counts\n"
        "with store.opened() as (corpus, _, _):\n"
        "    before, most = resident(), 0\n"
        "    parts = np.array_split(np.random.default_rng(0).permutation(len(corpus)), 250)\n"
        "    for batch in batches(corpus, parts, ('phase', 'amplitude'), Dose(), np.random.default_rng(0)):\n"
        "        most = max(most, resident())\n"
        "print(most - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150e6


WORKER = """
import json, sys
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
import torch
torch.set_num_threads(1)
from test_corpus_store import pairs
from ptychostream.hpc_agent.training.training import TrainingOptions, train
told = []
result = train(pairs(), TrainingOptions(epochs=3, batch=10, precision="float32"), on_epoch=told.append)
import os
weight = result.network.encoder[0][0].weight.sum().item()
found = [weight, [epoch.validation_loss for epoch in result.history], len(told)]
Path(sys.argv[2], os.environ["RANK"]).write_text(json.dumps(found))
"""


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path: Path) -> None:
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(script), PATHS, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (weight, losses, told), (other_weight, other_losses, other_told) = (
        json.loads((tmp_path / rank).read_text()) for rank in "01"
    )
    assert weight == other_weight and losses == other_losses
    assert (told, other_told) == (3, 0)
    assert all(np.isfinite(losses))
