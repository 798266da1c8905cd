"""Read the layout of areaDetector's NDFileHDF5, with the additions of `ptychostream.scans.scan_layout`."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import NoPositionsError, ScanFileError
from ptychostream.scans.hdf5_statements import state_number, state_radiation, state_units
from ptychostream.scans.layouts.choosing import BOTH, chosen_frames
from ptychostream.scans.layouts.columns import named_columns
from ptychostream.scans.layouts.links import refuse_broken
from ptychostream.scans.layouts.raster import given_raster
from ptychostream.scans.layouts.region import state_pixel, state_region
from ptychostream.scans.layouts.times import EPICS_NANOSECONDS, EPICS_SECONDS, STAMP, frame_times
from ptychostream.scans.scan_hdf5 import checked_dataset, group, text, whole
from ptychostream.scans.scan_layout import DETECTOR_FIELDS, KEPT_APART, STATEMENTS
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description
from ptychostream.statements.units import is_unit
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES

DATA = ("entry/data/data", "entry/instrument/detector/data")
ATTRIBUTES = ("entry/instrument/NDAttributes", "entry/instrument/detector/NDAttributes")
POSITIONS = "entry/positions"
SCAN_ATTRIBUTE = "ScanID"
_MAX_COLUMNS_BYTES = 4 * MAX_PART_BYTES
_DETECTOR = "entry/instrument/detector"
_ENERGIES = ("beam/incident_energy", "monochromator/energy")
_WAVELENGTHS = ("beam/incident_wavelength", "monochromator/wavelength")
_STAMPS = ("NDArrayUniqueId", STAMP, EPICS_SECONDS, EPICS_NANOSECONDS)


def matches(file: h5py.File) -> bool:
    """Whether this file has patterns at the place that NDFileHDF5 uses."""
    return any(isinstance(file.get(path), h5py.Dataset) for path in DATA)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    path = next(path for path in DATA if isinstance(file.get(path), h5py.Dataset))
    source = checked_dataset(file[path], where)
    refuse_broken(file, _paths(options), where)
    columns = _columns(file, source.shape[:-2], where)
    said = Description(where)
    positions = _positions(file, columns, said, options, where)
    counts = chosen_frames(
        source,
        where,
        name=f"/{path}",
        pick=dict(options.pick),
        raster=options.scan_shape,
        places=None if positions is None else len(positions),
        transpose=options.transpose,
    )
    mask = group(file, _DETECTOR).get("pixel_mask")
    own = group(file, "entry/ptychostream")
    _state(said, file, source, columns, where)
    return ScanParts(
        obeys=BOTH,
        counts=counts,
        raw_positions=positions,
        said=said,
        bad_pixels=None if mask is None else whole(mask, where, "biuf") != 0,
        probe=whole(own["probe"], where, "iufc").astype(np.complex64) if "probe" in own else None,
        frame_ids=columns["NDArrayUniqueId"].astype(np.int64) if "NDArrayUniqueId" in columns else None,
        times=frame_times(columns, _epoch(file), said, ATTRIBUTES[0]),
        metadata=_metadata(own, columns, options, said, where),
    )


def _paths(options: ScanOptions) -> list[str]:
    """The places that are read, but for those that an option replaces."""
    paths = [f"{_DETECTOR}/pixel_mask", "entry/instrument/source/probe"]
    if options.energy_ev is None:
        paths += [f"entry/instrument/{path}" for path in (*_ENERGIES, *_WAVELENGTHS)]
    if options.distance_m is None:
        paths.append(f"{_DETECTOR}/distance")
    if options.detector_pixel_m is None:
        paths += [f"{_DETECTOR}/{axis}_pixel_size" for axis in "xy"]
    columns = [*_STAMPS] if options.route is not None else [*_STAMPS, options.x_name, options.y_name]
    paths += [f"{path}/{name}" for path in ATTRIBUTES for name in columns]
    return paths if options.route is not None else [*paths, POSITIONS]


def _state(
    said: Description, file: h5py.File, counts: h5py.Dataset, columns: dict[str, NDArray[Any]], where: str
) -> None:
    """Add what the file says of the beam, the detector and the scan's name."""
    instrument = "entry/instrument"
    for path in _ENERGIES:
        state_number(said, "energy", file.get(f"{instrument}/{path}"), "eV", where=where)
    for path in _WAVELENGTHS:
        state_number(said, "wavelength", file.get(f"{instrument}/{path}"), "angstrom", where=where)
    detector = group(file, _DETECTOR)
    state_number(said, "distance", detector.get("distance"), "m", where=where)
    state_region(said, counts, columns, f"/{ATTRIBUTES[0]}")
    state_pixel(said, detector, where)
    for quantity, name in DETECTOR_FIELDS.items():
        state_number(said, quantity, detector.get(name), where=where)
    _state_table(said, group(file, "entry/ptychostream").get(STATEMENTS), where)
    state_radiation(said, file.get(f"{instrument}/source/probe"))
    said.state("scan_id", text(file.get("entry/entry_identifier")) or None, "/entry/entry_identifier")
    if not said.about("scan_id"):
        _state_scan_attribute(said, columns)


def _state_table(said: Description, table: Any, where: str) -> None:
    """Add what stands in no other place of our recordings than in their table of statements."""
    for row in _rows(table, where):
        if (
            isinstance(row, dict)
            and row.get("quantity") in KEPT_APART
            and isinstance(row.get("value"), (int, float, str))
        ):
            said.state(row["quantity"], row["value"], f"{table.name} ({row.get('where', '')})")


def _rows(table: Any, where: str) -> list[Any]:
    try:
        rows = json.loads(text(table) or "[]")
    except (ValueError, RecursionError) as error:
        raise ScanFileError(f"{table.name}: {error}", where=where, remedy="copy the file again") from error
    return rows if isinstance(rows, list) else []


