"""Read the layout of areaDetector's NDFileHDF5, with the additions of `ptychostream.scans.scan_layout`."""

from __future__ import annotations

import json
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import NoPositionsError, ScanFileError
from ptychostream.frames.scan_id import id_text
from ptychostream.scans.hdf5_mask import read_mask
from ptychostream.scans.hdf5_statements import state_number, state_radiation, state_units, unit_of
from ptychostream.scans.layouts.choosing import BOTH, chosen_frames
from ptychostream.scans.layouts.columns import Walk, named_columns, read_places
from ptychostream.scans.layouts.links import at, refuse_broken
from ptychostream.scans.layouts.matlab import is_matlab
from ptychostream.scans.layouts.raster import given_raster
from ptychostream.scans.layouts.region import state_pixel, state_region
from ptychostream.scans.layouts.rivals import nexus_patterns, refuse_unequal, same_object
from ptychostream.scans.layouts.times import EPICS_NANOSECONDS, EPICS_SECONDS, STAMP, frame_times
from ptychostream.scans.scan_hdf5 import checked_dataset, group, text, whole
from ptychostream.scans.scan_layout import DETECTOR_FIELDS, KEPT_APART, STATEMENTS
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description
from ptychostream.statements.units import is_unit
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES

DATA = ("entry/data/data", "entry/instrument/detector/data")
SCAN_ATTRIBUTE = "ScanID"
_MAX_COLUMNS_BYTES = 4 * MAX_PART_BYTES
_ENERGIES = ("beam/incident_energy", "monochromator/energy")
_WAVELENGTHS = ("beam/incident_wavelength", "monochromator/wavelength")
_IDS = "NDArrayUniqueId"
_EXCHANGE = (
    ("energy", "measurement/instrument/monochromator/energy"),
    ("distance", "measurement/instrument/detector/distance"),
    ("detector_pixel_x", "measurement/instrument/detector/pixel_size_x"),
    ("detector_pixel_y", "measurement/instrument/detector/pixel_size_y"),
)
_STAMPS = (_IDS, STAMP, EPICS_SECONDS, EPICS_NANOSECONDS)


class Places:
    """Where a NeXus file has what belongs to an array of patterns.

    Attributes
    ----------
    entry, instrument, detector, positions
        Paths. The entry is that of the patterns, the detector the one whose patterns they are.
    attributes
        Paths of the groups that may hold NDAttributes.
    """

    def __init__(self, file: h5py.File, source: h5py.Dataset) -> None:
        top = str(source.name).strip("/").partition("/")[0]
        self.entry = top if isinstance(at(file, f"{top}/instrument"), h5py.Group) else "entry"
        self.instrument = f"{self.entry}/instrument"
        self.detector = f"{self.instrument}/{self._detector(file, source)}"
        self.attributes = (f"{self.instrument}/NDAttributes", f"{self.detector}/NDAttributes")
        self.positions = f"{self.entry}/positions"

    def _detector(self, file: h5py.File, source: h5py.Dataset) -> str:
        for name in at(file, self.instrument) or ():
            own = at(file, f"{self.instrument}/{name}/data")
            if name != "detector" and isinstance(own, h5py.Dataset) and same_object(own, source):
                return str(name)
        return "detector"


def matches(file: h5py.File) -> bool:
    """Whether this file has patterns at the place that NDFileHDF5 uses."""
    return any(isinstance(at(file, path), h5py.Dataset) for path in DATA)


def read_parts(file: h5py.File, options: ScanOptions, where: str) -> ScanParts:
    """Read the layout. The counts stay on disk. Raises ScanFileError."""
    refuse_broken(file, (path for path in DATA if at(file, path) is None), where)
    return read_around(file, file[nexus_patterns(file, where)], options, where)


