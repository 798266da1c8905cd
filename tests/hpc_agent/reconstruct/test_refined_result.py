"""The edge's refined result is taken as a scan's reconstruction only where it is one, and says why it is not."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refine_case import SIZE, Case, case

from ptychostream.errors import ScanFileError
from ptychostream.hpc_agent.reconstruct.refined import RefinedLimits, RefusedError, take_refined
from ptychostream.hpc_agent.steps.step_parts import source_of
from ptychostream.reconstruct.soundness import SoundnessLimits
from ptychostream.scans.reconstruction_file import write_reconstruction
from ptychostream.scans.scan import Reconstruction, Scan


@cache
def refined(step_m: float = 150e-9, frames: int = 120, passes: int = 100) -> Reconstruction:
    """What the edge saves of a case."""
    one = case(step_m, frames)
    refiner = one.refiner()
    good = np.ones((SIZE, SIZE), np.bool_)
    for counts, place in zip(one.scan.counts, one.scan.positions_m, strict=True):
        refiner.add(counts, good, (float(place[0]), float(place[1])))
    refiner.guide(one.network)
    refiner.passes(passes)
    told = {"converged": refiner.converged, "passes": refiner.figures().passes, "saved_s": 1e9}
    return refiner.reconstruction(one.scan.scan_id, told)


def taken(
    folder: Path, made: Reconstruction, scan: Scan | None = None, limits: RefinedLimits | None = None
) -> Reconstruction:
    write_reconstruction(folder / "refined.h5", made)
    one: Case = case()
    return take_refined(scan or one.scan, folder / "refined.h5", limits or RefinedLimits(), SoundnessLimits())


def told(made: Reconstruction, **changes: Any) -> Reconstruction:
    return replace(made, provenance={**made.provenance, **changes})


def test_a_sound_result_is_taken_and_covers_every_patch(tmp_path: Path) -> None:
    one, edge = case(), refined()
    made = taken(tmp_path, edge)
    np.testing.assert_array_equal(made.frames, np.arange(120))
    np.testing.assert_array_equal(made.positions_m, one.scan.positions_m)
    assert one.ssim(made.phase_image()) == pytest.approx(one.ssim(edge.phase_image()), abs=1e-3)
    first = np.rint((made.positions_m - made.origin_m) / made.pixel_m)[:, ::-1] - SIZE // 2
    assert (first >= 2).all() and (first + SIZE + 2 <= made.object.shape).all(), "a label would leave the object"
    assert made.residuals is not None and made.residuals.shape == (120,)
    assert made.provenance["own_r_factor"] == pytest.approx(edge.r_factor, rel=0.3)
    assert 0 < made.provenance["noise_r_factor"] < 0.01
    assert 0.5 < made.provenance["explained"] < 1
    outside = made.object[made.coverage == 0]
    assert outside.size and np.ptp(np.angle(outside)) == 0


def test_what_is_not_the_scan_s_is_refused(tmp_path: Path) -> None:
    edge, scan = refined(), case().scan
    moved = replace(edge, positions_m=edge.positions_m + np.array([3 * edge.pixel_m, 0]))
    half = replace(edge, positions_m=edge.positions_m[::2], residuals=None)
    cases: list[tuple[Reconstruction, str]] = [
        (replace(edge, scan_id="another"), "of scan 'another'"),
        (replace(edge, engine="epie"), "not by the edge"),
        (told(edge, converged=False), "not converged"),
        (told(edge, passes_of_all=None), "how many passes"),
        (replace(edge, pixel_m=1.01 * edge.pixel_m), "another energy"),
        (replace(edge, probe=edge.probe[:, :16, :16]), "its probe has"),
        (moved, "pixels away"),
        (half, "60 of 120 frames"),
        (replace(edge, errors=np.full_like(edge.errors, 0.5)), "more than 0.3 is left"),
        (replace(edge, errors=np.full_like(edge.errors, np.nan)), "not a number"),
        (replace(edge, errors=np.full_like(edge.errors, 0.29)), "an empty object has"),
        (replace(edge, errors=np.append(edge.errors, [0.2, 0.2, 0.2])), "how many passes|rose again"),
        (replace(edge, object=np.ones_like(edge.object)), "flat"),
        (replace(edge, object=edge.object * np.complex64(np.nan)), "finite"),
        (replace(edge, object=edge.object[::-1].copy(), coverage=edge.coverage[::-1].copy()), "own patterns"),
    ]
    for spoiled, why in cases:
        with pytest.raises(RefusedError, match=why):
            taken(tmp_path, spoiled)
    brighter = replace(scan, counts=scan.counts * 4)
    with pytest.raises(RefusedError, match="own patterns"):
        taken(tmp_path, edge, brighter)
    nowhere = replace(scan, positions_m=np.full_like(scan.positions_m, np.nan))
    with pytest.raises(RefusedError, match="no positions"):
        taken(tmp_path, edge, nowhere)
    (tmp_path / "refined.h5").write_bytes(b"cut")
    with pytest.raises(ScanFileError):
        take_refined(scan, tmp_path / "refined.h5", RefinedLimits(), SoundnessLimits())


def test_a_result_from_before_the_scan_is_refused(tmp_path: Path) -> None:
    edge, scan = refined(), case().scan
    later = replace(scan, times=1e9 + 3600 + np.arange(len(scan)))
    with pytest.raises(RefusedError, match="older than the scan"):
        taken(tmp_path, edge, later)
    assert taken(tmp_path, edge, replace(scan, times=1e9 - 3600 + np.arange(len(scan)))).engine == "refined live"
    undated = replace(scan, times=None)
    (tmp_path / "scan.h5").write_bytes(b"")
    path = tmp_path / "refined.h5"
    os.utime(path, (1e9, 1e9))
    with pytest.raises(RefusedError, match="older than the scan"):
        take_refined(undated, path, RefinedLimits(), SoundnessLimits(), tmp_path / "scan.h5")


def test_corrected_positions_are_taken_where_the_given_ones_are_the_scan_s(tmp_path: Path) -> None:
    one, edge = case(), refined()
    error = np.random.default_rng(0).normal(0, 2 * edge.pixel_m, edge.positions_m.shape)
    wrong = replace(one.scan, positions_m=one.scan.positions_m + error)
    corrected = replace(edge, given_m=wrong.positions_m, frames=None)
    made = taken(tmp_path, corrected, wrong)
    np.testing.assert_array_equal(made.frames, np.arange(120))
    np.testing.assert_array_equal(made.positions_m, edge.positions_m)
    assert made.given_m is not None
    np.testing.assert_array_equal(made.given_m, wrong.positions_m)
    assert made.provenance["own_r_factor"] == pytest.approx(edge.r_factor, rel=0.3)
    first = np.rint((made.positions_m - made.origin_m) / made.pixel_m)[:, ::-1] - SIZE // 2
    assert (first >= 2).all() and (first + SIZE + 2 <= made.object.shape).all(), "a label would leave the object"
    pair = source_of(wrong, made)
    np.testing.assert_array_equal(pair.reconstruction.positions_m, edge.positions_m)
    with pytest.raises(RefusedError, match="away from every position"):
        taken(tmp_path, corrected, replace(wrong, positions_m=wrong.positions_m + 3 * edge.pixel_m * np.array([0, 5])))
    far = edge.positions_m.copy()
    far[7] += 8 * edge.pixel_m
    with pytest.raises(RefusedError, match="further than 7"):
        taken(tmp_path, replace(edge, given_m=far), wrong)


def test_without_overlap_the_network_s_own_error_stays_and_the_result_is_refused(tmp_path: Path) -> None:
    """A picture whose frames hardly overlap is the network's, sharpened: the network would learn from itself."""
    sparse = case(400e-9, 60)
    edge = told(refined(400e-9, 60), converged=True)
    with pytest.raises(RefusedError, match=r"share .* of the illumination.*: the network's own error"):
        taken(tmp_path, edge, sparse.scan)
    loose = SoundnessLimits(overlap=0)
    limits = RefinedLimits(shared=0.0)
    assert take_refined(sparse.scan, tmp_path / "refined.h5", limits, loose).provenance["shared"] < 0.5
