"""Read .blo, .tvips, .mib, EMPAD (.xml with .raw) and .zspy through RosettaSciIO, which is under the GPL 3.

What its readers get wrong or leave open is not taken from them (what each does was measured with 0.15.0): the rows of
a MIB are left as they are stored, no scan shape is guessed, 32-bit TVIPS is refused, and a step, energy or camera
length of 0 is unknown.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ptychostream.errors import ScanFileError
from ptychostream.scans.layouts.electron.axes import Axis, stem_parts
from ptychostream.scans.layouts.electron.scan_given import given_scan
from ptychostream.scans.layouts.extras import needed
from ptychostream.scans.scan_parts import ScanOptions, ScanParts
from ptychostream.statements.description import Description

_CM, _TENTH_MM = 1e-2, 1e-4


@contextmanager
def open_blo(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read a NanoMEGAS blockfile: square patterns of uint8; steps in nm, screen pixel, energy and camera length."""
    signal = _read("rsciio.blockfile", "a blockfile", path)
    header = signal["original_metadata"]["blockfile_header"]
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
    yield given_scan(source, options, said, path)


@contextmanager
def open_mib(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read a Merlin .mib. The rows of a pattern stay in the order in which they are stored."""
    module = needed("rsciio.quantumdetector", "MIB", path)
    with _told(path):
        properties = module.MIBProperties()
        properties.parse_file(path)
        source = module.load_mib_data(path, mmap_mode="r", mib_prop=properties)["data"]
    said = Description(path)
    said.state("pixel_type", str(source.dtype), "header of the first pattern")
    said.assume(
        "reverse_y", value=False, where="the first stored row is taken as row 0; --flip-y if it is the bottom one"
    )
    yield given_scan(source.reshape(len(source), *properties.merlin_size), options, said, path)


@contextmanager
def open_empad(path: str, options: ScanOptions) -> Iterator[ScanParts]:
    """Read an EMPAD scan by its .xml, beside which is the .raw."""
    signal = _read("rsciio.empad", "EMPAD", path)
    said = Description(path)
    said.state("radiation", "electron", "EMPAD")
    axes = _axes(signal)
    scan = [axis for axis in axes if axis.scan]
    if len(scan) != 2:
        yield given_scan(signal["data"], options, said, path)
        return
    if scan[0].step != scan[1].step:  # the order of the two fields of view in the .xml is not certain
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
