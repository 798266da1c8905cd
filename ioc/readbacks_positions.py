"""Readbacks of the positions: the source, the stream, the frames that are left out."""

from __future__ import annotations

import math
from typing import Any

from ptychostream.errors import DropCause
from ptychostream.ioc.scan.position_feed import PositionFeed
from ptychostream.ioc.view import LARGEST, MANY, Groups, Readback, View
from ptychostream.positions.indexed_positions import IndexedPositions
from ptychostream.positions.position_stream import StreamPositions

NOT_USED, DISCONNECTED, CONNECTED = range(3)
"""States of PositionConnected_RBV."""
MANUAL, ESTIMATING, ESTIMATED = range(3)
"""States of ClockOffsetState_RBV."""


def connection(feed: PositionFeed[Any]) -> int:
    """Whether the stream of positions is connected."""
    return NOT_USED if not feed.wanted else CONNECTED if feed.connected else DISCONNECTED


def indexed(view: View) -> IndexedPositions:
    """The positions by index: the PandABox's where it is the source, else the channel's."""
    positions = view.parts.positions
    return positions.panda.source if positions.name == "panda" else positions.by_index.source


def arms(view: View) -> int:
    """Arms of the source in use, or passes of its clock."""
    return view.samples.passes if view.parts.positions.name == "stream" else indexed(view).series


def covered(view: View) -> float:
    """Frames of the latest scan with a position, of those that have one or never will, in percent. NaN before any."""
    runs = view.snapshot.runs
    settled = runs[0].received - view.snapshot.waiting_position if runs else 0
    if settled <= 0:
        return math.nan
    return 100 * (settled - runs[0].dropped.get(DropCause.NO_POSITION, 0)) / settled


def clock_state(samples: StreamPositions) -> int:
    """Where the clock offset in use comes from."""
    if samples.settings.clock_offset_mode != "Auto":
        return MANUAL
    return ESTIMATING if samples.offset_s is None else ESTIMATED


def known(value: float | None) -> float:
    """NaN in the place of None."""
    return math.nan if value is None else value


# fmt: off
POSITIONS: Groups = {
    "positions": (
        Readback("PositionConnected_RBV", "The stream of positions", int, lambda v: connection(v.parts.positions.feed),
                 states=("Not used", "Disconnected", "Connected"), fields={"ONSV": "MAJOR"}),
        Readback("ClockOffset_RBV", "Position clock - detector clock", float, lambda v: known(v.samples.offset_s),
                 egu="s", prec=6, low=-1e10, high=1e10),
        Readback("ClockOffsetState_RBV", "Where the clock offset in use is from", int,
                 lambda v: clock_state(v.samples), states=("Manual", "Estimating", "Estimated"),
                 fields={"ONSV": "MINOR"}),
        Readback("ClockOffsetEstimate_RBV", "Clock offset by the least delays", float,
                 lambda v: v.clock.offset_s if v.clock else math.nan, egu="s", prec=6, low=-1e10,
                 high=1e10, fields={"MDEL": "1e-5", "ADEL": "1e-4"}),
        Readback("ClockOffsetError_RBV", "Scatter of the least delays", float,
                 lambda v: 1e3 * v.clock.uncertainty_s if v.clock else math.nan, egu="ms", high=1000,
                 fields={"MDEL": 0.01, "ADEL": 0.1}),
        Readback("PositionSamples_RBV", "Samples of the stream received", int,
                 lambda v: v.counts.received, egu="samples", high=MANY),
        Readback("PositionSamplesHeld_RBV", "Samples that frames are placed between", int,
                 lambda v: v.parts.positions.feed.source.held,
                 egu="samples", high=LARGEST),
        Readback("PositionSamplesTwice_RBV", "Samples that came again", int,
                 lambda v: v.counts.duplicate, egu="samples", high=MANY),
        Readback("PositionSamplesConflict_RBV", "Samples of one time with another place", int,
                 lambda v: v.counts.conflicting, egu="samples", high=MANY,
                 fields={"HIGH": 1, "HSV": "MAJOR"}),
        Readback("PositionSamplesLate_RBV", "Samples too late behind newer ones", int,
                 lambda v: v.counts.late, egu="samples", high=MANY,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionSamplesBad_RBV", "Samples that are not finite", int,
                 lambda v: v.counts.bad, egu="samples", high=MANY,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionSamplesForgotten_RBV", "Oldest samples that gave way", int,
                 lambda v: v.counts.forgotten, egu="samples", high=MANY),
        Readback("PositionUpdatesBad_RBV", "Updates of the stream without positions", int,
                 lambda v: v.parts.positions.feed.bad_updates, egu="updates", high=MANY,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionRestarts_RBV", "Restarts that cost a scan its places", int,
                 lambda v: v.counts.restarts_in_scan, high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("FramesSettling_RBV", "Frames left out at their scan's start", int,
                 lambda v: v.parts.positions.current.settling, egu="frames", high=MANY),
        Readback("FramesMoving_RBV", "Frames left out: the stage moved", int, lambda v: v.samples.moving,
                 egu="frames", high=MANY),
        Readback("FramesOutside_RBV", "Frames left out: beyond the field", int,
                 lambda v: v.parts.positions.current.outside, egu="frames", high=MANY,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionArm_RBV", "Arms of the source, or clock passes", int, arms, egu="arms", high=LARGEST),
        Readback("PositionNextIndex_RBV", "Index of the next sample of this arm", int,
                 lambda v: indexed(v).next_index, egu="samples", high=MANY),
        Readback("PandAMissed_RBV", "Rows sent before anyone listened", int,
                 lambda v: v.parts.positions.panda.missed, egu="rows", high=MANY,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PandAFaults_RBV", "Bad captures and lost connections", int,
                 lambda v: v.parts.positions.panda.faults, egu="faults", high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MAJOR"}),
        Readback("PandACapture_RBV", "The latest capture and its end", str,
                 lambda v: v.parts.positions.panda.ended, length=128),
        Readback("PositionCoverage_RBV", "Frames of the scan that have a position", float, covered, egu="%", prec=2,
                 high=100, fields={"LOW": 99.99, "LSV": "MINOR", "MDEL": 0.01, "ADEL": 0.1}),
        Readback("PositionMessage_RBV", "Why frame or update gave no position", str,
                 lambda v: v.parts.positions.current.waits or v.parts.positions.current.message, length=256),
    ),
    "scan": (
        Readback("PositionsCount_RBV", "Positions known, both coordinates", int, lambda v: v.parts.positions.count,
                 high=100000000),
        Readback("PositionUnit_RBV", "Unit of the positions as they are sent", str,
                 lambda v: v.parts.settings.positions.axes.unit, length=39),
        Readback("SignX_RBV", "Sign from the beamline's x to the canvas", int,
                 lambda v: v.parts.settings.positions.axes.sign_x, low=-1, high=1),
        Readback("SignY_RBV", "Sign from the beamline's y to the canvas", int,
                 lambda v: v.parts.settings.positions.axes.sign_y, low=-1, high=1),
    ),
}
# fmt: on
