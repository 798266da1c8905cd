"""Readbacks of the positions: the source, the stream, the frames that are left out."""

from __future__ import annotations

import math

from ptychostream.ioc.scan.position_feed import PositionFeed
from ptychostream.ioc.view import LARGEST, Groups, Readback
from ptychostream.positions.position_stream import StreamPositions

NOT_USED, DISCONNECTED, CONNECTED = range(3)
"""States of PositionConnected_RBV."""
MANUAL, ESTIMATING, ESTIMATED = range(3)
"""States of ClockOffsetState_RBV."""


def connection(feed: PositionFeed) -> int:
    """Whether the stream of positions is connected."""
    return NOT_USED if not feed.wanted else CONNECTED if feed.connected else DISCONNECTED


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
                 lambda v: v.samples.counts.received & LARGEST, egu="samples", high=LARGEST),
        Readback("PositionSamplesHeld_RBV", "Samples that frames are placed between", int, lambda v: v.samples.held,
                 egu="samples", high=LARGEST),
        Readback("PositionSamplesTwice_RBV", "Samples that came again", int,
                 lambda v: v.samples.counts.duplicate & LARGEST, egu="samples", high=LARGEST),
        Readback("PositionSamplesConflict_RBV", "Samples of one time with another place", int,
                 lambda v: v.samples.counts.conflicting & LARGEST, egu="samples", high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MAJOR"}),
        Readback("PositionSamplesLate_RBV", "Samples too late behind newer ones", int,
                 lambda v: v.samples.counts.late & LARGEST, egu="samples", high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionSamplesBad_RBV", "Samples that are not finite", int,
                 lambda v: v.samples.counts.bad & LARGEST, egu="samples", high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionSamplesForgotten_RBV", "Oldest samples that gave way", int,
                 lambda v: v.samples.counts.forgotten & LARGEST, egu="samples", high=LARGEST),
        Readback("PositionUpdatesBad_RBV", "Updates of the stream without positions", int,
                 lambda v: v.parts.positions.feed.bad_updates, egu="updates", high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionRestarts_RBV", "Times that the stream's clock went back", int,
                 lambda v: v.samples.counts.restarts, egu="restarts", high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("FramesSettling_RBV", "Frames left out at their scan's start", int,
                 lambda v: v.parts.positions.current.settling, egu="frames", high=LARGEST),
        Readback("FramesMoving_RBV", "Frames left out: the stage moved", int, lambda v: v.samples.moving,
                 egu="frames", high=LARGEST),
        Readback("FramesOutside_RBV", "Frames left out: beyond the field", int,
                 lambda v: v.parts.positions.current.outside, egu="frames", high=LARGEST,
                 fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("PositionMessage_RBV", "Why frame or update gave no position", str,
                 lambda v: v.parts.positions.current.message, length=256),
    ),
    "scan": (
        Readback("PositionsCount_RBV", "Positions known, both coordinates", int, lambda v: v.parts.positions.count,
                 egu="positions", high=100000000),
        Readback("PositionUnit_RBV", "Unit of the positions as they are sent", str,
                 lambda v: v.parts.settings.positions.axes.unit, length=39),
        Readback("SignX_RBV", "Sign from the beamline's x to the canvas", int,
                 lambda v: v.parts.settings.positions.axes.sign_x, egu="1", low=-1, high=1),
        Readback("SignY_RBV", "Sign from the beamline's y to the canvas", int,
                 lambda v: v.parts.settings.positions.axes.sign_y, egu="1", low=-1, high=1),
    ),
}
# fmt: on