def read_around(file: h5py.File, source: h5py.Dataset, options: ScanOptions, where: str) -> ScanParts:
    """Read all that a file says beside the patterns `source`, at the places of NeXus and of NDFileHDF5.

    Whoever chose the patterns, the layout or the user, the same is read. Raises ScanFileError.
    """
    source = checked_dataset(source, where)
    places = Places(file, source)
    refuse_broken(file, _paths(places, options), where)
    columns = _columns(file, places, source.shape[:-2], where)
    said = Description(where)
    positions = _positions(file, places, columns, said, options, where)
    counts = chosen_frames(
        source,
        where,
        name=str(source.name),
        pick=dict(options.pick),
        raster=options.scan_shape,
        places=None if positions is None else len(positions),
        transpose=is_matlab(source) or options.transpose,
    )
    own = group(file, f"{places.entry}/ptychostream")
    _state(said, file, places, source, columns, where)
    return ScanParts(
        obeys=BOTH,
        counts=counts,
        raw_positions=positions,
        said=said,
        bad_pixels=read_mask(group(file, places.detector).get("pixel_mask"), where),
        probe=whole(own["probe"], where, "iufc").astype(np.complex64) if "probe" in own else None,
        frame_ids=columns[_IDS] if _IDS in columns else _ids_elsewhere(file, len(counts), where),
        times=frame_times(columns, _epoch(file, places), said, places.attributes[0]),
        metadata=_metadata(own, columns, options, said, where),
    )


def _paths(places: Places, options: ScanOptions) -> list[str]:
    """The places that are read, but for those that an option replaces."""
    paths = [f"{places.detector}/pixel_mask", f"{places.instrument}/source/probe"]
    if options.energy_ev is None:
        paths += [f"{places.instrument}/{path}" for path in (*_ENERGIES, *_WAVELENGTHS)]
    if options.distance_m is None:
        paths.append(f"{places.detector}/distance")
    if options.detector_pixel_m is None:
        paths += [f"{places.detector}/{axis}_pixel_size" for axis in "xy"]
    columns = [*_STAMPS] if options.route is not None else [*_STAMPS, options.x_name, options.y_name]
    paths += [f"{path}/{name}" for path in places.attributes for name in columns]
    return paths if options.route is not None else [*paths, places.positions]


def _state(
    said: Description,
    file: h5py.File,
    places: Places,
    source: h5py.Dataset,
    columns: dict[str, NDArray[Any]],
    where: str,
) -> None:
    """Add what the file says of the beam, the detector and the scan's name."""
    for path in _ENERGIES:
        state_number(said, "energy", at(file, f"{places.instrument}/{path}"), "eV", where=where)
    for path in _WAVELENGTHS:
        state_number(said, "wavelength", at(file, f"{places.instrument}/{path}"), "angstrom", where=where)
    detector = group(file, places.detector)
    state_number(said, "distance", at(file, f"{places.detector}/distance"), "m", where=where)
    state_region(said, source, columns, f"/{places.attributes[0]}", where)
    state_pixel(said, detector, where)
    for quantity, name in DETECTOR_FIELDS.items():
        state_number(said, quantity, detector.get(name), where=where)
    _state_exchange(said, file, where)
    _state_table(said, group(file, f"{places.entry}/ptychostream").get(STATEMENTS), where)
    state_radiation(said, at(file, f"{places.instrument}/source/probe"))
    _state_scan(said, at(file, f"{places.entry}/entry_identifier"), columns)


def _state_exchange(said: Description, file: h5py.File, where: str) -> None:
    """Add what a file of DataExchange says of the geometry, where it writes units."""
    for quantity, path in _EXCHANGE:
        dataset = at(file, path)
        if isinstance(dataset, h5py.Dataset) and text(dataset.attrs.get("units")):
            state_number(said, quantity, dataset, where=where)


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


def _state_scan(said: Description, identifier: Any, columns: dict[str, NDArray[Any]]) -> None:
    """Add the scan's name: the entry's, else that of the frames' attribute `ScanID`.

    Frames of two scans say so by their attribute, whatever the entry is called.
    """
    values = columns.get(SCAN_ATTRIBUTE, np.empty(0))
    names = [id_text(text(value) if isinstance(value, bytes) else value) for value in values.tolist()]
    told = [
        (name, f"attribute {SCAN_ATTRIBUTE} of frame {names.index(name)}")
        for name in list(dict.fromkeys(name for name in names if is_unit(name)))[:2]
    ]
    entry = id_text(text(identifier))
    if is_unit(entry) and len(told) < 2:
        told = [(entry, str(identifier.name))]
    for name, place in told:
        said.state("scan_id", name, place)


