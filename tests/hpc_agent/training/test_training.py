"""Training learns, keeps its best epoch, can be interrupted, repeated and continued; and the commands around it."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from training_scans import small_scan

from ptychostream.cli.main import main
from ptychostream.errors import EngineError, TrainingError
from ptychostream.hpc_agent.corpus.simulated_pairs import Drawn, FreshPairs
from ptychostream.hpc_agent.corpus.training_data import Corpus, Source, build_corpus, label_extent_m, spatial_split
from ptychostream.hpc_agent.training import devices
from ptychostream.hpc_agent.training.export import predict
from ptychostream.hpc_agent.training.model_job import judge, train_model
from ptychostream.hpc_agent.training.networks import make_network
from ptychostream.hpc_agent.training.schedules import cyclic, make_schedule, one_cycle
from ptychostream.hpc_agent.training.training import (
    Epoch,
    TrainingOptions,
    TrainingResult,
    TrainingState,
    _Run,
    split_validation,
    train,
)
from ptychostream.model.model_file import load_model
from ptychostream.quality.offline_inference import stitch_scan
from ptychostream.quality.quality import compare
from ptychostream.scans.phase_file import read_phase_image, read_phase_sigma
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan_writer import write_scan

pytestmark = pytest.mark.slow

QUICK = TrainingOptions(epochs=2, batch=20, precision="float32")


@cache
def corpus() -> Corpus:
    return build_corpus([Source(*small_scan())], (16, 16))


def test_training_learns_and_the_best_epoch_is_kept() -> None:
    seen: list[Epoch] = []
    options = TrainingOptions(epochs=5, batch=8, learning_rate=2e-3, precision="float32", schedule="onecycle")
    result = train(corpus(), options, on_epoch=seen.append)
    assert result.history == seen
    assert [epoch.number for epoch in seen] == list(range(1, 6))
    assert seen[-1].training_loss < 0.7 * seen[0].training_loss
    assert result.best == min(seen, key=lambda epoch: epoch.validation_loss)
    assert result.best.validation_loss < seen[0].validation_loss
    assert not result.network.training
    # The network that is returned is the one of the best epoch: its own loss on the validation pairs says so.
    _, validation = split_validation(corpus(), options.validation, options.seed)
    phase = predict(result.network, corpus().counts[validation].astype(np.float32))
    weight = corpus().weights[corpus().source[validation]]
    loss = (weight * np.abs(phase - corpus().phase[validation])).sum() / weight.sum()
    assert loss == pytest.approx(result.best.validation_loss, rel=1e-4)


def test_the_best_epoch_is_kept_when_later_ones_are_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = [0.3, 0.1, 0.2]
    weights: list[torch.Tensor] = []

    def evaluate(run: _Run, *_: object) -> float:
        weights.append(run.network.encoder[0][0].weight.detach().clone())
        return losses[len(weights) - 1]

    monkeypatch.setattr(_Run, "evaluate", evaluate)
    result = train(corpus(), QUICK.model_copy(update={"epochs": 3}))
    assert (result.best.number, result.best.validation_loss) == (2, 0.1)
    assert torch.equal(result.network.encoder[0][0].weight, weights[1])
    assert not torch.equal(weights[1], weights[2])


def test_the_same_seed_gives_the_same_network_and_another_seed_another() -> None:
    first, again, other = (train(corpus(), QUICK.model_copy(update={"seed": seed})) for seed in (3, 3, 4))
    for key, value in first.network.state_dict().items():
        assert torch.equal(value, again.network.state_dict()[key])
    assert [e.training_loss for e in first.history] == [e.training_loss for e in again.history]
    assert other.best.validation_loss != first.best.validation_loss


def test_bfloat16_trains_as_float32_does() -> None:
    losses = [
        train(corpus(), TrainingOptions(epochs=2, batch=16, precision=precision)).best.validation_loss
        for precision in ("float32", "bfloat16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.15)


def test_two_heads_are_trained_on_amplitude_too() -> None:
    few = build_corpus([Source(*small_scan(), frames=np.arange(12))], (16, 16))
    result = train(few, TrainingOptions(network="ptychonn", epochs=1, batch=8))
    assert result.network.heads == ("phase", "amplitude")
    fresh = make_network("ptychonn", 2)
    wrong = dataclasses.replace(few, amplitude=1 - few.amplitude)
    changed = train(wrong, TrainingOptions(network="ptychonn", epochs=1, batch=8))
    assert result.best.training_loss != changed.best.training_loss
    assert fresh.parameter_count() == 4_694_690


def test_the_loss_counts_only_what_the_probe_saw() -> None:
    """Labels that are wrong where the weight is 0 change nothing."""
    weights = corpus().weights.copy()
    weights[:, :4] = 0
    right = dataclasses.replace(corpus(), weights=weights)
    phase = corpus().phase.copy()
    phase[:, :4] += 3
    wrong = dataclasses.replace(right, phase=phase)
    seen = dataclasses.replace(wrong, weights=corpus().weights)
    losses = [train(each, QUICK).history[-1].training_loss for each in (right, wrong, seen)]
    assert losses[0] == losses[1] != losses[2]


def test_an_interrupt_keeps_the_best_epoch_so_far() -> None:
    def stop(epoch: Epoch) -> None:
        if epoch.number == 2:
            raise KeyboardInterrupt

    result = train(corpus(), QUICK.model_copy(update={"epochs": 9}), on_epoch=stop)
    assert result.interrupted
    assert len(result.history) == 2


def test_an_interrupt_before_the_first_epoch_ends_it() -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Run, "loss", stop)
        with pytest.raises(KeyboardInterrupt):
            train(corpus(), QUICK)


def test_a_loss_that_is_not_finite_ends_training() -> None:
    spoilt = dataclasses.replace(corpus(), phase=np.where(corpus().phase > 0.5, np.nan, corpus().phase))
    with pytest.raises(TrainingError, match="loss is not finite in epoch 1") as caught:
        train(spoilt, QUICK)
    assert "learning rate" in caught.value.remedy


def test_what_cannot_be_trained_is_refused() -> None:
    few = build_corpus([Source(*small_scan(), frames=np.arange(3))], (16, 16))
    with pytest.raises(TrainingError, match="3 pairs"):
        train(few, QUICK)
    with pytest.raises(TrainingError, match="labels of"):
        train(build_corpus([Source(*small_scan())], (24, 24)), QUICK)
    with pytest.raises(TrainingError, match="device 'cuda:77'"):
        train(corpus(), QUICK.model_copy(update={"device": "cuda:77"}))
    with pytest.raises(TrainingError, match="warm start"):
        train(corpus(), QUICK, initial=make_network("ptychonn", 2))


def test_a_warm_start_begins_where_the_last_training_ended() -> None:
    first = train(corpus(), TrainingOptions(epochs=3, batch=8, learning_rate=2e-3, precision="float32"))
    before = {key: value.clone() for key, value in first.network.state_dict().items()}
    warm = train(corpus(), QUICK.model_copy(update={"learning_rate": 1e-4}), initial=first.network)
    cold = train(corpus(), QUICK.model_copy(update={"learning_rate": 1e-4}))
    assert warm.history[0].training_loss < 0.8 * cold.history[0].training_loss
    assert all(torch.equal(before[key], value) for key, value in first.network.state_dict().items())


def test_validation_pairs_are_measured_and_never_trained_on() -> None:
    whole = dataclasses.replace(corpus(), measured=50)
    training, validation = split_validation(whole, 0.1, seed=0)
    assert len(validation) == 5
    assert validation.max() < 50
    assert sorted([*training, *validation]) == list(range(len(whole)))
    assert set(range(50, len(whole))) <= set(training)


def test_every_epoch_has_simulated_pairs_of_its_own() -> None:
    """They are no pairs of another epoch, and a training that continues has the same ones as one without a break."""
    scan, truth = small_scan()
    measured = corpus()
    seen: list[NDArray[np.float32]] = []

    class Watched(FreshPairs):
        def draw(self, count: int, random: np.random.Generator) -> Drawn:
            drawn = super().draw(count, random)
            seen.extend(drawn.counts)
            return drawn

    fresh = Watched(measured, [Source(scan, truth)], 1.5)
    options = TrainingOptions(epochs=3, batch=8, seed=3)
    states: list[TrainingState] = []
    whole = train(measured, options, fresh=fresh, on_state=lambda state: states.append(copy.deepcopy(state)))
    assert len(seen) == 3 * fresh.count == 3 * round(1.5 * measured.measured)
    assert len({frame.tobytes() for frame in seen}) == len(seen)
    first = list(seen)
    seen.clear()
    continued = train(measured, options, fresh=fresh, state=states[0])
    np.testing.assert_array_equal(seen, first[fresh.count :])
    weights = [result.network.state_dict().values() for result in (whole, continued)]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


def test_schedules() -> None:
    peak = 1e-3
    assert cyclic(0, peak) == cyclic(2, peak) == pytest.approx(peak / 10)
    assert cyclic(1, peak) == pytest.approx(peak)
    assert cyclic(3, peak) == pytest.approx(peak / 10 + 0.9 * peak / 2)
    rates = [one_cycle(step / 100, peak) for step in range(101)]
    assert max(rates) == pytest.approx(peak)
    assert np.argmax(rates) == 30
    assert rates[0] == pytest.approx(peak / 25)
    assert rates[-1] == pytest.approx(peak / 1e4)
    for name in ("cyclic", "onecycle"):
        schedule = make_schedule(name, peak, epochs=50)
        found = [schedule(epoch / 10) for epoch in range(500)]
        assert 0 < min(found) < max(found) <= peak


def test_training_follows_its_cyclic_rate() -> None:
    options = TrainingOptions(epochs=3, batch=20, precision="float32", learning_rate=1e-4)
    assert options.schedule == "cyclic"
    steps = math.ceil(len(split_validation(corpus(), options.validation, options.seed)[0]) / options.batch)
    rates = [epoch.learning_rate for epoch in train(corpus(), options).history]
    rate = make_schedule("cyclic", 1e-4, 3)
    assert rates == pytest.approx([rate(number + (steps - 1) / steps) for number in range(3)])
    assert rates[0] < rates[1] < rates[2]


def test_a_time_limit_hurries_through_the_whole_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(np.arange(0, 1e6, 0.2))  # each look at the clock takes a fifth of a second
    monkeypatch.setattr("ptychostream.hpc_agent.training.training.time.perf_counter", lambda: next(clock))
    options = QUICK.model_copy(update={"epochs": 100, "time_limit_s": 6.0, "schedule": "onecycle"})
    result = train(corpus(), options)
    assert 1 < len(result.history) < 10
    assert result.history[-1].learning_rate < 0.1 * options.learning_rate
    assert not result.interrupted


def test_bfloat16_is_chosen_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for has in (False, True):
        monkeypatch.setattr(devices, "has_bfloat16", lambda has=has: has)
        assert devices.fast_bfloat16(torch.device("cpu")) is has
    options = TrainingOptions(epochs=1, batch=40)
    assert train(corpus(), options).options.precision == "bfloat16"


def test_a_job_writes_model_and_checkpoint_and_judges_what_it_never_saw(tmp_path: Path) -> None:
    scan, truth = small_scan()
    split = spatial_split(scan.positions_m, label_extent_m(16, truth.pixel_m), 0.15)
    source = Source(scan, truth, split.train, np.union1d(split.held_out, split.gap))
    options = TrainingOptions(epochs=6, batch=8, learning_rate=2e-3, schedule="onecycle", simulated=2, seed=5)
    trained = train_model([source], tmp_path / "m.onnx", options)
    model = load_model(tmp_path / "m.onnx")
    contract = model.contract
    assert model.sha256 == trained.sha256
    assert (contract.input_shape, contract.output_shape) == ((32, 32), (16, 16))
    assert contract.object_pixel_m == truth.pixel_m
    assert contract.training.scans == ["small-0"]
    assert contract.training.frames == len(split.train)
    assert contract.training.seed == 5
    assert contract.training.validation_loss == trained.result.best.validation_loss
    assert contract.training.ssim == trained.held_out[0].ssim
    assert contract.training.package_versions["torch"]
    assert contract.preprocessing.bad_pixels.unpack().sum() == 2
    assert contract.mean_counts == pytest.approx(scan.counts[split.train][:, ~scan.bad_pixels].sum() / len(split.train))
    fresh = judge(make_network("ptychonn2", 2).eval(), trained.contract, source).quality
    assert trained.held_out[0].pearson > fresh.pearson + 0.3
    again = train_model(
        [source], tmp_path / "n.onnx", options.model_copy(update={"epochs": 1}), warm_start=trained.checkpoint
    )
    assert load_model(again.path).contract.training.parents == [trained.sha256]


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(b"nonsense")
    for name, message in (("m.pt", "not a checkpoint"), ("none.pt", "No such file")):
        with pytest.raises(TrainingError, match=message):
            train_model([Source(*small_scan())], tmp_path / "m.onnx", QUICK, warm_start=tmp_path / name)


def test_perfect_patches_stitch_to_the_object() -> None:
    """Offline inference places what the network says where the label was cut."""
    scan, truth = small_scan()
    labels = corpus().phase
    contract = train_result_contract()
    done: list[int] = []
    calls: list[int] = []

    def infer(counts: np.ndarray, dose: float) -> np.ndarray:
        start = sum(calls)
        calls.append(len(counts))
        assert dose == 2.5
        np.testing.assert_array_equal(counts, corpus().counts[start : start + len(counts)])
        return labels[start : start + len(counts)]

    canvas = stitch_scan(
        scan, contract, infer, batch=7, dose_scale=2.5, on_frames=done.append, positions_m=truth.positions_m
    )
    assert canvas.patches == len(scan) == done[-1]
    assert max(calls) == 7
    quality = compare(canvas.image(), truth.phase_image())
    assert quality.pearson_1px > 0.995
    assert np.hypot(*quality.shift_px) < 0.2


def test_an_infer_that_returns_another_shape_is_refused() -> None:
    scan, _ = small_scan()
    with pytest.raises(EngineError, match="patches of shape"):
        stitch_scan(scan, train_result_contract(), lambda counts, _: counts)


def test_frames_without_position_are_not_stitched() -> None:
    scan, _ = small_scan()
    positions = scan.positions_m.copy()
    positions[4] = np.nan
    flat = np.zeros((8, 16, 16), np.float32)
    canvas = stitch_scan(scan, train_result_contract(), lambda counts, _: flat[: len(counts)], positions_m=positions)
    assert canvas.patches == len(scan) - 1


@cache
def train_result_contract():  # type: ignore[no-untyped-def]
    from ptychostream.hpc_agent.training.model_job import describe

    result = TrainingResult(make_network("ptychonn2", 2), [], Epoch(1, 0.1, 0.1, 1e-3, 1.0), QUICK)
    return describe(corpus(), [Source(*small_scan())], result, "", [])


def files(folder: Path) -> tuple[Path, Path]:
    scan, truth = small_scan()
    write_scan(folder / "scan.h5", scan)
    write_reconstruction(folder / "recon.h5", truth)
    return folder / "scan.h5", folder / "recon.h5"


def test_the_commands_train_infer_and_inspect(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, reconstruction = (str(path) for path in files(tmp_path))
    model, area, figure = (str(tmp_path / name) for name in ("m.onnx", "area.npy", "loss.png"))
    recipe = ["--epochs", "3", "--batch", "8", "--lr", "2e-3", "--schedule", "onecycle", "--precision", "float32"]
    held = ["--hold-out", "0.15", "--save-area", area, "--figure", figure]
    assert main(["train", scan, "--reconstruction", reconstruction, "-o", model, *recipe, *held, "--json"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["parameters"] == 733_921
    assert (trained["frames_left_out"], trained["saturation"]) == (0, None)
    assert trained["bad_pixels"] == small_scan()[0].bad_pixels.sum()
    assert trained["training_frames"] + trained["heldout_frames"] + trained["gap_frames"] == 80
    assert len(trained["held_out"]) == 1
    assert np.load(area).shape == small_scan()[1].object.shape
    assert Path(figure).read_bytes().startswith(b"\x89PNG")

    words = ["--reference", reconstruction, "--figure", str(tmp_path / "out.png"), "--engine", "ONNXRuntime", "--json"]
    assert main(["infer", scan, model, "-o", str(tmp_path / "out.h5"), *words]) == 0
    inferred = json.loads(capsys.readouterr().out)
    assert inferred["stitched"] == 80
    assert (inferred["without_position"], inferred["frames_left_out"]) == (0, {})
    assert inferred["pixels"]["bad_pixels"] == small_scan()[0].bad_pixels.sum()
    assert inferred["quality"]["range_rad"] > 0
    assert inferred["model_sha256"] == trained["sha256"]
    image = read_phase_image(tmp_path / "out.h5")
    assert image.pixel_m == small_scan()[1].pixel_m
    sigma = read_phase_sigma(tmp_path / "out.h5")
    assert sigma is not None and sigma.values.shape == image.phase.shape
    assert inferred["sigma"]["median_rad"] == pytest.approx(sigma.median, rel=1e-6)
    calibrated = trained["sigma"]
    assert calibrated is not None and calibrated["pixels"] > 0
    kept = (inferred["sigma"]["kind"], sigma.kind, sigma.factor, sigma.floor_rad)
    assert kept == ("calibrated", "calibrated", calibrated["factor"], calibrated["floor_rad"])
    assert compare(image, small_scan()[1].phase_image()).pearson == pytest.approx(inferred["quality"]["pearson"])
    assert (tmp_path / "out.png").exists()

    assert main(["model", "inspect", model, "--check", "--engine", "ONNXRuntime", "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert inspected["sha256"] == trained["sha256"]
    assert inspected["contract"]["parameters"] == 733_921
    assert inspected["check"]["rms_rad"] < inspected["check"]["tolerance_rad"]
    assert main(["model", "inspect", model]) == 0
    assert trained["sha256"] in capsys.readouterr().out


def test_the_commands_say_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scan, reconstruction = (str(path) for path in files(tmp_path))
    model = str(tmp_path / "m.onnx")
    train_words = ["train", scan, "--reconstruction", reconstruction, "-o", model]
    for words, message in (
        (["train", scan, scan, *train_words[2:]], "2 scans, 1 reconstructions"),
        ([*train_words, "--epochs", "0"], "epochs"),
        ([*train_words, "--hold-out", "0.9"], "no frame is"),
        (["infer", scan, model, "-o", str(tmp_path / "x.h5")], "No such file"),
        (["model", "inspect", scan], "not an ONNX model"),
    ):
        assert main(words) == 2
        assert message in capsys.readouterr().err
    assert not Path(model).exists()
