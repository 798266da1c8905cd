"""Cases of `docs/reference/what-files-say.md` in which values are no measurement: the object is found all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from training_scans import small_scan

from ptychostream.errors import ScanFileError
from ptychostream.frames.survey import survey
from ptychostream.imaging.phase_image import PhaseImage
from ptychostream.quality.mask_figure import mask_figure
from ptychostream.quality.quality import compare
from ptychostream.reconstruct.options import ReconstructOptions
from ptychostream.reconstruct.patterns import BAD, Patterns
from ptychostream.reconstruct.run import reconstruct
from ptychostream.scans.inspection import inspect_scan
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_files import ScanOptions, open_scan
from ptychostream.scans.scan_writer import write_scan

CLEAN, TRUTH = small_scan(dose=3e5)
GOOD = ~CLEAN.bad_pixels
SIZE = GOOD.shape[0]


def counts_as(dtype: str) -> NDArray[np.integer]:
    """The counts without the marks of the simulation."""
    return np.where(GOOD, CLEAN.counts, 0).astype(dtype)


def likeness(scan: Scan) -> float:
    """Pearson's r of the reconstructed phase with the truth, after a few iterations from the true probe."""
    made = reconstruct(replace(scan, probe=TRUTH.probe), ReconstructOptions(engine="epie", iterations=8))
    truth = TRUTH.phase_image()
    return compare(made.phase_image(), PhaseImage(truth.phase, truth.weight, truth.origin_m, truth.pixel_m)).pearson


def eiger() -> Scan:
    """ADEiger#71: a gap at 2³²−1, dead pixels at 2³²−2, and 65535 from a read-out of 16 bits."""
    counts = counts_as("uint32")
    counts[:, 7:9], counts[:, 20, 20:23], counts[:, 12, 3], counts[:, 25, 17] = 2**32 - 1, 2**32 - 2, 65535, 65535
    return replace(CLEAN, counts=counts, bad_pixels=None)


def pilatus() -> Scan:
    """−1 in gaps, −2 at dead pixels."""
    counts = counts_as("int32")
    counts[:, 7:9], counts[:, 20, 20:23] = -1, -2
    return replace(CLEAN, counts=counts, bad_pixels=None)


def other_value() -> Scan:
    """A mark that nobody announced (ptychodus#57: gaps as MAXINT or NaN; here 38086, a count-rate cut-off)."""
    counts = counts_as("uint16")
    counts[:, :, 9:11] = 38086
    return replace(CLEAN, counts=counts, bad_pixels=None)


def bright_frames() -> Scan:
    """fold_slice#82: a detector that goes crazy in a few frames."""
    counts = counts_as("uint32")
    counts[[5, 33, 61]] *= 300
    return replace(CLEAN, counts=counts)


def empty_frames() -> Scan:
    """fold_slice#70, eiger2cbf#9: some frames are empty, others hold a few counts of noise."""
    counts = counts_as("uint16")
    counts[[3, 44]] = 0
    counts[[17, 18]] = np.random.default_rng(0).poisson(0.02, (2, SIZE, SIZE))
    return replace(CLEAN, counts=counts)


CASES: dict[str, tuple[Callable[[], Scan], int, int]] = {
    "eiger": (eiger, 2 * SIZE + 5, 0),
    "pilatus": (pilatus, 2 * SIZE + 3, 0),
    "other value": (other_value, 2 * SIZE, 0),
    "bright frames": (bright_frames, 2, 3),
    "empty frames": (empty_frames, 2, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", sorted(CASES))
def test_the_object_is_found_and_what_was_left_out_is_said(case: str) -> None:
    make, pixels, frames = CASES[case]
    scan = make()
    made = reconstruct(replace(scan, probe=TRUTH.probe), ReconstructOptions(engine="epie", iterations=8))
    assert compare(made.phase_image(), TRUTH.phase_image()).pearson > 0.9 * likeness(CLEAN)
    assert made.provenance["pixels"]["bad_pixels"] == pixels
    assert made.provenance["frames_without_counts"] + made.provenance["frames_too_bright"] == frames
    assert len(made.positions_m) == len(scan) - frames


@pytest.mark.slow
def test_a_detector_of_fewer_bits_than_its_type(tmp_path: Path) -> None:
    """jwst#5394, legacypipe#627: pixels pegged below the type's maximum, and nobody names the level."""
    level = int(np.quantile(counts_as("int64")[:, GOOD], 0.97))
    counts = np.minimum(counts_as("uint16"), level)
    path = tmp_path / "scan.h5"
    write_scan(path, replace(CLEAN, counts=counts))
    with open_scan(path) as scan:
        assert survey(scan).proposed == level
        figure = mask_figure(survey(scan), "pegged")
        shown = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
        assert any(text.startswith("at the shared maximum") and " 0 pixels" not in text for text in shown)
    with open_scan(path, ScanOptions(saturation=level)) as scan:
        found = survey(scan)
        assert (found.saturation, found.proposed) == (level, None)
        pegged = np.fft.ifftshift(counts >= level, axes=(1, 2)) | np.fft.ifftshift(~GOOD)
        np.testing.assert_array_equal(Patterns.read(scan).amplitudes == BAD, pegged)
        assert likeness(replace(scan, counts=scan.counts[:])) > 0.85
    with open_scan(path, ScanOptions(saturation=10 * level)) as scan:
        assert survey(scan).saturation == 10 * level


def test_the_sense_of_a_mask_can_be_given(tmp_path: Path) -> None:
    """silx#3217, pyFAI#10: programs of one institute write masks of either sense."""
    path = tmp_path / "scan.h5"
    write_scan(path, replace(CLEAN, bad_pixels=GOOD))
    with pytest.raises(ScanFileError, match="--mask-sense good"), open_scan(path):
        pass
    seen = inspect_scan(path)
    assert seen.error is not None
    assert "of the pixels bad" in str(seen.error)
    with open_scan(path, ScanOptions(mask_sense="good")) as scan:
        np.testing.assert_array_equal(survey(scan).bad_pixels, ~GOOD)
