"""Scans in numpy's npz.

Keys: `counts` [N, H, W] integers, `positions_m` [N, 2] (x, y), `energy_ev`, `distance_m`, `detector_pixel_m`;
optional `scan_id`, `radiation`, `bad_pixels` [H, W], `probe` [modes, H, W], `frame_ids` [N], `times` [N]. Other keys
become metadata. Saved with `numpy.savez` the counts are mapped, not read, so they may be larger than memory; with
`numpy.savez_compressed` they are read whole.
"""

from __future__ import annotations

import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychostream.errors import ScanFileError
from ptychostream.scan_parts import GEOMETRY, ScanOptions, ScanParts

REQUIRED = ("counts", "positions_m")
_OPTIONAL = ("bad_pixels", "probe", "frame_ids", "times")
_DTYPES = {"bad_pixels": np.bool_, "probe": np.complex64, "frame_ids": np.int64, "times": np.float64}
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_parts(path: str, options: ScanOptions, where: str) -> ScanParts:
    """Read an npz. Raises ScanFileError."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            required = REQUIRED if options.route is None else REQUIRED[:1]
            missing = [key for key in required if key not in archive]
            if missing:
                raise ScanFileError(
                    f"npz without {' and '.join(missing)}",
                    where=where,
                    remedy=f"save the keys {', '.join((*REQUIRED, *GEOMETRY))}; this file has {', '.join(archive)}",
                )
            counts = mapped_member(path, "counts.npy")
            values = {key: archive[key] for key in archive if key != "counts"}
            if counts is None:
                counts = archive["counts"]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ScanFileError(
            f"npz cannot be read: {error}",
            where=where,
            remedy="save plain arrays with numpy.savez, no objects; copy the file again if it is damaged",
        ) from error
    given = [key for key in GEOMETRY if key in values and values[key].size == 1]
    scalars: dict[str, Any] = {key: float(values.pop(key).item()) for key in given}
    arrays: dict[str, Any] = {key: values.pop(key).astype(_DTYPES[key]) for key in _OPTIONAL if key in values}
    return ScanParts(
        scan_id=str(values.pop("scan_id", "")),
        counts=counts,
        raw_positions=values.pop("positions_m", None),
        radiation=str(values.pop("radiation", "photon")),
        metadata=dict(values),
        **scalars,
        **arrays,
    )


def mapped_member(path: str, name: str) -> NDArray[Any] | None:
    """The array of an uncompressed zip member as a memory map; None when it is compressed or in Fortran order."""
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED:
        return None
    with open(path, "rb") as file:  # noqa: PTH123 - numpy.memmap takes what open gives
        file.seek(member.header_offset)
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        if signature != b"PK\x03\x04":
            raise ValueError(f"no member header of {name} where the directory points")
        file.seek(name_length + extra_length, 1)
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        if fortran:
            return None
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        return np.memmap(path, dtype=dtype, mode="r", offset=file.tell(), shape=shape)