def _columns(file: h5py.File, places: Places, outer: tuple[int, ...], where: str) -> dict[str, NDArray[Any]]:
    """All NDAttributes with one value per frame: [N], [N, 1], or the axes `outer` of the frames, flattened."""
    columns: dict[str, NDArray[Any]] = {}
    held = 0
    for path in places.attributes:
        for key in group(file, path):
            name = str(key)  # a name that is no text comes as bytes
            dataset = at(file, f"{path}/{name}")
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


def _attributes(file: h5py.File, places: Places, name: str) -> list[h5py.Dataset]:
    """The data sets of an NDAttribute that `_columns` has found, that of the instrument first."""
    found = (at(file, f"{path}/{name}") for path in places.attributes)
    return [dataset for dataset in found if isinstance(dataset, h5py.Dataset)]


def _ids_elsewhere(file: h5py.File, frames: int, where: str) -> NDArray[Any] | None:
    """The frames' ids where an XML layout of NDFileHDF5 has placed them; None: nowhere, or in several places."""
    found = Walk(file).called(_IDS)
    return whole(found[0], where).ravel() if len(found) == 1 and found[0].size == frames else None


def _positions(
    file: h5py.File,
    places: Places,
    columns: dict[str, NDArray[Any]],
    said: Description,
    options: ScanOptions,
    where: str,
) -> NDArray[Any] | None:
    if options.route is not None:
        return None
    names = (options.x_name, options.y_name)
    whose = at(file, places.positions)
    if all(name in columns for name in names):
        x, y = (_numbers(columns[name], name, where) for name in names)
        if len(x) != len(y):
            raise ScanFileError(
                f"{names[0]} has {len(x)} values but {names[1]} {len(y)}", where=where, remedy="record the scan again"
            )
        of_x, of_y = (_attributes(file, places, name) for name in names)
        state_units(said, of_x[0], of_y[0], where)
        rivals = whose if isinstance(whose, h5py.Dataset) and whose.shape == (len(x), 2) else None
        for axis, (values, found) in enumerate(((x, of_x), (y, of_y))):
            _refuse_rivals(values, axis, found, rivals, where)
        return np.stack([x, y], axis=1).astype(np.float64)
    if (elsewhere := named_columns(file, names, said, where)) is not None:
        return elsewhere
    if isinstance(whose, h5py.Dataset):
        state_units(said, whose, whose, where, (0, 1))
        return whole(whose, where, "iuf")
    if (raster := given_raster(options, said)) is not None:
        return raster
    if not columns:
        return read_places(file, options, said, where)
    known = ", ".join(sorted(columns))
    raise NoPositionsError(
        f"no positions: neither NDAttributes {names[0]} and {names[1]} nor /{places.positions}",
        where=where,
        remedy=f"name the two attributes with --x-name and --y-name (the file has: {known}), give a route file "
        "(--route), or a raster with --scan-shape and --scan-step-m",
    )


def _refuse_rivals(
    values: NDArray[np.float64], axis: int, found: list[h5py.Dataset], rivals: h5py.Dataset | None, where: str
) -> None:
    """Raise ScanFileError if the file gives the positions along `axis` in another place, and others."""
    scale = unit_of(found[0], where) or 1.0
    told = [(str(found[0].name), values * scale)]
    for other in found[1:]:
        column_there = _numbers(whole(other, where).ravel(), str(other.name), where)
        told.append((str(other.name), column_there * (unit_of(other, where) or 1.0)))
    if rivals is not None:
        unit = unit_of(rivals, where, axis) or 1.0
        told.append((f"{rivals.name}:{axis}", whole(rivals, where, "iuf")[:, axis] * unit))
    remedy = "say which are right: --x-name and --y-name with whole paths, :K for a column of a table"
    refuse_unequal(told, where, f"positions along {'xy'[axis]}", remedy)


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


def _epoch(file: h5py.File, places: Places) -> str:
    """The attribute `epoch` of the time stamps; empty if there is none."""
    stamps = _attributes(file, places, STAMP)
    return text(stamps[0].attrs.get("epoch")) if stamps else ""


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
