"""What is no measurement is the same for the edge, infer, reconstruct, train and the agent's check of a scan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from training_scans import small_scan

from ptychostream.errors import DropCause, ScanFileError
from ptychostream.frames.frames import Frame, PlacedFrame
from ptychostream.frames.measured_frames import FrameLimits, frame_limits
from ptychostream.frames.survey import survey
from ptychostream.hpc_agent.corpus.training_data import Source, default_preprocessing, measured, read_counts
from ptychostream.hpc_agent.scans.scan_checks import CheckSettings, blocks_of, measure
from ptychostream.model.contract import ModelContract, Preprocessing
from ptychostream.plugins.inference import Inference
from ptychostream.quality.offline_inference import Unmeasured, stitch_scan
from ptychostream.reconstruct.patterns import Patterns
from ptychostream.scans.scan import Scan
from ptychostream.statements.description import Description

SCAN, TRUTH = small_scan(dose=3e5)
SIZE = SCAN.counts.shape[1]
CONTRACT = ModelContract(
    name="door", input_shape=(SIZE, SIZE), output_shape=(SIZE, SIZE), object_pixel_m=1e-8, preprocessing=Preprocessing()
)


class Seeing:
    """An engine that keeps what it is given."""

    name = version = precision = device = reason = "seeing"
    batch = 80
    input_shape = output_shape = (SIZE, SIZE)

    def __init__(self) -> None:
        self.seen: list[NDArray[np.float32]] = []

    def infer(self, counts: NDArray[np.float32], _dose_scale: float = 1.0) -> NDArray[np.float32]:
        self.seen += [frame.copy() for frame in counts]
        return np.zeros_like(counts)

    def close(self) -> None: ...


def by_reconstruct(scan: Scan) -> NDArray[np.float32]:
    patterns = Patterns.read(scan)
    return np.fft.fftshift(np.square(np.maximum(patterns.amplitudes, 0)), axes=(1, 2))


def by_infer(scan: Scan) -> NDArray[np.float32]:
    engine = Seeing()
    told: list[Unmeasured] = []
    stitch_scan(scan, CONTRACT, engine.infer, batch=8, on_unmeasured=told.append)
    assert len(engine.seen) + sum(told[0].frames.values()) == len(scan)
    return np.array(engine.seen)


def by_train(scan: Scan) -> NDArray[np.float32]:
    spec = default_preprocessing([scan])
    source = measured(Source(scan, TRUTH), spec)
    return np.asarray(read_counts(scan, source.selected, spec), np.float32)


def by_edge(scan: Scan) -> NDArray[np.float32]:
    """All frames as one batch, with the file's mask in the contract and its saturation as the operator's."""
    masked = default_preprocessing([replace(scan, counts=SCAN.counts, said=Description())])
    level = scan.said.number("saturation")
    engine = Seeing()
    inference = Inference(engine, CONTRACT.model_copy(update={"preprocessing": masked}))
    inference.saturation = int(level or 0)
    placed = [
        PlacedFrame(Frame("s", number, 0.0, np.asarray(scan.counts[number])), 0.0, 0.0) for number in range(len(scan))
    ]

    def limits(sums: Any) -> FrameLimits:
        return frame_limits(sums)

    patches = inference.run(placed, lambda _: 1.0, limits)
    assert {cause for cause, _ in patches.misfits} <= {DropCause.NOT_MEASURED}
    assert len(patches.placed) + len(patches.misfits) == len(scan)
    return np.array(engine.seen)


DOORS = {"reconstruct": by_reconstruct, "infer": by_infer, "train": by_train, "edge": by_edge}


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[Scan, NDArray[np.float32]]:
    """A scan with marks, saturated pixels and frames that are none; and what is left when all of them are taken out."""
    random = np.random.default_rng(draw(st.integers(0, 1000)))
    dtype = np.dtype(draw(st.sampled_from(["uint16", "int32", "uint32", "int64"])))
    counts = np.where(SCAN.counts == np.iinfo(SCAN.counts.dtype).max, 0, SCAN.counts).astype(dtype)
    good = ~SCAN.bad_pixels
    clean = counts.astype(np.float32)
    top = int(np.iinfo(dtype).max)
    saturation = draw(st.sampled_from([None, int(np.percentile(counts[:, good], 99.7))]))
    if saturation:
        clean[clean >= saturation] = 0
    values = {0: top, 1: top - 1, 2: 65535 if top > 65535 else 60_001}
    if np.iinfo(dtype).min < 0:
        values |= {3: -1, 4: -2}
    gone = ~good
    for pixel, value in values.items():
        place = divmod(int(random.integers(SIZE**2)), SIZE)
        if draw(st.booleans()) and good[place] and not gone[place]:
            counts[:, place[0], place[1]] = value
            gone[place] = True
        del pixel
    clean[:, gone] = 0
    kinds = {
        "dark": lambda frame: frame * 0,
        "noise": lambda frame: (random.random(frame.shape) < 0.01).astype(dtype),
        "maximum": lambda frame: np.full_like(frame, top),
        "bright": lambda frame: np.minimum(frame.astype(np.int64) * 40, 60_000).astype(dtype),
    }
    bad_frames = random.choice(len(SCAN), draw(st.integers(0, 6)), replace=False)
    for number in bad_frames:
        kind = draw(st.sampled_from(sorted(kinds)))
        if kind == "bright" and saturation:
            kind = "dark"  # it would be saturated nearly everywhere
        fresh = kinds[kind](np.where(gone, 0, counts[number]))
        counts[number] = np.where(gone, counts[number], fresh)
    kept = np.setdiff1d(np.arange(len(SCAN)), bad_frames)
    said = Description()
    said.give("saturation", saturation, "a test")
    return replace(SCAN, counts=counts, said=said), clean[kept]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=spoiled())
@pytest.mark.parametrize("door", sorted(DOORS))
def test_every_door_leaves_the_same_out(door: str, case: tuple[Scan, NDArray[np.float32]]) -> None:
    scan, expected = case
    found = DOORS[door](scan)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_agents_check_counts_the_same() -> None:
    counts = SCAN.counts.astype(np.int32)
    counts[counts == np.iinfo(SCAN.counts.dtype).max] = -2
    counts[:, 1, 2], counts[:, 3, 3] = 65535, -1
    counts[[4, 9]], counts[30] = 0, np.minimum(counts[30] * 50, 10**6)
    scan = replace(SCAN, counts=counts)
    found = survey(scan)
    statistics = measure(blocks_of(counts), CheckSettings(), found.bad_pixels, found.saturation, found.limits)
    patterns = Patterns.read(scan)
    assert (statistics.dark, statistics.bright) == (2, 1) == tuple(patterns.left_out.values())
    assert statistics.dead_pixels == int(found.bad_pixels.sum()) == SCAN.bad_pixels.sum() + 2
    assert found.report()["mark_values"] == [-1, 65535]


@pytest.mark.parametrize("door", ["reconstruct", "infer", "train"])
@pytest.mark.parametrize("kind", ["inverted", "signal"])
def test_a_mask_that_cannot_be_right_is_refused_at_every_door(door: str, kind: str) -> None:
    bright = np.asarray(SCAN.counts[:, :, :]).astype(float)
    bright[:, SCAN.bad_pixels] = 0
    mean = bright.mean(axis=0)
    mask = ~SCAN.bad_pixels if kind == "inverted" else mean > np.quantile(mean, 0.6)
    with pytest.raises(ScanFileError, match="the mask calls") as caught:
        DOORS[door](replace(SCAN, bad_pixels=mask))
    assert "inverted (1 = good)" in str(caught.value)
