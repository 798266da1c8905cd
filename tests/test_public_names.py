"""The names that `ptychostream` exports: all are there, cheap until they are used, and known to type checkers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ptychostream


@pytest.mark.parametrize("name", ptychostream.__all__)
def test_a_public_name_is_there_and_documented(name: str) -> None:
    value = getattr(ptychostream, name)
    if not isinstance(value, str):
        assert (value.__doc__ or "").strip()
        assert value.__module__.startswith("ptychostream.")
    assert name in dir(ptychostream)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ptychostream.nothing  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(ImportError):
        exec("from ptychostream import nothing")


@pytest.mark.slow
def test_importing_the_package_loads_nothing_and_the_library_neither_epics_nor_torch() -> None:
    code = (
        "import __future__, sys; before = set(sys.modules); import ptychostream; new = set(sys.modules) - before\n"
        "assert new == {'ptychostream'}, new\n"
        "from ptychostream import *\n"
        "bad = {'torch', 'pvaccess', 'softioc', 'epicscorelibs', 'p4p', 'caproto'} & set(sys.modules)\n"
        "assert not bad, bad\n"
        "print(open_scan.__name__, reconstruct_scan.__module__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "open_scan ptychostream.reconstruct.run\n", done.stderr


def test_a_script_stitches_saves_and_reads_by_public_names_alone(tmp_path: Path) -> None:
    from ptychostream import Canvas, GeometryError, compare, read_phase_image, write_phase_image

    canvas = Canvas(10e-9, np.ones((32, 32), np.float32))
    rows, columns = np.mgrid[:64, :64]
    phase = (np.sin(rows / 5) * np.cos(columns / 7)).astype(np.float32)
    for row, column in ((0, 0), (0, 32), (32, 0), (32, 32)):
        canvas.add(phase[row : row + 32, column : column + 32], (column + 16) * 10e-9, (row + 16) * 10e-9)
    write_phase_image(tmp_path / "phase.h5", canvas.image())
    image = read_phase_image(tmp_path / "phase.h5")
    assert image.phase.shape == (64, 64)
    assert compare(image, canvas.image()).ssim > 0.999
    with pytest.raises(GeometryError, match="pixel size"):
        Canvas(-1.0, np.ones((2, 2)))
