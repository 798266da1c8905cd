"""Each frame's own R factor: a frame that is wrong stands out, and their mean is the R factor of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from reconstruct_case import SCAN, options

from ptychostream.quality.figures import reconstruction_figure
from ptychostream.reconstruct.residuals import frame_residuals
from ptychostream.reconstruct.run import reconstruct


def test_a_frame_at_a_wrong_position_stands_out() -> None:
    made = reconstruct(SCAN, options())
    assert made.residuals is not None and made.residuals.dtype == np.float32
    power = SCAN.counts.sum(axis=(1, 2))
    mean = float((made.residuals * power).sum() / power.sum())
    assert mean == pytest.approx(made.r_factor, rel=0.3)
    positions = SCAN.positions_m.copy()
    positions[40] += 8 * made.pixel_m
    wrong = reconstruct(replace(SCAN, positions_m=positions), options())
    assert wrong.residuals is not None
    assert int(np.argmax(wrong.residuals)) == 40
    assert wrong.residuals[40] > 3 * np.median(wrong.residuals)
    titles = [axes.get_title() for axes in reconstruction_figure(made).axes]
    assert any("R factor of each frame" in title for title in titles)
    without = [axes.get_title() for axes in reconstruction_figure(replace(made, residuals=None)).axes]
    assert not any("each frame" in title for title in without)


def test_bad_pixels_do_not_count_and_dark_frames_are_unknown() -> None:
    random = np.random.default_rng(0)
    object_ = np.exp(1j * random.normal(size=(20, 20))).astype(np.complex64)
    probe = (random.normal(size=(2, 8, 8)) + 1j * random.normal(size=(2, 8, 8))).astype(np.complex64)
    corners = np.array([[0, 0], [3, 5], [12, 12]])
    waves = [np.fft.fft2(probe * object_[r : r + 8, c : c + 8], norm="ortho") for r, c in corners]
    amplitudes = np.sqrt(np.sum(np.abs(waves) ** 2, axis=1)).astype(np.float32)
    assert frame_residuals(amplitudes, corners, object_, probe).max() < 1e-9
    amplitudes[0] *= 2  # (2a − a)² / (2a)²
    amplitudes[1, 2, 3] = -1
    amplitudes[2] = 0
    found = frame_residuals(amplitudes, corners, object_, probe)
    assert found[0] == pytest.approx(0.25, rel=1e-4) and found[1] < 1e-9 and np.isnan(found[2])
