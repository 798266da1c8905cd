"""The arguments of every command that opens a scan file become ScanOptions."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from ptychostream.cli.parts.scan_arguments import add_scan_arguments, scan_options
from ptychostream.errors import ConfigError
from ptychostream.scans.scan_files import ScanOptions


def options(*words: str) -> ScanOptions:
    parser = argparse.ArgumentParser()
    add_scan_arguments(parser)
    return scan_options(parser.parse_args(words))


def test_nothing_given_is_nothing_replaced() -> None:
    assert options() == ScanOptions()


def test_patterns_axes_and_columns() -> None:
    found = options(
        *("--data", "exchange/data", "--pick", "1=0", "--pick", "4=2", "--transpose", "--scan-shape", "13", "37"),
        *(
            "--scan-step-m",
            "1e-7",
            "2e-7",
            "--scan-rotation-deg",
            "-126",
            "--route",
            "r.h5",
            "--route-columns",
            "a, b,n",
        ),
    )
    assert found == ScanOptions(
        data="exchange/data", pick=((1, 0), (4, 2)), transpose=True, scan_shape=(13, 37), scan_step_m=(1e-7, 2e-7),
        scan_rotation_deg=-126.0, route=Path("r.h5"), route_columns=("a", "b", "n"),
    )  # fmt: skip


def test_a_turned_axis_gives_no_unit() -> None:
    turned = options("--flip-x").axes
    assert turned is not None
    assert turned.sign_x == -1
    assert "unit" not in turned.model_fields_set


@pytest.mark.parametrize(
    "words",
    [("--pick", "1"), ("--pick", "a=0"), ("--pick", "1=-1"), ("--route-columns", "x"), ("--route-columns", "x,,y")],
)
def test_what_cannot_be_meant(words: tuple[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        options(*words)
    assert caught.value.where == words[0]
