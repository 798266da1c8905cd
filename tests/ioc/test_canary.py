"""The canary and the way back: a new model against the live one, and the decision to go back, in all its cases."""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_model import tiny_contract, write_tiny
from untried_maker import UntriedMaker

from ptychostream.errors import ModelError
from ptychostream.frames.frames import Frame
from ptychostream.ioc.model.canary import Canary, comparable, rms_difference
from ptychostream.ioc.model.canary_rollback import NEVER, Judgement, Rollback, decide
from ptychostream.ioc.model.model_slot import EngineWish, ModelSlot, SlotState
from ptychostream.model.contract import ModelContract, PackedArray, Preprocessing
from ptychostream.model.rollback_text import BY_OPERATOR, read_went_back, went_back
from ptychostream.plugins.engines.plain import PlainEngine, plain_contract
from ptychostream.plugins.inference import Patches
from ptychostream.plugins.pipeline import Pipeline, PipelineSettings
from ptychostream.positions.positions import AttributePositions

A, B, C = "a" * 64, "b" * 64, "c" * 64
SIZE = 16

# The decision, pure


@pytest.mark.parametrize(("live", "previous"), [(A, B), (A, ""), ("", ""), ("", B)])
def test_it_goes_back_in_one_case_alone(live: str, previous: str) -> None:
    shas, ssims = (A, B, ""), (0.5, 0.6, 0.7, math.nan)
    went_back = 0
    for judged, left, tolerance, figures in itertools.product(
        itertools.product(shas, shas), shas, (0.0, 0.15, NEVER), itertools.product(ssims, ssims)
    ):
        verdict = decide(Judgement(*judged, *figures), live, previous, tolerance, left)
        worse = figures[1] - figures[0] > tolerance  # False where one is NaN
        wanted = judged == (A, B) == (live, previous) and worse and tolerance < NEVER and left != B
        assert verdict.go_back == wanted, (judged, left, tolerance, figures)
        assert verdict.reason
        went_back += verdict.go_back
    assert went_back == (8 if (live, previous) == (A, B) else 0)


@pytest.mark.slow
@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 2))
def test_a_better_live_model_stays(ssim: float, previous: float, tolerance: float) -> None:
    verdict = decide(Judgement(A, B, max(ssim, previous), min(ssim, previous)), A, B, tolerance, "")
    assert not verdict.go_back


class FakeSlot:
    """Two models, as a slot that rolls back."""

    class Model:
        def __init__(self, sha256: str) -> None:
            self.sha256 = sha256

    def __init__(self) -> None:
        self.live, self.previous = self.Model(A), self.Model(B)
        self.on_change = lambda: None

    def rollback(self, only_from: str | None = None) -> None:
        assert only_from == self.live.sha256
        self.live, self.previous = self.previous, self.live
        told = threading.Thread(target=self.on_change, daemon=True)
        told.start()
        told.join(5)
        assert not told.is_alive()


def test_the_alarm_lasts_until_another_model_or_an_acknowledgement() -> None:
    slot = FakeSlot()
    back = Rollback(slot, 0.05)
    slot.on_change = back.follow  # as the IOC does, from another thread
    back.judged(Judgement(A, B, 0.5, 0.9))
    assert (slot.live.sha256, back.alarm) == (B, True)
    assert A in back.message
    assert B in back.message
    told = back.message
    back.follow()
    back.judged(Judgement(B, A, 0.9, 0.5))
    assert (back.alarm, back.message) == (True, told)  # a later judgement does not hide it
    slot.live = FakeSlot.Model(C)
    back.follow()
    assert not back.alarm


def test_an_acknowledged_alarm_stays_away() -> None:
    back = Rollback(FakeSlot(), 0.05)
    back.judged(Judgement(A, B, 0.5, 0.9))
    back.acknowledge()
    back.follow()
    assert not back.alarm


def test_two_models_do_not_take_turns() -> None:
    slot = FakeSlot()
    back = Rollback(slot, 0.05)
    back.judged(Judgement(A, B, 0.5, 0.9))
    back.judged(Judgement(B, A, 0.5, 0.9))  # on the next scan it is the other way round
    assert slot.live.sha256 == B


def test_an_operator_s_way_back_is_told_in_the_same_words_and_holds() -> None:
    slot = FakeSlot()
    back = Rollback(slot, 0.05)
    slot.on_change = back.follow
    back.by_operator()
    assert slot.live.sha256 == B and not back.alarm
    assert read_went_back(back.message) == (A, B, BY_OPERATOR)
    back.judged(Judgement(B, A, 0.5, 0.9))  # the one that he left seems better: he has decided
    assert slot.live.sha256 == B
    back.by_operator()
    assert read_went_back(back.message) == (B, A, BY_OPERATOR)
    slot.live = FakeSlot.Model(C)
    back.judged(Judgement(C, B, 0.5, 0.9))
    assert slot.live.sha256 == C, "nor does the one that he left last"


