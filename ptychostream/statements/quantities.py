"""What a source can say of its frames: the name, unit and plausible limits of each quantity, in one table."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantity:
    """A quantity that a file, a stream, a recording or a model contract may state.

    Attributes
    ----------
    name
        Its key.
    text
        What it is, for people.
    unit
        The SI unit (energies: eV) that its values are in; empty for counts, names and flags.
    low, high
        Limits of a plausible value. None: no limit.
    tolerance
        Two values that differ by less than this part of the larger one are the same value.
    whole
        Whether only whole numbers are plausible.
    """

    name: str
    text: str
    unit: str = ""
    low: float | None = None
    high: float | None = None
    tolerance: float = 0.0
    whole: bool = False


_ALL = (
    Quantity("frame_height", "rows of a frame", "px", 1, 65536),
    Quantity("frame_width", "columns of a frame", "px", 1, 65536),
    Quantity("offset_y", "first row of the region on the sensor, unbinned", "px", 0, 1e6, whole=True),
    Quantity("offset_x", "first column of the region on the sensor, unbinned", "px", 0, 1e6, whole=True),
    Quantity("binning_y", "sensor rows in a row of the frame", "", 1, 4096, whole=True),
    Quantity("binning_x", "sensor columns in a column of the frame", "", 1, 4096, whole=True),
    Quantity("reverse_y", "whether the rows are reversed"),
    Quantity("reverse_x", "whether the columns are reversed"),
    Quantity("pixel_type", "numpy type of the counts"),
    Quantity("codec", "compression of the frames"),
    Quantity("bit_depth", "bits that the detector counts in", "bit", 1, 64, whole=True),
    Quantity("saturation", "the count at which a pixel is saturated", "counts", 1, 2.0**63),
    Quantity("detector_pixel_x", "width of a frame's pixel", "m", 1e-6, 5e-3, 1e-3),
    Quantity("detector_pixel_y", "height of a frame's pixel", "m", 1e-6, 5e-3, 1e-3),
    Quantity("sensor_pixel_x", "width of a pixel of the sensor, before binning", "m", 1e-6, 5e-3, 1e-3),
    Quantity("sensor_pixel_y", "height of a pixel of the sensor, before binning", "m", 1e-6, 5e-3, 1e-3),
    Quantity("distance", "sample to detector", "m", 1e-4, 100.0, 1e-3),
    Quantity("energy", "energy; for electrons the accelerating voltage", "eV", 10.0, 1e6, 1e-3),
    Quantity("wavelength", "wavelength", "m", 1e-13, 1.3e-7, 1e-3),
    Quantity(
        "object_pixel", "pixel of the object, wavelength · distance / (width · detector pixel)", "m", 1e-12, 1e-4, 5e-3
    ),
    Quantity("radiation", "radiation"),
    Quantity("zero_frequency", "where the zero frequency lies: centre or corner"),
    Quantity("epoch", "what the time stamps are counted from: POSIX, EPICS or unknown"),
    Quantity("position_unit_x", "metres in a unit of the x positions", "m", 1e-13, 1.0),
    Quantity("position_unit_y", "metres in a unit of the y positions", "m", 1e-13, 1.0),
    Quantity("position_sense", "whose position is stored: beam or sample"),
    Quantity("first_id", "number of the first frame"),
    Quantity("scan_id", "name of the scan"),
    Quantity("mask_sense", "what a non-zero pixel of the mask means: bad or good"),
    Quantity("threshold", "which energy threshold of the detector the frames are of"),
)
REGION = ("offset_y", "offset_x", "binning_y", "binning_x", "reverse_y", "reverse_x")
"""The quantities that say which part of the sensor a frame shows, and how."""
QUANTITIES: dict[str, Quantity] = {quantity.name: quantity for quantity in _ALL}
