"""The calibration of the error: found again where it is known, tested on the other half, and kept in the contract."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychostream.errors import ModelError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.imaging.sigma import sigma
from ptychostream.imaging.stitching import Canvas
from ptychostream.model.contract import CONTRACT_VERSION, ModelContract, SigmaCalibration
from ptychostream.quality.sigma_calibration import MIN_PIXELS, Errors, calibrate, errors_of, fit

PIXEL = 1e-8
SIDE = 24


def drawn(factor: float, floor_rad: float, pixels: int = 20_000, seed: int = 0) -> Errors:
    """Errors that have the factor and the floor, with overlaps of 2 to 30 patches."""
    rng = np.random.default_rng(seed)
    single, number = rng.gamma(3, 0.03, pixels), rng.uniform(2, 30, pixels)
    error = rng.normal(0, sigma(single, number, factor, floor_rad))
    return Errors(error, single, number, rng.choice(np.int8([0, 1, -1]), pixels))


@pytest.mark.parametrize(("factor", "floor_rad"), [(0.5, 0.08), (1.5, 0.01), (0.2, 0.2)])
def test_the_factor_and_the_floor_are_found_again_and_hold_on_the_other_half(factor: float, floor_rad: float) -> None:
    errors = drawn(factor, floor_rad)
    found = fit(errors)
    fresh = drawn(factor, floor_rad, seed=1)
    expected = [np.sqrt(np.mean(sigma(fresh.single, fresh.number, *of) ** 2)) for of in (found, (factor, floor_rad))]
    assert expected[0] == pytest.approx(expected[1], rel=0.03)
    assert found[0] == pytest.approx(factor, abs=0.25)
    calibration = calibrate([errors, fresh])
    assert calibration is not None
    assert calibration.within_1_sigma == pytest.approx(0.683, abs=0.01)
    assert calibration.within_2_sigma == pytest.approx(0.954, abs=0.01)
    assert calibration.pixels == 40_000


def test_what_holds_on_one_half_and_not_on_the_other_shows() -> None:
    """The parts within σ are not those of the pixels that the factor was found on."""
    errors = drawn(0.5, 0.05)
    worse = Errors(np.where(errors.half == 1, 5, 1) * errors.error, errors.single, errors.number, errors.half)
    calibration = calibrate([worse])
    assert calibration is not None and calibration.within_1_sigma is not None
    assert calibration.within_1_sigma == pytest.approx((0.17 + 1.0) / 2, abs=0.06)


def test_independent_errors_need_neither_factor_nor_floor() -> None:
    errors = drawn(0.0, 0.0)
    factor, floor_rad = fit(errors)
    assert factor < 0.1 and floor_rad < 0.005


def test_too_few_pixels_calibrate_nothing() -> None:
    assert calibrate([]) is None
    assert calibrate([drawn(0.5, 0.05, MIN_PIXELS - 1)]) is None
    few = calibrate([drawn(0.5, 0.05, MIN_PIXELS)])
    assert few is not None and few.within_1_sigma is None


def stitched(sample: NDArray[np.float64], tau: float, rng: np.random.Generator, frames: int) -> PhaseImage:
    canvas = Canvas(PIXEL, np.ones((SIDE, SIDE)), spread=True)
    corners = rng.integers(0, sample.shape[0] - SIDE + 1, (frames, 2))
    cut = np.stack([sample[r : r + SIDE, c : c + SIDE] for r, c in corners])
    patches = (cut + rng.normal(0, tau, cut.shape)).astype(np.float32)
    canvas.add_batch(patches, (corners[:, ::-1] + SIDE // 2) * PIXEL)
    return canvas.image()


def test_a_stitched_image_is_calibrated_against_its_sample_on_the_area_alone() -> None:
    rng = np.random.default_rng(3)
    rows, columns = np.indices((160, 160))
    sample = np.sin(rows / 6) * np.cos(columns / 5)
    bias = rng.normal(0, 0.06, sample.shape)
    image = stitched(sample + bias, 0.15, rng, 1500)
    reference = PhaseImage(sample.astype(np.float32), np.ones(sample.shape, np.float32), (0.0, 0.0), PIXEL)
    area = np.zeros(sample.shape, bool)
    area[:, :60] = True
    errors = errors_of(image, reference, area, SIDE)
    assert 4000 < errors.error.size <= area.sum()
    gap = np.count_nonzero(errors.half == -1)
    assert gap == pytest.approx(SIDE * 60, rel=0.1)  # the halves lie along the longer side
    calibration = calibrate([errors])
    assert calibration is not None and calibration.within_1_sigma is not None
    assert np.hypot(calibration.factor * 0.15, calibration.floor_rad) == pytest.approx(0.06, rel=0.15)
    assert calibration.within_1_sigma == pytest.approx(0.683, abs=0.03)


def contract(**more: object) -> ModelContract:
    return ModelContract(name="m", input_shape=(8, 8), output_shape=(4, 4), object_pixel_m=1e-8, **more)


def test_a_contract_keeps_the_calibration_and_old_contracts_have_none() -> None:
    told = SigmaCalibration(factor=0.5, floor_rad=0.08, within_1_sigma=0.7, pixels=1000)
    text = contract(sigma=told).to_json()
    assert json.loads(text)["version"] == CONTRACT_VERSION == 3
    assert ModelContract.from_json(text).sigma == told
    plain = json.loads(contract().to_json())
    assert "sigma" not in plain
    for version in (1, 2):
        assert ModelContract.from_json(json.dumps(plain | {"version": version})).sigma is None


@pytest.mark.parametrize("wrong", [{"factor": -1, "floor_rad": 0}, {"factor": 1}, {"factor": 1, "floor_rad": "nan"}])
def test_a_wrong_calibration_is_refused(wrong: dict[str, object]) -> None:
    text = json.dumps(json.loads(contract().to_json()) | {"sigma": wrong})
    with pytest.raises(ModelError, match="sigma"):
        ModelContract.from_json(text)
