"""Quality without a reference: the right patch explains its pattern, others do not, and the IOC says so."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from epics_env import EpicsEnv, wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from ioc_helpers import Detector
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tiny_model import tiny_contract, tiny_graph
from training_scans import small_scan

from ptychostream.errors import GeometryError, ModelError
from ptychostream.hpc_agent.corpus.labels import FlatObject, Labels, flat_probe, flatten, make_labels
from ptychostream.hpc_agent.corpus.training_data import Source
from ptychostream.hpc_agent.training.model_job import train_model
from ptychostream.hpc_agent.training.training import TrainingOptions
from ptychostream.ioc.images.consistency_watch import ConsistencyWatch
from ptychostream.model.contract import CONTRACT_VERSION, ModelContract, PackedArray, Preprocessing
from ptychostream.model.model_file import MAX_PROBE_PIXELS, load_model, write_model
from ptychostream.plugins.flow.snapshot import LatestPatch
from ptychostream.quality.consistency import UNKNOWN, Consistency, ForwardModel
from ptychostream.scans.scan import Reconstruction, Scan
from ptychostream.sim.diffraction import Simulation, simulate_scan

SIZE = 64
P = "cs:"
CHANNEL = "cs:det:Image"


@cache
def simulated() -> tuple[Scan, Reconstruction, Labels]:
    """A scan with three dead pixels, its truth, and the true patches."""
    scan, truth = simulate_scan(Simulation(frames=40, size=SIZE, dose=1e6, dead_pixels=3), scan_id="7")
    return scan, truth, make_labels(truth, scan.positions_m, (SIZE, SIZE))


def contract(probe: NDArray[np.complex64] | None = None, **changes: Any) -> ModelContract:
    if probe is None:
        truth = simulated()[1]
        probe = flat_probe(truth.probe, flatten(truth))
    fields: dict[str, Any] = {
        "name": "m", "input_shape": (SIZE, SIZE), "output_shape": (SIZE, SIZE), "object_pixel_m": 1e-8,
        "probe": PackedArray.pack(probe), **changes,
    }  # fmt: skip
    return ModelContract(**fields)


def judge_all(model: ForwardModel, patches: NDArray[np.float32]) -> list[Consistency]:
    counts = simulated()[0].counts
    return [model.judge(patch, np.asarray(frame)) for patch, frame in zip(patches, counts, strict=True)]


def figures(found: list[Consistency]) -> NDArray[np.float64]:
    return np.array([one.figure for one in found])


@pytest.mark.slow
def test_the_figure_tells_the_true_phase_from_an_empty_patch_and_from_another_places() -> None:
    _, _, labels = simulated()
    model = ForwardModel(contract())
    true = judge_all(model, labels.phase)
    assert figures(true).min() > 0.8
    assert max(one.r_factor for one in true) < 0.02
    assert figures(judge_all(model, np.zeros_like(labels.phase))) == pytest.approx(0, abs=1e-6)
    assert np.median(figures(judge_all(model, np.roll(labels.phase, 20, axis=0)))) < 0.1
    assert np.median(figures(judge_all(model, -labels.phase))) < -0.3
    worse = [figures(judge_all(model, labels.phase + noise * _noise())) for noise in (0.0, 0.1, 0.3, 1.0)]
    assert (np.diff(np.median(worse, axis=1)) < 0).all()


def _noise() -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(40, SIZE, SIZE)).astype(np.float32)


def test_a_patch_of_half_the_window_still_tells() -> None:
    scan, truth, _ = simulated()
    model = ForwardModel(contract(output_shape=(SIZE // 2, SIZE // 2)))
    small = make_labels(truth, scan.positions_m, (SIZE // 2, SIZE // 2)).phase
    assert np.median(figures(judge_all(model, small))) > 0.7
    # What is beyond the patch is taken at its mean phase: a constant says nothing.
    assert figures(judge_all(model, small + 1)) == pytest.approx(figures(judge_all(model, small)), abs=1e-4)


@given(
    shape=st.tuples(st.integers(4, 12), st.integers(4, 12)),
    patch=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    modes=st.integers(1, 3),
    scale=st.floats(0.5, 100),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_a_pattern_of_the_model_itself_is_explained_at_any_scale(
    shape: tuple[int, int], patch: tuple[int, int], modes: int, scale: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    probe = (random.normal(size=(modes, *shape)) + 1j * random.normal(size=(modes, *shape))).astype(np.complex64)
    model = ForwardModel(contract(probe, input_shape=shape, output_shape=patch))
    phase = random.normal(size=patch).astype(np.float32)
    counts = np.rint(model.intensity(phase) * scale * 1e4).astype(np.uint32)
    found = model.judge(phase, counts)
    assert found.r_factor < 1e-4
    assert found.figure > 0.99 or found.r_empty < 1e-2


@pytest.mark.parametrize("patch", [(3, 4), (8, 6), (11, 13)])
def test_the_pattern_is_the_sum_over_the_modes_with_the_patch_on_the_probes_centre(patch: tuple[int, int]) -> None:
    probe = _two_modes()
    phase = np.random.default_rng(4).normal(size=patch).astype(np.float32)
    phase -= phase.mean()
    total = 0.0
    row, column = np.mgrid[-4:4, -3:3]  # from the centre, on both sides of the lens
    for mode in probe:
        for k, value in np.ndenumerate(phase):
            inside = np.array(k) - np.array(patch) // 2 + [4, 3]
            if (inside >= 0).all() and (inside < [8, 6]).all():
                mode[tuple(inside)] *= np.exp(1j * value)
        far = [[np.sum(mode * np.exp(-2j * np.pi * (u * row / 8 + v * column / 6))) for v in range(-3, 3)]
               for u in range(-4, 4)]  # fmt: skip
        total = total + np.abs(np.array(far)) ** 2 / 48
    model = ForwardModel(contract(_two_modes(), input_shape=(8, 6), output_shape=patch))
    assert model.intensity(phase) == pytest.approx(np.asarray(total), rel=1e-3, abs=1e-3)


def _two_modes() -> NDArray[np.complex64]:
    random = np.random.default_rng(3)
    return (random.normal(size=(2, 8, 6)) + 1j * random.normal(size=(2, 8, 6))).astype(np.complex64)


def test_dead_and_saturated_pixels_do_not_count() -> None:
    scan, _, labels = simulated()
    assert scan.bad_pixels is not None
    frame = np.asarray(scan.counts[0]).copy()
    model = ForwardModel(contract(preprocessing=Preprocessing(bad_pixels=PackedArray.pack(scan.bad_pixels))))
    found = model.judge(labels.phase[0], frame)
    frame[scan.bad_pixels] = 7
    assert model.judge(labels.phase[0], frame) == found
    frame[3, 5] = np.iinfo(frame.dtype).max
    assert model.judge(labels.phase[0], frame).figure == pytest.approx(found.figure, abs=0.02)


def test_crop_and_bin_are_what_preprocessing_does() -> None:
    scan, _, labels = simulated()
    frame = np.asarray(scan.counts[0])
    spec = Preprocessing(crop=(8, 8, 48, 48), bin=2)
    binned = ForwardModel(contract(preprocessing=spec, input_shape=(24, 24)))
    assert binned.judge(labels.phase[0], frame).figure > 0.8
    # A probe of the cropped frame goes with patterns that were cropped before they were reconstructed.
    probe = simulated()[1].probe[:, 8:56, 8:56]
    cropped = ForwardModel(contract(probe, preprocessing=Preprocessing(crop=(8, 8, 48, 48)), input_shape=(48, 48)))
    pattern = np.pad(np.rint(cropped.intensity(labels.phase[0])), 8).astype(np.uint32)
    assert cropped.judge(labels.phase[0], pattern).figure > 0.99


def test_what_cannot_be_judged() -> None:
    model = ForwardModel(contract())
    patch = simulated()[2].phase[0]
    assert all(math.isnan(value) for value in vars(model.judge(patch, np.zeros((SIZE, SIZE), np.uint16))).values())
    with pytest.raises(GeometryError, match="probe of"):
        model.judge(patch, np.ones((SIZE, SIZE + 2), np.uint16))
    with pytest.raises(GeometryError, match="no probe"):
        ForwardModel(contract().model_copy(update={"probe": None}))


# The contract


def test_a_model_file_carries_its_probe(tmp_path: Path) -> None:
    probe = np.random.default_rng(0).normal(size=(2, 16, 16)).astype(np.complex64)
    path = tmp_path / "m.onnx"
    write_model(path, tiny_graph(), tiny_contract().model_copy(update={"probe": PackedArray.pack(probe)}))
    read = load_model(path).contract
    assert read.version == CONTRACT_VERSION
    assert read.probe is not None
    assert np.array_equal(read.probe.unpack(), probe)


def test_a_contract_of_version_1_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.onnx"
    path.write_bytes(tiny_graph().SerializeToString())
    text = tiny_contract().to_json()
    path.with_suffix(".json").write_text(text.replace(f'"version":{CONTRACT_VERSION}', '"version":1'))
    read = load_model(path).contract
    assert (read.version, read.probe) == (1, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "probe",
    [
        np.ones((1, 16, 16), np.complex128), np.ones((1, 16, 16), np.float32), np.ones((16, 16), np.complex64),
        np.zeros((1, 16, 16), np.complex64), np.full((1, 16, 16), np.nan, np.complex64),
        np.ones((0, 16, 16), np.complex64), np.ones((1, 1, MAX_PROBE_PIXELS + 1), np.complex64),
    ],
)  # fmt: skip
def test_a_probe_that_is_none_is_refused(tmp_path: Path, probe: NDArray[Any]) -> None:
    wrong = tiny_contract().model_copy(update={"probe": PackedArray.pack(probe)})
    with pytest.raises(ModelError, match="probe must be"):
        write_model(tmp_path / "m.onnx", tiny_graph(), wrong)
    assert not (tmp_path / "m.onnx").exists()


def test_the_probe_loses_the_ramp_that_its_object_lost() -> None:
    _, truth, _ = simulated()
    rows, columns = np.indices(truth.object.shape)
    ramp = np.exp(1j * (0.3 * rows - 0.2 * columns))
    tilted = Reconstruction(**{**vars(truth), "object": (truth.object * ramp).astype(np.complex64)})
    flat, straight = flatten(tilted), flatten(truth)
    assert np.subtract(flat.slope, straight.slope) == pytest.approx([0.3, -0.2], abs=1e-4)
    assert np.abs(flat.object) == pytest.approx(np.abs(straight.object), abs=1e-4)
    one = FlatObject(flat.object, (0.0, 2 * math.pi / SIZE))  # a ramp of one turn moves the pattern by one pixel
    before, after = np.fft.fft2(truth.probe[0]), np.fft.fft2(flat_probe(truth.probe, one)[0])
    assert np.abs(np.roll(before, 1, axis=1)) == pytest.approx(np.abs(after), rel=1e-3, abs=1e-3)


@pytest.mark.slow
def test_a_trained_model_carries_the_probe_that_goes_with_its_patches(tmp_path: Path) -> None:
    scan, truth = small_scan()
    trained = train_model([Source(scan, truth)], tmp_path / "m.onnx", TrainingOptions(epochs=1, simulated=0))
    read = load_model(trained.path).contract
    model = ForwardModel(read)
    labels = make_labels(truth, scan.positions_m[:10], read.output_shape)
    found = [model.judge(labels.phase[i], np.asarray(scan.counts[i])).figure for i in range(10)]
    assert np.median(found) > 0.6


# The IOC


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 0.001  # each look takes a millisecond
        return self.now


def latest(frame: int, made: ModelContract | None, phase: NDArray[np.float32] | None = None) -> LatestPatch:
    scan, _, labels = simulated()
    return LatestPatch(labels.phase[frame] if phase is None else phase, "7", frame, 0.0, 0.0,
                       np.asarray(scan.counts[frame]), made)  # fmt: skip


def test_the_watch_follows_the_latest_patch_at_its_own_pace() -> None:
    clock = Clock()
    watch = ConsistencyWatch(clock)
    model = contract()
    watch.look(latest(0, model))
    first = watch.latest
    assert first.figure > 0.8
    watch.look(latest(1, model))
    assert watch.latest is first  # too soon
    clock.now += 1
    watch.look(latest(1, model))
    assert watch.latest is not first
    watch.look(None)  # a reset shows at once
    assert watch.latest is UNKNOWN


def test_the_watch_knows_nothing_without_a_probe_a_frame_or_one_that_fits() -> None:
    clock = Clock()
    watch = ConsistencyWatch(clock)
    for unknown in (
        latest(0, contract().model_copy(update={"probe": None})),
        latest(0, None),
        latest(0, contract(np.ones((1, 8, 8), np.complex64))),
    ):
        clock.now += 1
        watch.look(latest(0, contract()))
        assert watch.latest.figure > 0.8
        clock.now += 1
        watch.look(unknown)
        assert math.isnan(watch.latest.figure)


def constant_model(path: Path, phase: NDArray[np.float32], name: str, probe: bool = True) -> None:
    """A model that gives one and the same patch whatever the counts are."""
    shape = ["N", 1, SIZE, SIZE]
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["counts", "zero"], ["nothing"]),
            helper.make_node("Add", ["nothing", "patch"], ["phase"]),
        ],
        name,
        [helper.make_tensor_value_info("counts", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("phase", TensorProto.FLOAT, shape)],
        [
            numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
            numpy_helper.from_array(phase[None, None].astype(np.float32), "patch"),
        ],
    )
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    made = contract(name=name)
    write_model(path, model, made if probe else made.model_copy(update={"probe": None}))


@pytest.fixture
def ioc(tmp_path: Path) -> Iterator[tuple[EpicsEnv, Detector]]:
    _, _, labels = simulated()
    constant_model(tmp_path / "true.onnx", labels.phase[0], "true")
    constant_model(tmp_path / "wrong.onnx", -labels.phase[0], "wrong")
    constant_model(tmp_path / "blind.onnx", labels.phase[0], "blind", probe=False)
    options = ["--prefix", P, "--input-pv", CHANNEL, "--model", "true.onnx", "--models-dir", str(tmp_path),
               "--engine", "ONNXRuntime", "--engine-cache", str(tmp_path / "cache"), "--batch", "4"]  # fmt: skip
    with EpicsEnv() as env, Detector(env, CHANNEL) as detector, env.start_ioc(*options, wait="ready"):
        yield env, detector


@pytest.mark.server
def test_the_record_tells_a_right_model_from_a_wrong_one_live(ioc: tuple[EpicsEnv, Detector], tmp_path: Path) -> None:
    env, detector = ioc
    np.save(tmp_path / "frame.npy", np.asarray(simulated()[0].counts[0]))
    sent = 0

    def stream(model: str) -> None:
        nonlocal sent
        env.caput(f"{P}ModelFile", list(f"{model}.onnx".encode() + b"\0"))
        env.caput(f"{P}LoadModel", 1)
        wait_until(lambda: env.caget(f"{P}ModelVersion_RBV") == model, 20, model)
        detector.send(scan=model, count=8, first=1, file=str(tmp_path / "frame.npy"), columns=2)
        sent += 8
        wait_until(lambda: env.caget(f"{P}FramesStitched_RBV") == sent, 20, "stitched")

    def consistency(name: str = "Consistency_RBV") -> float:
        return float(env.caget(f"{P}{name}"))

    assert math.isnan(consistency()) or env.caget(f"{P}Consistency_RBV.SEVR") == 3  # no patch yet
    stream("true")
    wait_until(lambda: consistency() > 0.8, 10, lambda: f"{consistency()}")
    assert 0 < consistency("RFactor_RBV") < 0.02
    assert env.caget(f"{P}Consistency_RBV.SEVR") == 0
    stream("wrong")
    wait_until(lambda: consistency() < -0.3, 10, lambda: f"{consistency()}")
    stream("blind")
    wait_until(lambda: env.caget(f"{P}Consistency_RBV.SEVR") == 3, 10, "INVALID without a probe")
    assert math.isnan(consistency())
    assert env.caget(f"{P}RFactor_RBV.SEVR") == 3