def test_an_operator_s_way_back_ends_the_alarm() -> None:
    back = Rollback(FakeSlot(), 0.05)
    back.judged(Judgement(A, B, 0.5, 0.9))
    told = read_went_back(back.message)
    assert told is not None and (told.left, told.back_to) == (A, B) and told.reason.startswith("SSIM 0.500")
    back.by_operator()
    assert not back.alarm


@given(st.text())
def test_what_is_no_way_back_is_not_read_as_one(reason: str) -> None:
    assert read_went_back(went_back(A, B, reason)) == (A, B, reason)
    assert read_went_back(reason) is None
    assert read_went_back(f"went back from {A[:12]} to {B[:12]}: {reason}") is None


# The comparison


@given(st.floats(-3, 3), st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_a_constant_is_no_difference_and_the_rest_counts_in_full(constant: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    live = rng.normal(size=(4, 6, 6)).astype(np.float32)
    noise = rng.normal(size=live.shape)
    new = (live + constant + scale * (noise - noise.mean())).astype(np.float32)
    assert rms_difference(new, live) == pytest.approx(scale * noise.std(), abs=1e-5)


def test_what_the_probe_does_not_reach_does_not_count() -> None:
    live = np.zeros((2, 4, 4), np.float32)
    new = live.copy()
    new[:, 0, 0] = 100
    weight = np.ones((4, 4), np.float32)
    weight[0, 0] = 0
    assert rms_difference(new, live) > 10
    assert rms_difference(new, live, weight) == 0


@pytest.mark.parametrize(
    "change",
    [
        {"preprocessing": Preprocessing(flip_lr=True)},
        {"input_shape": (8, 8)},
        {"output_shape": (8, 8)},
        {"object_pixel_m": 11e-9},
    ],
)
def test_models_of_other_patterns_or_pixels_are_not_compared(change: dict[str, Any]) -> None:
    contract = tiny_contract()
    assert comparable(contract, contract.model_copy(update={"name": "other"}))
    assert not comparable(contract, contract.model_copy(update=change))


def batch(contract: ModelContract, value: float, gain: float, dose: float = 1.0) -> Patches:
    counts = np.full((3, *contract.input_shape), value, np.float32)
    counts[:, ::2] += 1
    return Patches([], counts * np.float32(gain * dose), [], 0.0, 0.0, 0.0, counts, dose)


class Gain(PlainEngine):
    """Phase = counts · dose · gain, or NaN."""

    def __init__(self, gain: float) -> None:
        super().__init__((SIZE, SIZE), 4)
        self.gain = gain

    def infer(self, counts: NDArray[np.float32], dose_scale: float = 1.0) -> NDArray[np.float32]:
        return counts * np.float32(dose_scale * self.gain)


def filled(canary: Canary, contract: ModelContract, gain: float, count: int = 5, dose: float = 1.0) -> None:
    for value in range(count):
        canary.note(contract, batch(contract, value, gain, dose))


def ticking() -> Iterator[float]:
    return itertools.count(0.0, 1.0)


def made(**options: Any) -> Canary:
    clock = ticking()
    return Canary(clock=lambda: next(clock), **options)


def expected(new: float, live: float, count: int = 5) -> float:
    patterns = np.stack([np.full((SIZE, SIZE), value, float) for value in range(count)])
    patterns[:, ::2] += 1
    return float(((new - live) * patterns).std())


def test_the_difference_is_that_of_the_recent_patterns() -> None:
    canary, live, new = made(), tiny_contract(name="live"), tiny_contract(name="new")
    filled(canary, live, 0.01)
    canary.try_out(Gain(0.03), new, live, strict=True)
    assert canary.latest.rms == pytest.approx(expected(0.03, 0.01), rel=1e-4)
    assert (canary.latest.frames, canary.latest.live) == (5, "live")


@pytest.mark.parametrize(("limit", "strict", "refused"), [(0, True, False), (1e-3, True, True), (9, True, False),
                                                          (1e-3, False, False)])  # fmt: skip
def test_the_limit_refuses_a_new_model_alone(limit: float, strict: bool, refused: bool) -> None:
    canary, live = made(limit=limit), tiny_contract(name="live")
    filled(canary, live, 0.01)
    if refused:
        with pytest.raises(ModelError, match=r"differs by .* from live on 5 recent patterns, CanaryLimit"):
            canary.try_out(Gain(0.03), tiny_contract(name="new"), live, strict)
    else:
        canary.try_out(Gain(0.03), tiny_contract(name="new"), live, strict)
    assert canary.latest.frames == 5


@pytest.mark.parametrize("strict", [True, False])
def test_a_model_that_gives_no_numbers_is_refused_without_any_limit(strict: bool) -> None:
    canary, live = made(), tiny_contract(name="live")
    filled(canary, live, 0.01)
    with pytest.raises(ModelError, match="not finite for 5 of 5"):
        canary.try_out(Gain(math.nan), tiny_contract(name="new"), live, strict)


def test_without_patterns_of_the_live_model_nothing_is_compared() -> None:
    canary, live, new = made(limit=1e-6), tiny_contract(name="live"), tiny_contract(name="new")
    filled(canary, tiny_contract(name="gone"), 0.01)
    for before in (None, live):
        canary.try_out(Gain(0.5), new, before, strict=True)
        assert canary.latest.frames == 0


def test_models_that_follow_one_another_without_a_pattern_are_compared_still() -> None:
    canary, first, second, third = made(), *(tiny_contract(name=name) for name in "abc")
    filled(canary, first, 0.01)
    canary.try_out(Gain(0.02), second, first, strict=True)
    with pytest.raises(ModelError):
        canary.try_out(Gain(math.nan), third, second, strict=True)
    canary.try_out(Gain(0.03), tiny_contract(name="never live"), second, strict=True)
    canary.try_out(Gain(0.05), third, second, strict=True)
    assert canary.latest.rms == pytest.approx(expected(0.05, 0.02), rel=1e-4)


def test_each_model_gets_the_dose_of_its_own_training_where_that_is_automatic() -> None:
    live = tiny_contract(name="live")
    new = tiny_contract(name="new").model_copy(update={"mean_counts": 2000.0})  # the live one's: 1000
    for automatic, gain in ((True, 0.005), (False, 0.01)):
        canary = made(automatic_dose=lambda on=automatic: on)
        filled(canary, live, 0.01, dose=3.0)
        canary.try_out(Gain(gain), new, live, strict=True)
        assert canary.latest.rms == pytest.approx(0, abs=1e-6)


@pytest.mark.slow
def test_the_memory_is_bounded_in_frames_and_bytes() -> None:
    canary, live = made(), tiny_contract(name="live")
    filled(canary, live, 0.01, count=100)
    kept = canary.samples(live)
    assert len(kept) == 32
    assert kept[-1].counts.max() == 100  # the newest
    large = tiny_contract(size=2048)
    for value in range(4):
        canary.note(large, batch(large, value, 0.01))
    assert len(canary.samples(large)) == 1


def test_patterns_are_kept_some_twenty_times_a_second() -> None:
    clock = itertools.count(0.0, 0.01)
    canary, live = Canary(clock=lambda: next(clock)), tiny_contract()
    filled(canary, live, 0.01, count=100)
    assert len(canary.samples(live)) == 20


# In the slot, with a real pipeline and a real engine


class Bench:
    """A pipeline, a slot and frames."""

    def __init__(self, folder: Path, limit: float) -> None:
        self.folder = folder
        self.pipeline = Pipeline(PipelineSettings(batch=4, max_latency_s=0.001), AttributePositions("x", "y"))
        self.pipeline.start()
        self.canary = Canary(limit)
        self.pipeline.on_patches = self.canary.note
        self.slot = ModelSlot(
            UntriedMaker(folder / "cache", 1),
            self.pipeline.swap_engine,
            plain_contract((SIZE, SIZE), 10e-9),
            wish=EngineWish("ONNXRuntime", "float32", 4),
            canary=self.canary,
        )

    def load(self, name: str, gain: float) -> None:
        write_tiny(self.folder / f"{name}.onnx", gain=gain, name=name)
        self.slot.load(self.folder / f"{name}.onnx")

    def scan(self, name: str) -> None:
        rng = np.random.default_rng(0)
        for number in range(12):
            counts = rng.integers(0, 9, (SIZE, SIZE)).astype(np.uint16)
            self.pipeline.submit(Frame(name, number, float(number), counts, {"x": 0.0, "y": 0.0}))
        self.pipeline.end_scan(name).result(10)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, limit=0.2)
    yield made
    assert made.pipeline.stop(10)


def test_a_model_beyond_the_limit_never_takes_over(bench: Bench) -> None:
    bench.load("a", 0.01)
    assert bench.canary.latest.frames == 0
    bench.scan("s")
    bench.load("b", 0.011)
    assert 0 < bench.canary.latest.rms < 0.05
    with pytest.raises(ModelError, match="CanaryLimit"):
        bench.load("c", 1.0)
    assert bench.slot.live is not None
    assert (bench.slot.live.contract.name, bench.slot.state) == ("b", SlotState.FAILED)
    bench.canary.limit = 0
    bench.load("c", 1.0)
    bench.canary.limit = 1e-9
    bench.slot.rollback(only_from=bench.slot.live.sha256)  # the limit does not hold the way back
    assert bench.slot.live.contract.name == "b"
    with pytest.raises(ModelError, match="another model is live"):
        bench.slot.rollback(only_from="0" * 64)


def test_a_patch_weight_is_taken_into_account(bench: Bench) -> None:
    weight = np.zeros((SIZE, SIZE), np.float32)
    weight[4:8, 4:8] = 1
    contract = tiny_contract(name="w").model_copy(update={"patch_weight": PackedArray.pack(weight)})
    live = tiny_contract(name="live")
    canary = made()
    filled(canary, live, 0.01)
    canary.try_out(Gain(0.02), contract, live, strict=True)
    assert canary.latest.rms > 0