def _state_scan_attribute(said: Description, columns: dict[str, NDArray[Any]]) -> None:
    """Add the scan id that the frames name in their attribute `ScanID`, and the first other one if there is one."""
    values = columns.get(SCAN_ATTRIBUTE, np.empty(0))
    names = ["" if value is None else _scan_name(text(value)) for value in values.tolist()]
    for name in list(dict.fromkeys(name for name in names if is_unit(name)))[:2]:
        said.state("scan_id", name, f"attribute {SCAN_ATTRIBUTE} of frame {names.index(name)}")


def _scan_name(value: str) -> str:
    """The name of a scan from its number or text: `247.0` is `247`."""
    whole_number, point, zeros = value.partition(".")
    return whole_number if point and whole_number.lstrip("-").isdigit() and not zeros.strip("0") else value.strip()


def _columns(file: h5py.File, outer: tuple[int, ...], where: str) -> dict[str, NDArray[Any]]:
    """All NDAttributes with one value per frame: [N], [N, 1], or the axes `outer` of the frames, flattened."""
    columns: dict[str, NDArray[Any]] = {}
    held = 0
    for path in ATTRIBUTES:
        for key, dataset in group(file, path).items():
            name = str(key)  # a name that is no text comes as bytes
            if isinstance(dataset, h5py.Dataset) and _is_column(dataset, outer) and name not in columns:
                held += dataset.nbytes
                if held > _MAX_COLUMNS_BYTES:
                    what = f"NDAttributes announce more than {_MAX_COLUMNS_BYTES >> 20} MiB"
                    raise ScanFileError(what, where=where, remedy="the file is damaged; copy it again")
                columns[name] = whole(dataset, where).ravel()
    return columns


def _is_column(dataset: h5py.Dataset, outer: tuple[int, ...]) -> bool:
    return (
        dataset.ndim == 1
        or (dataset.ndim == 2 and dataset.shape[1] == 1)
        or (dataset.ndim > 0 and dataset.shape == outer)
    )


def _attribute(file: h5py.File, name: str) -> h5py.Dataset:
    """The data set of an NDAttribute that `_columns` has found."""
    return next(file[path][name] for path in ATTRIBUTES if name in group(file, path))


def _positions(
    file: h5py.File, columns: dict[str, NDArray[Any]], said: Description, options: ScanOptions, where: str
) -> NDArray[Any] | None:
    if options.route is not None:
        return None
    names = (options.x_name, options.y_name)
    if all(name in columns for name in names):
        x, y = (_numbers(columns[name], name, where) for name in names)
        if len(x) != len(y):
            raise ScanFileError(
                f"{names[0]} has {len(x)} values but {names[1]} {len(y)}", where=where, remedy="record the scan again"
            )
        state_units(said, _attribute(file, names[0]), _attribute(file, names[1]), where)
        return np.stack([x, y], axis=1).astype(np.float64)
    if (elsewhere := named_columns(file, names, said, where)) is not None:
        return elsewhere
    dataset = file.get(POSITIONS)
    if isinstance(dataset, h5py.Dataset):
        state_units(said, dataset, dataset, where)
        return whole(dataset, where, "iuf")
    if (raster := given_raster(options, said)) is not None:
        return raster
    known = ", ".join(sorted(columns)) or "none"
    raise NoPositionsError(
        f"no positions: neither NDAttributes {names[0]} and {names[1]} nor /{POSITIONS}",
        where=where,
        remedy=f"name the two attributes with --x-name and --y-name (the file has: {known}), give a route file "
        "(--route), or a raster with --scan-shape and --scan-step-m",
    )


def _numbers(column: NDArray[Any], name: str, where: str) -> NDArray[np.float64]:
    """[N] positions. Numbers that are stored as texts are read. Raises ScanFileError for other texts."""
    if column.dtype.kind in "iuf":
        return column.astype(np.float64)
    try:
        return np.array([float(text(value)) for value in column])
    except ValueError:
        words = [text(value) for value in column]
        wrong = next(index for index, word in enumerate(words) if not _is_number(word))
        what = f"attribute {name} is the text {words[wrong]!r} for frame {wrong}, where a position is expected"
        remedy = "the PV behind this attribute was not connected, or is no number; give other attributes with --x-name "
        raise NoPositionsError(what, where=where, remedy=f"{remedy}and --y-name, or a route file (--route)") from None


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _epoch(file: h5py.File) -> str:
    """The attribute `epoch` of the time stamps; empty if there is none."""
    stamps = next((group(file, path)[STAMP] for path in ATTRIBUTES if STAMP in group(file, path)), None)
    return "" if stamps is None else text(stamps.attrs.get("epoch"))


def _metadata(
    own: Any, columns: dict[str, NDArray[Any]], options: ScanOptions, said: Description, where: str
) -> dict[str, Any]:
    """The metadata that our writer stored, and every NDAttribute that is not part of `Scan`."""
    metadata: dict[str, Any] = {}
    if "metadata" in own:
        try:
            metadata = dict(json.loads(text(own["metadata"])))
        except (ValueError, TypeError, RecursionError) as error:
            raise ScanFileError(
                f"/entry/ptychostream/metadata: {error}", where=where, remedy="copy the file again"
            ) from error
    metadata.update(
        {str(name): whole(own[name], where) for name in own if name not in ("metadata", "probe", STATEMENTS)}
    )
    told = {options.x_name, options.y_name, *_STAMPS}
    if said.value("epoch") == "unknown":
        told -= {STAMP}
    attributes = {name: values for name, values in columns.items() if name not in told}
    if attributes:
        metadata["attributes"] = attributes
    return metadata
