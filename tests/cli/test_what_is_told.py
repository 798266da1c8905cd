"""What commands tell: progress where nobody looks at a terminal, a reconstruction in words, the frames of an area."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from ptychostream.cli.infer import frames_within
from ptychostream.cli.parts.progress import Told
from ptychostream.cli.parts.reconstruction_words import in_words
from ptychostream.errors import ConfigError
from ptychostream.scans.scan import Reconstruction, Scan


def written(every_s: float) -> list[str]:
    file = io.StringIO()
    with Told(Console(file=file), "reading", 4, every_s) as progress:
        progress.update(0)
        for part in range(1, 5):
            progress.update(part, f"R 0.{part}")
    return file.getvalue().splitlines()


def test_a_file_gets_lines() -> None:
    assert written(0.0) == ["reading: 0 of 4", *(f"R 0.{part}: {part} of 4" for part in range(1, 5))]


def test_a_file_is_not_filled() -> None:
    assert written(3600.0) == ["R 0.4: 4 of 4"]


@pytest.mark.parametrize(("row", "remarked"), [(0.4, False), (2.0, False), (-22.0, True)])
def test_a_centre_far_off_is_remarked(row: float, remarked: bool) -> None:
    probe, flat = np.ones((1, 64, 64), np.complex64), np.ones((80, 80))
    made = {
        "empty_r_factor": 0.1, "noise_r_factor": 0.02, "energy_ev": 300e3, "radiation": "electron",
        "options": {"object_step": 0.1}, "counts_a_pixel": 9.0, "defocus_m": -1.24e-5, "centre_off_px": [row, 0.3],
    }  # fmt: skip
    lines = in_words(
        Reconstruction(
            flat.astype(np.complex64), probe, (0.0, 0.0), 4.65e-10, np.zeros((4, 2)), np.array([0.03]),
            flat.astype(np.float32), provenance=made,
        )
    )  # fmt: skip
    assert "70.00% of the patterns' variation is explained, 80.00% lies beyond the noise" in lines[0]
    assert lines[1] == "300 kV electrons, wavelength 1.969 pm, object pixel 4.65 Å"
    assert lines[2] == "9 counts a pixel, object step 0.1, defocus of the first probe -12.4 µm"
    assert any("-22.0 rows and +0.3 columns off" in line for line in lines) is remarked


def test_the_frames_of_an_area() -> None:
    places = np.array([[0.0, 0.0], [1e-6, 2e-6], [3e-6, 2e-6], [np.nan, 0.0]])
    scan = Scan("s", np.zeros((4, 2, 2)), places, 1e4, 1.0, 1e-4)
    assert frames_within(scan, [5e-6, 5e-6, 0.5e-6, 1e-6]).tolist() == [1, 2]
    with pytest.raises(ConfigError, match=r"--area.*\(3e-06, 2e-06\) m"):
        frames_within(scan, [1.0, 1.0, 2.0, 2.0])
