"""Whether a scan is of the instrument that a model was trained for: the scan's statements beside the contract's."""

from __future__ import annotations

from dataclasses import replace

from ptychostream.imaging.geometry import object_pixel_m
from ptychostream.model.contract import ModelContract
from ptychostream.scans.inspection import Inspection
from ptychostream.scans.scan import Scan
from ptychostream.scans.scan_geometry import resolved
from ptychostream.statements.description import Contradiction, Description
from ptychostream.statements.quantities import REGION

TOLERANCE = 0.01
"""Relative difference of energy, distance and pixel that does not matter: 1 % over a patch of 128 pixels is 0.6 pixels
at its edge.
"""
_GEOMETRY = ("radiation", "energy", "distance", "detector_pixel_x")
_REMEDY = "take a model for this geometry, or go on all the same with --other-geometry"


def region_of(scan: Scan) -> dict[str, float | bool] | None:
    """What a scan says of the region of the sensor, for a contract. None: nothing."""
    found: dict[str, float | bool] = {}
    for quantity in REGION:
        value = scan.said.value(quantity)
        if value is not None and not isinstance(value, str):
            found[quantity] = value
    return found or None


def bit_depth_of(scan: Scan) -> int | None:
    """The bits that a scan says its detector counted in, for a contract. None: it does not say."""
    bits = scan.said.number("bit_depth")
    return None if bits is None else int(bits)


def contradictions(scan: Scan, contract: ModelContract, model: str = "") -> list[Contradiction]:
    """Where the scan and the contract say something different of radiation, energy, distance, pixel or
    region.

    What only one of them says is no contradiction. If the contract has no geometry, the size of an object pixel is
    compared.

    Parameters
    ----------
    model
        The model's file or name, for messages.
    """
    expected = contract.said(model)
    found = scan_said(scan).against(expected, _GEOMETRY, tolerance=TOLERANCE, remedy=_REMEDY)
    found += scan.said.against(expected, REGION, remedy=_REMEDY)
    if not found and None in (contract.energy_ev, contract.distance_m, contract.detector_pixel_m):
        found += _object_pixels(scan, contract, expected)
    return found


def check_contract(scan: Scan, contract: ModelContract, model: str = "") -> None:
    """Raises ContradictionError if the scan contradicts the contract. Both statements are named."""
    for contradiction in contradictions(scan, contract, model):
        raise contradiction.error(scan.said.source or scan.scan_id)


def with_contract(inspection: Inspection, contract: ModelContract, model: str) -> Inspection:
    """The inspection of a scan with its contradictions to a model's contract. A refused scan stays as it is."""
    if inspection.opened is None:
        return inspection
    return replace(inspection, contradictions=contradictions(inspection.opened, contract, model))


def scan_said(scan: Scan) -> Description:
    """The geometry in force of a scan, each value with the place that it comes from."""
    said = Description(scan.said.source or scan.scan_id)
    values = {
        "energy": scan.energy_ev,
        "distance": scan.distance_m,
        "detector_pixel_x": scan.detector_pixel_m,
    }
    stated = scan.said.about("radiation")
    of_file = stated and stated[0].origin != "assumed"
    said.state("radiation", scan.radiation, stated[0].where if of_file else "what is taken where nobody says it")
    for quantity, value in values.items():
        source = resolved(scan.said, quantity)
        said.state(quantity, value, source.where if source else "the scan", source.written if source else "")
    return said


def _object_pixels(scan: Scan, contract: ModelContract, expected: Description) -> list[Contradiction]:
    """The size of an object pixel, with or without the contract's crop."""
    widths = {scan.counts.shape[-1]}
    if contract.preprocessing.crop is not None:
        widths.add(contract.preprocessing.crop[3])
    found: list[Contradiction] = []
    for width in widths:
        said = Description()
        pixel_m = object_pixel_m(scan.energy_ev, scan.distance_m, scan.detector_pixel_m, width, scan.radiation)
        said.state("object_pixel", pixel_m, f"{scan.said.source or scan.scan_id}: energy, distance and pixel")
        found = said.against(expected, ("object_pixel",), tolerance=TOLERANCE, remedy=_REMEDY)
        if not found:
            return []
    return found
