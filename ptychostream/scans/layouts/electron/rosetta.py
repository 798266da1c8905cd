"""Read .blo, .tvips, .mib, EMPAD (.xml with .raw) and .zspy through RosettaSciIO, which is under the GPL 3.

What its readers get wrong or leave open is not taken from them (what each does was measured with 0.15.0): the rows of
a MIB are left as they are stored, no scan shape is guessed, 32-bit TVIPS is refused, and a step, energy or camera
length of 0 is unknown.
"""

from __future__ import annotations

import math
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.electron.axes import Axis, stem_parts, turned
from ptychostream.scans.layouts.electron.scan_given import given_scan
from ptychostream.scans.layouts.extras import needed
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

_CM, _TENTH_MM = 1e-2, 1e-4
_HEAD = 256
_MOST_XML = 1 << 22
_RAW = re.compile(rb"scan_x(\d+)_y(\d+)\.raw")
_BLO_FRAME_HEADER = 6
_LARGEST = 1 << 15


@contextmanager
def open_blo(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read a NanoMEGAS blockfile: square patterns of uint8; steps in nm, screen pixel, energy and camera length."""
    _check_blo(path)
    signal = _read("rsciio.blockfile", "a blockfile", path)
    header = signal["original_metadata"]["blockfile_header"]
    turned(float(header["Scan_rotation"]) / 100, "Scan_rotation", options, path)
    said = Description(path)
    said.state("radiation", "electron", "blockfile")
    if (volts := float(header["Beam_energy"])) > 0:
        said.state("energy", volts, "Beam_energy", f"{volts:g} V")
    if (length := float(header["Camera_length"])) > 0:
        said.state("distance", length * _TENTH_MM, "Camera_length", f"{length / 10:g} mm")
    if (per_cm := float(header["SDP"]) / 100) > 0:
        for axis in "xy":
            said.state(f"detector_pixel_{axis}", _CM / per_cm, "SDP", f"{per_cm:g} pixels a cm")
    axes = [
        replace(axis, unit="" if not axis.scan or not header[f"S{axis.name.upper()}"] else axis.unit)
        for axis in _axes(signal)
    ]
    yield stem_parts(signal["data"], axes, options, said, path, name="its array")


@contextmanager
def open_tvips(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read a TVIPS stream of 8 or 16 bit. The header does not say whether the counts have a sign: they have none."""
    _check_tvips(path)
    signal = _read("rsciio.tvips", "TVIPS", path)
    source = signal["data"]
    if source.dtype.itemsize > 2:
        raise ScanFileError(
            f"its patterns have {source.dtype.itemsize * 8} bits, and the header does not say of which type",
            where=path,
            remedy="save it as .hspy, whose header says the type",
        )
    said = Description(path)
    said.assume("pixel_type", str(source.dtype), "the header gives the bits only; counts have no sign")
    said.state("radiation", "electron", "TVIPS")
    yield given_scan(source, options, said, path)


@contextmanager
def open_mib(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read a Merlin .mib. The rows of a pattern stay in the order in which they are stored."""
    _check_start(path, b"MQ1,", "a Merlin .mib")
    module = needed("rsciio.quantumdetector", "MIB", path)
    with _told(path):
        source = module.load_mib_data(path, mmap_mode="r")
    said = Description(path)
    said.state("pixel_type", str(source.dtype), "header of the first pattern")
    said.assume("radiation", "electron", "Merlin, mostly of an electron microscope")
    said.assume(
        "reverse_y", value=False, where="the first stored row is taken as row 0; --flip-y if it is the bottom one"
    )
    yield given_scan(source, options, said, path)


@contextmanager
def open_empad(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read an EMPAD scan by its .xml, beside which is the .raw."""
    description = _check_start(path, b"<", "XML", whole=True)
    signal = _read("rsciio.empad", "EMPAD", path)
    _check_empad(path, description, signal["data"].shape)
    said = Description(path)
    said.state("radiation", "electron", "EMPAD")
    axes = _axes(signal)
    scan = [axis for axis in axes if axis.scan]
    if len(scan) != 2:
        yield given_scan(signal["data"], options, said, path)
        return
    # The order of the two fields of view is not certain, and newer files scale them by factors that nobody applies.
    if not math.isclose(scan[0].step, scan[1].step, rel_tol=1e-6) or b"scale_factor" in description:
        axes = [replace(axis, unit="") if axis.scan else axis for axis in axes]
    yield stem_parts(signal["data"], axes, options, said, path, name="its array")


@contextmanager
def open_zspy(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read HyperSpy's .zspy (zarr)."""
    needed("zarr", "a .zspy file", path)
    signal = _read("rsciio.zspy", "a .zspy file", path)
    said = Description(path)
    instruments = signal.get("metadata", {}).get("Acquisition_instrument", {})
    for part in ("TEM", "SEM"):
        kilovolts = instruments.get(part, {}).get("beam_energy", 0)
        if kilovolts:
            said.state(
                "energy", float(kilovolts) * 1e3, f"Acquisition_instrument.{part}.beam_energy", f"{kilovolts} keV"
            )
            said.state("radiation", "electron", f"Acquisition_instrument.{part}")
    yield stem_parts(signal["data"], _axes(signal), options, said, path, name="its array")


OPENERS: dict[str, Callable[[str, ScanOptions], Any]] = {
    ".blo": open_blo,
    ".tvips": open_tvips,
    ".mib": open_mib,
    ".xml": open_empad,
    ".zspy": open_zspy,
}
"""By the ending of the file's name."""


def _check_start(path: str, wanted: bytes, what: str, *, whole: bool = False) -> bytes:
    """The first bytes of the file, which must begin with `wanted`. RosettaSciIO itself believes the name."""
    with Path(path).open("rb") as stream:
        start = stream.read(_MOST_XML if whole else _HEAD)
    if not start.lstrip(b"\xef\xbb\xbf").startswith(wanted):
        raise ScanFileError(f"by its name {what}, but not by its content", where=path, remedy="give the right file")
    return start


def _check_empad(path: str, description: bytes, shape: tuple[int, ...]) -> None:
    """The .xml holds the scan of the search beside that of the acquisition; the name and size of the .raw tell."""
    named = _RAW.search(description)
    if named is None or len(shape) != 4:
        return
    raw, columns, rows = named[0].decode(), int(named[1]), int(named[2])
    if (rows, columns) != shape[:2]:
        raise ScanFileError(
            f"the file is called {raw}, and the .xml says {shape[0]} rows of {shape[1]}",
            where=path,
            remedy="correct pix_x and pix_y in the .xml: they may be those of the search, not of the acquisition",
        )
    there, size = Path(path).with_name(raw).stat().st_size, math.prod((*shape[:2], 130, 128, 4))
    if there != size:
        what = f"{raw} has {there} bytes, and {rows} rows of {columns} patterns need {size}"
        raise ScanFileError(what, where=path, remedy="copy the .raw again, or correct the scan in the .xml")


def _check_blo(path: str) -> None:
    start = _check_start(path, b"IMGBLO", "a blockfile")
    at, size, columns, rows = (int(start[first] + (start[first + 1] << 8)) for first in (12, 20, 24, 26))
    at += (start[14] << 16) + (start[15] << 24)
    _check_size(path, at + rows * columns * (size * size + _BLO_FRAME_HEADER), f"{rows} × {columns} patterns")


def _check_tvips(path: str) -> None:
    numbers = struct.unpack("<5I", _check_start(path, b"", "TVIPS")[:20].ljust(20, b"\0"))
    header, version, width, height, bits = numbers
    if version not in (1, 2) or bits not in (8, 16, 32) or not (0 < width <= _LARGEST and 0 < height <= _LARGEST):
        raise ScanFileError("by its name TVIPS, but not by its content", where=path, remedy="give the right file")
    _check_size(path, header + width * height * bits // 8, "one pattern")


def _check_size(path: str, size: int, what: str) -> None:
    """RosettaSciIO fills what is missing with zeros."""
    there = Path(path).stat().st_size
    if there < size:
        raise ScanFileError(
            f"the file is cut short: {what} need {size} bytes, it has {there}",
            where=path,
            remedy="copy it again; if the acquisition was stopped, save the patterns that there are",
        )


def _read(module: str, what: str, path: str) -> dict[str, Any]:
    """The only signal with four axes or more, or the only one."""
    reader = needed(module, what, path)
    with _told(path):
        signals = [signal for signal in reader.file_reader(path, lazy=True) if signal["data"].ndim >= 3]
    if len(signals) != 1:
        raise ScanFileError(
            f"it has {len(signals)} arrays of patterns",
            where=path,
            remedy="save the one that is meant in a file of its own",
        )
    return signals[0]


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Turn what the readers raise for a file that they cannot read into ScanFileError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (
        OSError,
        ValueError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        AssertionError,
        NotImplementedError,
    ) as error:
        raise ScanFileError(
            f"RosettaSciIO cannot read it: {type(error).__name__}: {error}",
            where=path,
            remedy="copy it again with the files that belong to it, under their names",
        ) from error


def _axes(signal: dict[str, Any]) -> list[Axis]:
    rows = {"y", "dy", "height", "scan_y"}
    return [
        Axis(
            name=str(axis.get("name", "")),
            size=int(axis["size"]),
            step=float(axis.get("scale") or 0.0),
            unit=str(axis.get("units") or ""),
            scan=bool(axis["navigate"]),
            where=f"axis {Path(str(axis.get('name') or index)).name}",
            row=True if str(axis.get("name", "")).lower() in rows else None,
        )
        for index, axis in enumerate(sorted(signal["axes"], key=lambda axis: int(axis.get("index_in_array", 0))))
    ]
