"""Statements read from HDF5: a number with its `units`, a text, a flag, each with the path where it stands."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np

from ptychostream.errors import ScanFileError
from ptychostream.scans.scan_hdf5 import text, whole
from ptychostream.statements.description import Description
from ptychostream.statements.quantities import QUANTITIES
from ptychostream.statements.units import Dimension, factor, is_unit

_DIMENSIONS: dict[str, Dimension] = {"m": "length", "eV": "energy"}
_MOST_VALUES = 1 << 20
_RADIATIONS = dict.fromkeys(("x-ray", "photon", "visible light", "ultraviolet"), "photon") | {"electron": "electron"}


def state_number(said: Description, quantity: str, dataset: Any, default: str = "", *, where: str) -> None:
    """Add the number that `dataset` holds, in its own `units` or else in `default`. It may hold one for each frame.

    Nothing is added if there is no dataset, if it holds nothing, or if it holds a text that says that the value is
    not known, such as `undefined`.

    Raises
    ------
    ScanFileError
        The unit is unknown, or the dataset holds another text, or too many values.
    """
    if not isinstance(dataset, h5py.Dataset) or not dataset.size:
        return
    values = _numbers(dataset, where)
    if values is None:
        return
    dimension = _DIMENSIONS.get(QUANTITIES[quantity].unit)
    unit = unit_text(dataset, where)
    shown = unit if is_unit(unit) else f"{default} (no unit is written)" if default else ""
    scale = 1.0
    if dimension is not None:
        scale = factor(unit if is_unit(unit) else default, dimension, f"{where}: {dataset.name}")
    for index in differing(values, QUANTITIES[quantity].tolerance):
        place = f"{dataset.name}[{index}]" if values.size > 1 else str(dataset.name)
        said.state(quantity, float(values[index]) * scale, place, f"{values[index]:.8g} {shown}".strip())


def state_radiation(said: Description, dataset: Any) -> None:
    """Add the radiation that NXsource's `probe` names; an unknown name is kept, and refused by `radiation_of`."""
    probe = text(dataset)
    if is_unit(probe):
        said.state("radiation", _RADIATIONS.get(probe.strip().lower(), probe), str(dataset.name), probe)


def unit_text(dataset: h5py.Dataset, where: str, column: int | None = None) -> str:
    """What the attribute `units` says, or `unit`; empty if neither is there.

    Parameters
    ----------
    column
        Of a table that has a unit for each column, the one that is meant.

    Raises
    ------
    ScanFileError
        It says two units.
    """
    names = [name for name in dataset.attrs if str(name).lower() in ("units", "unit")]
    found = {text(one) for name in names for one in _of_column(np.atleast_1d(np.asarray(dataset.attrs[name])), column)}
    told = sorted(one for one in found if is_unit(one)) or sorted(found)
    if len(told) > 1:
        what = f"{dataset.name} says that it is in {' and in '.join(told)}"
        raise ScanFileError(what, where=where, remedy="write one unit for each column")
    return told[0] if told else ""


def _of_column(values: np.ndarray[Any, Any], column: int | None) -> list[Any]:
    return [values[column]] if column is not None and len(values) > 1 and column < len(values) else values.tolist()


def unit_of(dataset: h5py.Dataset, where: str, column: int | None = None) -> float | None:
    """The unit of a column of positions in metres, from its `units`. None if it says none. Raises UnitError."""
    unit = unit_text(dataset, where, column)
    return factor(unit, "length", f"{where}: {dataset.name}") if is_unit(unit) else None


def state_units(
    said: Description,
    x: h5py.Dataset,
    y: h5py.Dataset,
    where: str,
    columns: tuple[int | None, int | None] = (None, None),
) -> None:
    """Add what two columns of positions, or the `columns` of a table, say of their units. Raises UnitError."""
    for axis, dataset, column in zip("xy", (x, y), columns, strict=True):
        unit = unit_of(dataset, where, column)
        said.state(f"position_unit_{axis}", unit, str(dataset.name), unit_text(dataset, where, column))


def _numbers(dataset: h5py.Dataset, where: str) -> np.ndarray[Any, Any] | None:
    """[n] float64, or None if a text says that the value is unknown."""
    if dataset.dtype.kind in "biuf":
        if dataset.size > _MOST_VALUES:
            what = f"{dataset.name} has {dataset.size} values, where one is expected"
            raise ScanFileError(what, where=where, remedy="the file is damaged or of another layout")
        return np.atleast_1d(whole(dataset, where)).astype(np.float64).ravel()
    written = text(dataset)
    if not is_unit(written):
        return None
    try:
        return np.array([float(written)])
    except ValueError:
        what = f"{dataset.name} is the text {written!r}, where a number is expected"
        raise ScanFileError(what, where=where, remedy="store a number there") from None


def differing(values: np.ndarray[Any, Any], tolerance: float) -> list[int]:
    """Index 0, and that of the value which differs most from it, if it differs by more than the tolerance."""
    with np.errstate(invalid="ignore"):
        off = np.abs(values - values[0])
    off[~np.isfinite(values)] = np.inf
    far = int(np.argmax(off))
    return [0, far] if far and not off[far] <= tolerance * max(abs(values[0]), abs(values[far])) else [0]
