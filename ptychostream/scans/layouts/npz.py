"""Read scans from numpy's npz.

Keys: `counts` [N, H, W] integers, `positions_m` [N, 2] (x, y), `energy_ev`, `distance_m`, `detector_pixel_m`, of which
each may be one number or one for each frame; optional `wavelength_m`, `saturation`, `scan_id`, `radiation`,
`bad_pixels` [H, W], `probe` [modes, H, W], `frame_ids` [N], `times` [N]. Other keys become metadata. The counts of
`numpy.savez` are mapped and not read, so they may be larger than memory. Those of `numpy.savez_compressed` are read
completely.
"""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.frames.scan_id import id_text
from ptychostream.scans.hdf5_statements import differing
from ptychostream.scans.scan_parts import GEOMETRY, ScanOptions, ScanParts
from ptychostream.statements.description import Description
from ptychostream.statements.quantities import QUANTITIES
from ptychostream.statements.units import is_unit
from ptychostream.storage.hdf5_extent import MAX_PART_BYTES

REQUIRED = ("counts", "positions_m")
_OPTIONAL = ("bad_pixels", "probe", "frame_ids", "times")
_DTYPES = {"bad_pixels": np.bool_, "probe": np.complex64, "times": np.float64}
_KINDS = {"bad_pixels": "biuf", "probe": "iufc", "frame_ids": "iuf", "times": "iuf"}
"""The kinds of numpy types that each key may have."""
_QUANTITIES = {
    "energy_ev": ("energy",),
    "wavelength_m": ("wavelength",),
    "saturation": ("saturation",),
    "distance_m": ("distance",),
    "detector_pixel_m": ("detector_pixel_x", "detector_pixel_y"),
}
_DEFLATE_RATIO = 1032
"""The largest compression ratio of deflate."""
_MAX_COMPRESSED_COUNTS = 1 << 34
"""The largest array of compressed counts, because it is read completely."""
_DAMAGES = (OSError, ValueError, EOFError, KeyError, TypeError, OverflowError, RuntimeError, struct.error,
            SyntaxError, tokenize.TokenError, zlib.error, zipfile.BadZipFile, NotImplementedError)  # fmt: skip
"""The errors that zipfile and numpy raise for damaged files."""
_MAX_MEMBERS = 4096
_MAX_DIRECTORY_BYTES = 4 << 20
_MAX_MEMBERS_BYTES = 1 << 30
"""The largest sum of the arrays beside the counts, which are read completely."""
_DIRECTORY_END = struct.Struct("<4s4H2LH")
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_parts(path: str, options: ScanOptions, where: str) -> ScanParts:
    """Read an npz. Raises ScanFileError."""
    try:
        _check_directory(path)
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(".npy"): member for member in archive.infolist()}
            required = REQUIRED if options.route is None else REQUIRED[:1]
            missing = [key for key in required if key not in members]
            if missing:
                raise ScanFileError(
                    f"npz without {' and '.join(missing)}",
                    where=where,
                    remedy=f"save the keys {', '.join((*REQUIRED, *GEOMETRY))}; this file has {', '.join(members)}",
                )
            counts = _mapped(path, archive, members.pop("counts"))
            if (whole := sum(member.file_size for member in members.values())) > _MAX_MEMBERS_BYTES:
                raise ValueError(f"its arrays beside the counts take {whole >> 20} MiB")
            return _parts(counts, {key: _read(archive, member) for key, member in members.items()}, where)
    except _DAMAGES as error:
        raise ScanFileError(
            f"npz cannot be read: {error}",
            where=where,
            remedy="save plain arrays with numpy.savez, no objects; copy the file again if it is damaged",
        ) from error


def _check_directory(path: str) -> None:
    """Check the number of members and the size of their directory, before it is read. Raises ValueError."""
    with open(path, "rb") as file:  # noqa: PTH123 - as below
        size = file.seek(0, 2)
        file.seek(max(0, size - _DIRECTORY_END.size - 0xFFFF))  # a comment of up to 64 KiB may follow
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + _DIRECTORY_END.size > len(tail):
        raise ValueError("no directory at its end")
    _, _, _, _, members, size, _, _ = _DIRECTORY_END.unpack_from(tail, at)
    if members > _MAX_MEMBERS or size > _MAX_DIRECTORY_BYTES:
        raise ValueError(f"{members:,} members or more, in a directory of {size:,} bytes or more")


