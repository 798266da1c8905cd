"""Settings: which frames of a stream are wanted, and what they must say of themselves."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ptychostream.config import Setting, Settings
from ptychostream.frames.intake import Intake
from ptychostream.frames.stream_watch import expected_of
from ptychostream.statements.description import Description
from ptychostream.statements.radiation import of_unit
from ptychostream.statements.units import EnergyUnit


class RegionSettings(Settings):
    """The region of the sensor that frames must be of; what is not given is the model's."""

    offset_x: int | None = Field(None, ge=0)
    """First column on the sensor, unbinned."""
    offset_y: int | None = Field(None, ge=0)
    """First row on the sensor, unbinned."""
    binning_x: int | None = Field(None, ge=1)
    """Sensor columns in a column of the frame."""
    binning_y: int | None = Field(None, ge=1)
    """Sensor rows in a row of the frame."""
    reverse_x: bool | None = None
    """Whether the columns are reversed."""
    reverse_y: bool | None = None
    """Whether the rows are reversed."""


class FrameSettings(Settings):
    """Which frames are wanted, and what they must say."""

    select_attribute: Annotated[
        str, Setting(flag="--select-attribute", help="NTNDArray attribute that tells the frames that are wanted")
    ] = ""
    """NTNDArray attribute that tells frames of several kinds apart, such as a detector's thresholds; empty: none."""
    select_value: Annotated[str, Setting(flag="--select-value", help="its value in the frames that are wanted")] = ""
    """Its value in the frames that are wanted; the others are dropped as `Unselected`."""
    energy_attribute: Annotated[
        str, Setting(flag="--energy-attribute", help="NTNDArray attribute that gives the energy")
    ] = ""
    """NTNDArray attribute that gives the energy, compared with that of the model; empty: none."""
    energy_unit: Annotated[EnergyUnit, Setting(flag="--energy-unit", help="unit of that energy")] = "eV"
    """Unit of the attribute and of the PV. V and kV are of electrons."""
    radiation: Annotated[
        Literal["", "photon", "electron"], Setting(flag="--radiation", help="what the frames are taken with")
    ] = ""
    """What the frames are taken with, compared with the model; empty: electrons where the unit is V or kV, else not
    compared."""
    bit_depth_attribute: Annotated[
        str, Setting(flag="--bit-depth-attribute", help="NTNDArray attribute that gives the detector's bit depth")
    ] = "BitDepth"
    """NTNDArray attribute that gives the bits that the detector counts in. Another value than that of the scan's first
    frame, or of the model, is told. Empty: none."""
    region: RegionSettings = RegionSettings()
    """What frames must say of the region of the sensor, where the model's contract does not say it, or not right."""

    def intake(
        self,
        scan_attribute: str,
        end_attribute: str,
        further: tuple[str, ...] = (),
        expected: Description | None = None,
    ) -> Intake:
        """The reading of a stream by these settings. Frames are compared with `expected`, what a model says of them."""
        select = (self.select_attribute, self.select_value)
        energy = (self.energy_attribute, self.energy_unit)
        made = Intake(
            scan_attribute, end_attribute, further, select=select, energy=energy, bit_depth=self.bit_depth_attribute
        )
        if radiation := of_unit(self.energy_unit, self.radiation or None):
            made.watch.measure("radiation", radiation, "input.radiation" if self.radiation else "input.energy_unit")
        if expected is not None:
            made.watch.expect(expected_of(expected, self.region.model_dump()))
        return made
