"""Figures: what is where in the picture, and what the profile says."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from numpy.typing import NDArray

from ptychostream.errors import GeometryError, ScanFileError
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.figure_panels import phase_limits, phase_panel
from ptychostream.quality.figures import (
    comparison_figure,
    line_profile,
    most_varied_line,
    reconstruction_figure,
    save_figure,
    training_figure,
)
from ptychostream.scans.scan import Reconstruction

PIXEL_M = 10e-9
ORIGIN_M = (2e-6, -3e-6)


def make(phase: NDArray[np.float64]) -> PhaseImage:
    weight = np.isfinite(phase).astype(np.float32)
    return PhaseImage(phase.astype(np.float32), weight, ORIGIN_M, PIXEL_M)


def texture(shape: tuple[int, int] = (90, 110)) -> NDArray[np.float64]:
    rows, columns = np.indices(shape)
    return 0.5 * np.sin(rows / 5) * np.cos(columns / 7) + 0.3 * np.sin((rows + 2 * columns) / 11)


def quadrant() -> NDArray[np.float64]:
    phase = np.full((80, 100), -1.0)
    phase[40:, 50:] = 1.0  # +x, +y
    return phase


def test_rows_run_down_and_columns_to_the_right(tmp_path: Path) -> None:
    figure = Figure(figsize=(4, 3.2))
    axes = figure.add_axes((0, 0, 1, 1))
    phase_panel(axes, make(quadrant()), colour_bar=False)
    save_figure(figure, tmp_path / "panel.png", dpi=100)
    red = imread(tmp_path / "panel.png")[:, :, 0]
    height, width = red.shape
    bright = red > 0.8  # viridis ends in yellow
    assert bright[int(0.6 * height), int(0.6 * width)]
    assert not bright[int(0.4 * height), int(0.6 * width)]
    assert not bright[int(0.6 * height), int(0.4 * width)]


def test_comparison_keeps_the_directions_and_outlines_the_area() -> None:
    area = np.zeros((90, 110), bool)
    area[50:85, 60:105] = True
    figure = comparison_figure(make(texture()), make(texture()), area)
    for panel in figure.axes[:2]:
        left, right = panel.get_xlim()
        bottom, top = panel.get_ylim()
        assert left < right
        assert bottom > top  # row 0 is at the top
        outline = np.concatenate([path.vertices for path in panel.collections[0].get_paths()])
        low, high = outline.min(axis=0), outline.max(axis=0)
        expected = [ORIGIN_M[0] + 59.5 * PIXEL_M, ORIGIN_M[1] + 49.5 * PIXEL_M]
        np.testing.assert_allclose(low, np.array(expected) * 1e6, atol=1e-3)
        expected = [ORIGIN_M[0] + 104.5 * PIXEL_M, ORIGIN_M[1] + 84.5 * PIXEL_M]
        np.testing.assert_allclose(high, np.array(expected) * 1e6, atol=1e-3)


@pytest.mark.slow
def test_comparison_shows_both_aligned_and_says_how_alike(tmp_path: Path) -> None:
    rows, columns = np.indices((90, 110))
    image = make(texture() + 1.7 + 0.01 * rows - 0.02 * columns)
    line = ((ORIGIN_M[0] + 10 * PIXEL_M, ORIGIN_M[1] + 45 * PIXEL_M), (ORIGIN_M[0] + 99 * PIXEL_M, ORIGIN_M[1]))
    figure = comparison_figure(make(texture()), image, line=line)
    profile = figure.axes[2]
    reference_line, image_line = profile.get_lines()
    np.testing.assert_allclose(image_line.get_ydata(), reference_line.get_ydata(), atol=1e-3)
    assert np.ptp(reference_line.get_ydata()) > 0.5
    assert reference_line.get_xdata()[-1] == pytest.approx(np.hypot(89, 45) * PIXEL_M * 1e6)
    assert "SSIM 1.000" in profile.get_title()
    assert "rad" in profile.get_ylabel()
    save_figure(figure, tmp_path / "figure.png")
    assert imread(tmp_path / "figure.png").shape[:2] == (1230, 1575)


def test_comparison_without_overlap_is_an_error() -> None:
    far = PhaseImage(texture().astype(np.float32), np.ones((90, 110), np.float32), (1.0, 1.0), PIXEL_M)
    with pytest.raises(GeometryError, match="share 0"):
        comparison_figure(make(texture()), far)


def test_line_profile_follows_the_line() -> None:
    rows, columns = np.indices((50, 60))
    phase = rows * 0.1 + columns * 0.01
    phase[:, 40:] = np.nan
    start = (ORIGIN_M[0] + 5 * PIXEL_M, ORIGIN_M[1] + 3 * PIXEL_M)
    end = (ORIGIN_M[0] + 50 * PIXEL_M, ORIGIN_M[1] + 3 * PIXEL_M)
    distance, values = line_profile(make(phase), (start, end))
    assert distance[-1] == pytest.approx(45 * PIXEL_M)
    np.testing.assert_allclose(values[:34], 0.3 + 0.01 * np.arange(5, 39), rtol=1e-5)
    assert np.isnan(values[36:]).all()


def test_the_line_runs_where_there_is_something_to_see() -> None:
    phase = np.zeros((60, 80))
    phase[30] = np.sin(np.arange(80) / 2)
    area = np.zeros((60, 80), bool)
    area[10:50, 10:70] = True
    (x0, y0), (x1, y1) = most_varied_line(make(phase), area)
    assert (y0, y1) == pytest.approx((ORIGIN_M[1] + 30 * PIXEL_M,) * 2)
    assert (x0, x1) == pytest.approx((ORIGIN_M[0] + 10 * PIXEL_M, ORIGIN_M[0] + 69 * PIXEL_M))
    (x0, _), (x1, _) = most_varied_line(make(phase.T), area.T)
    assert x0 == x1 == pytest.approx(ORIGIN_M[0] + 30 * PIXEL_M)


def test_limits_are_never_empty() -> None:
    assert phase_limits(np.full((3, 3), np.nan)) == (-1.0, 1.0)
    assert phase_limits(np.full((3, 3), 2.0)) == (1.5, 2.5)
    low, high = phase_limits(np.concatenate([np.linspace(0, 1, 1000), [1e6, np.nan]]))
    assert 0 <= low < high < 1.1


@pytest.mark.slow
def test_reconstruction_figure(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    coverage = np.ones((90, 110), np.float32)
    coverage[:5] = 0
    reconstruction = Reconstruction(
        object=(0.9 * np.exp(1j * texture())).astype(np.complex64),
        probe=random.normal(size=(2, 32, 32)).astype(np.complex64),
        origin_m=ORIGIN_M,
        pixel_m=PIXEL_M,
        positions_m=np.zeros((3, 2)),
        errors=np.geomspace(0.3, 0.02, 12),
        coverage=coverage,
        scan_id="scan_7",
        engine="ePIE",
    )
    figure = reconstruction_figure(reconstruction)
    titles = [axes.get_title() for axes in figure.axes]
    assert "R factor 0.0200 after 12 iterations" in titles
    assert any(title.startswith("probe, mode") for title in titles)
    save_figure(figure, tmp_path / "reconstruction.png", dpi=50)
    assert imread(tmp_path / "reconstruction.png").std() > 0.1


@dataclass
class Epoch:
    number: int
    training_loss: float
    validation_loss: float
    learning_rate: float


@pytest.mark.slow
def test_training_figure_marks_the_best_epoch(tmp_path: Path) -> None:
    history = [Epoch(n, 1 / n, 0.1 + (n - 4) ** 2 / 50, 1e-3) for n in range(1, 8)]
    figure = training_figure(history)
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert "best: epoch 4" in labels
    save_figure(figure, tmp_path / "training.svg")
    assert (tmp_path / "training.svg").read_text().startswith("<?xml")


def test_a_figure_that_cannot_be_saved_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ScanFileError, match=r"figure\.png"):
        save_figure(Figure(), tmp_path / "file" / "figure.png")


@pytest.mark.slow
def test_pyplot_and_its_global_state_are_not_used() -> None:
    code = "import sys, ptychostream.quality.figures; print('matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("pixel_m", "unit"), [(4.65e-10, "nm"), (25e-9, "µm")])
def test_the_profile_of_a_small_image_is_in_nm(pixel_m: float, unit: str) -> None:
    image = make(texture())
    small = PhaseImage(image.phase, image.weight, (0.0, 0.0), pixel_m)
    figure = comparison_figure(small, small)
    assert f"along the dashed line ({unit})" in [axes.get_xlabel() for axes in figure.axes]
