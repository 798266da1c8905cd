"""How the positions lie on the detector is found from the patterns, and nothing is named where they do not tell."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from training_scans import small_scan

from ptychostream.cli.main import main
from ptychostream.positions.positions import AxisConfig
from ptychostream.reconstruct.orientation import Orientation, Tried, search_orientation, verdict
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_writer import write_scan


def as_sent(mirrored: bool, angle_deg: float) -> Scan:
    """A scan whose positions lie right after the orientation."""
    scan, truth = small_scan(frames=120, step_m=60e-9)
    x, y = AxisConfig(rotation_deg=-angle_deg).apply(*scan.positions_m.T)
    sent = np.stack([-x if mirrored else x, y], axis=1)
    return dataclasses.replace(scan, positions_m=sent, probe=truth.probe)


@pytest.mark.parametrize(("mirrored", "angle"), [(False, 0.0), (False, 90.0), (True, 0.0), (True, 90.0)])
def test_right_angles_are_found(mirrored: bool, angle: float) -> None:
    tried = search_orientation(as_sent(mirrored, angle))
    assert len(tried) == 4
    assert verdict(tried) == Orientation(mirrored, angle)


@pytest.mark.slow
@pytest.mark.parametrize(("mirrored", "angle"), [(False, 37.0), (True, 126.0)])
def test_any_angle_is_found_by_a_fine_step(mirrored: bool, angle: float) -> None:
    tried = search_orientation(as_sent(mirrored, angle), 10.0)
    found = verdict(tried)
    assert found is not None
    assert found.mirrored is mirrored
    assert found.angle_deg == pytest.approx(angle, abs=4)


def test_the_options_give_the_orientation_or_the_one_turned_by_180_degrees() -> None:
    options = {
        "": AxisConfig(),
        "--flip-x": AxisConfig(sign_x=-1),
        "--swap-xy --flip-x": AxisConfig(swap_xy=True, sign_x=-1),
        "--swap-xy": AxisConfig(swap_xy=True),
        "--position-rotation 30": AxisConfig(rotation_deg=30),
        "--flip-x --position-rotation 30": AxisConfig(sign_x=-1, rotation_deg=30),
    }
    for mirrored in (False, True):
        for angle in (0.0, 30.0, 90.0):
            orientation = Orientation(mirrored, angle)
            place = np.array(options[orientation.options].apply(1.0, 2.0))
            wanted = np.array(orientation.axes.apply(1.0, 2.0))
            assert np.allclose(place, wanted) or np.allclose(place, -wanted)


def test_nothing_is_named_without_a_lead() -> None:
    def tried(*explained: float) -> list[Tried]:
        angles = [Orientation(False, 0), Orientation(False, 10), Orientation(False, 90)]
        return [Tried(angle, 1 - one, one) for angle, one in zip(angles, explained, strict=True)]

    assert verdict(tried(0.7, 0.69, 0.4)) == Orientation(False, 0)  # its neighbour is no rival
    assert verdict(tried(0.7, 0.2, 0.6)) is None
    assert verdict(tried(-0.1, -0.2, -0.3)) is None


@pytest.mark.slow
def test_the_command_names_the_options_and_they_set_it_right(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "scan.h5")
    write_scan(path, as_sent(True, 90.0))
    assert main(["inspect", path, "--orientation", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["orientation"]
    assert found["options"] == "--swap-xy"
    assert next(one["mirrored"] for one in found["tried"]) is True
    assert main(["inspect", path, "--orientation"]) == 0
    assert "use --swap-xy, or what is turned by 180° from there" in capsys.readouterr().out
    assert main(["inspect", path, "--swap-xy", "--orientation"]) == 2
    assert "turned already" in capsys.readouterr().err
    assert main(["inspect", path, "--orientation", "200"]) == 2
    assert "give a step" in capsys.readouterr().err
    assert main(["inspect", "pva://some:Image", "--orientation"]) == 2
    assert "is about files" in capsys.readouterr().err