def _parts(counts: NDArray[Any], values: dict[str, NDArray[Any]], where: str) -> ScanParts:
    said = Description(where)
    for key, quantities in _QUANTITIES.items():
        if key in values:
            for quantity in quantities:
                _state(said, quantity, values[key], key, where)
            del values[key]
    named = id_text(values.pop("scan_id", ""))
    said.state("scan_id", named if is_unit(named) else None, "scan_id")
    said.state("radiation", str(values.pop("radiation", "")) or None, "radiation")
    for axis in "xy":
        said.state(f"position_unit_{axis}", 1.0, "positions_m")
    arrays: dict[str, Any] = {key: _array(values.pop(key), key, where) for key in _OPTIONAL if key in values}
    return ScanParts(counts, values.pop("positions_m", None), said, metadata=dict(values), **arrays)


def _array(value: NDArray[Any], key: str, where: str) -> NDArray[Any]:
    """An array in the type of its key. Raises ScanFileError where numpy would drop a part of it."""
    if value.dtype.kind not in _KINDS[key]:
        remedy = "save plain numbers there, complex ones for the probe alone"
        raise ScanFileError(f"{key} is of type {value.dtype}", where=where, remedy=remedy)
    return value if key not in _DTYPES else value.astype(_DTYPES[key])


def _state(said: Description, quantity: str, values: NDArray[Any], key: str, where: str) -> None:
    """Add the number that a key holds: one, or one for each frame, of which the most different is added as well."""
    numbers = np.array([_number(value, key, where) for value in values.ravel().tolist()])
    for index in differing(numbers, QUANTITIES[quantity].tolerance) if len(numbers) else ():
        said.state(quantity, float(numbers[index]), f"{key}[{index}]" if len(numbers) > 1 else key)


def _number(value: Any, key: str, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        what = f"{key} is {value!r}, where a number is expected"
        raise ScanFileError(what, where=where, remedy=f"save {key} as a number") from None


class _Header(NamedTuple):
    """The header of an npy member. `start` is the offset of its data in the member."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    start: int


def _header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> _Header:
    """Read the header and compare it with the member's size, before memory is allocated. Raises ValueError."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{member.filename} is compressed in another way than numpy does")
    if member.file_size > _DEFLATE_RATIO * member.compress_size:
        raise ValueError(f"{member.compress_size} bytes of {member.filename} cannot hold {member.file_size}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        header = _Header(*read_header(file), file.tell())
    if header.dtype.hasobject:
        raise ValueError(f"{member.filename} holds Python objects")
    size = math.prod(header.shape) * header.dtype.itemsize
    if min(header.shape, default=0) < 0 or header.start + size != member.file_size:
        raise ValueError(f"{member.filename} says {header.shape} {header.dtype}, and has {member.file_size} bytes")
    return header


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo, most: int = MAX_PART_BYTES) -> NDArray[Any]:
    header = _header(archive, member)
    if member.file_size > most:
        raise ValueError(f"{member.filename} is larger than {most >> 20} MiB")
    with archive.open(member) as file:
        file.read(header.start)
        flat = np.frombuffer(file.read(), header.dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")


def _mapped(path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    """The counts: as a memory map if they are not compressed, else read completely."""
    header = _header(archive, member)
    if member.compress_type != zipfile.ZIP_STORED or header.fortran or 0 in header.shape:
        return _read(archive, member, _MAX_COMPRESSED_COUNTS)
    with open(path, "rb") as file:  # noqa: PTH123 - numpy.memmap takes the result of open
        file.seek(member.header_offset)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    if signature != b"PK\x03\x04":
        raise ValueError(f"no header of member {member.filename} at the place that the directory gives")
    start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length + header.start
    return np.memmap(path, dtype=header.dtype, mode="r", offset=start, shape=header.shape)
