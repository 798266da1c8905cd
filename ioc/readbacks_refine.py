"""Readbacks of the refinement."""

from __future__ import annotations

from ptychostream.ioc.images.served_area import ServedArea
from ptychostream.ioc.readbacks_stream import edge
from ptychostream.ioc.view import MANY, Groups, Readback, View
from ptychostream.plugins.refining.refined import RefineState
from ptychostream.refine.figures import PositionFigures
from ptychostream.refine.status import PositionStatus, RefineStatus


def status(state: RefineState, enabled: bool) -> RefineStatus:
    """What the refinement does."""
    if not enabled:
        return RefineStatus.DISABLED
    if state.stopped:
        return RefineStatus.STOPPED
    if not state.figures.frames:
        return RefineStatus.WAITS
    return RefineStatus.CONVERGED if state.figures.converged else RefineStatus.REFINES


def _placed(view: View) -> PositionFigures:
    return view.refine.figures.positions


def _area(view: View) -> ServedArea:
    return view.parts.refined.area


# fmt: off
REFINE: Groups = {
    "refine": (
        Readback("Refine:Status_RBV", "What the refinement does", int,
                 lambda v: status(v.refine, v.parts.settings.refine.enabled),
                 states=tuple(state.name.capitalize() for state in RefineStatus), fields={"FRSV": "MAJOR"}),
        Readback("Refine:Message_RBV", "Why frames are not refined", str, lambda v: v.refine.message),
        Readback("Refine:Scan_RBV", "Scan that is refined", str, lambda v: v.refine.scan, length=39),
        Readback("Refine:Frames_RBV", "Frames that are refined", int, lambda v: v.refine.figures.frames,
                 egu="frames", high=MANY),
        Readback("Refine:Waiting_RBV", "Frames that wait to be refined", int, lambda v: v.refine.waiting,
                 egu="frames", high=1_000_000),
        Readback("Refine:LeftOut_RBV", "Frames left out, the memory is full", int,
                 lambda v: v.refine.figures.left_out, egu="frames", high=MANY, fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("Refine:NotTaken_RBV", "Frames not taken: queue full, unusable", int, lambda v: v.refine.not_taken,
                 egu="frames", high=MANY, fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("Refine:MemoryUsed_RBV", "Memory of frames and image", float,
                 lambda v: 1e-6 * v.refine.figures.memory_bytes, egu="MB", prec=1, high=1_000_000,
                 fields={"MDEL": 0.1, "ADEL": 10}),
        Readback("Refine:Passes_RBV", "Mean number of uses of a frame", float, lambda v: v.refine.figures.passes,
                 prec=1, high=10_000, fields={"MDEL": 0.1, "ADEL": 10}),
        Readback("Refine:RFactor_RBV", "R factor of the refined image", float, lambda v: v.refine.figures.r_factor,
                 prec=4, high=1, fields={"MDEL": 0.0001, "ADEL": 0.01}),
        Readback("Refine:RTrend_RBV", "Change of the R factor in a pass", float, lambda v: v.refine.figures.r_trend,
                 prec=6, low=-1, high=1, fields={"MDEL": 0.00001, "ADEL": 0.01}),
        Readback("Refine:Visits_RBV", "How often a pixel was measured, median", float,
                 lambda v: v.refine.figures.visits, prec=2, high=1000, fields={"MDEL": 0.01, "ADEL": 1}),
        Readback("Refine:Change_RBV", "Movement of the phase in a pass, rms", float,
                 lambda v: v.refine.figures.change_rad, egu="rad", prec=4, high=10,
                 fields={"MDEL": 0.0001, "ADEL": 0.01}),
        Readback("Refine:Pull_RBV", "Visits that outweigh the network", float, lambda v: v.refine.figures.pull.phase,
                 prec=3, high=2, fields={"MDEL": 0.001, "ADEL": 0.1}),
        Readback("Refine:Probe_RBV", "Where the first probe came from", str, lambda v: v.refine.probe_source),
        Readback("Refine:Lag_RBV", "Age of the oldest frame that waits", float, lambda v: v.refine.lag_s, egu="s",
                 prec=2, high=100_000, fields={"MDEL": 0.01, "ADEL": 1}),
        Readback("Refine:SSIM_RBV", "SSIM of the live to the refined phase", float, lambda v: v.refine.ssim, low=-1,
                 high=1, fields={"MDEL": 0.001, "ADEL": 0.01}),
        Readback("Refine:FRC_RBV", "Resolution by Fourier ring correlation", float, lambda v: 1e9 * v.refine.frc_m,
                 egu="nm", prec=1, high=1000, fields={"MDEL": 0.1, "ADEL": 1}),
        Readback("Refine:PositionStatus_RBV", "What becomes of the positions", int, lambda v: _placed(v).status,
                 states=tuple(state.name.capitalize().replace("_", " ") for state in PositionStatus),
                 fields={"FRSV": "MINOR", "FVSV": "MAJOR"}),
        Readback("Refine:PositionMessage_RBV", "Why positions are not corrected", str, lambda v: _placed(v).message),
        Readback("Refine:PositionRms_RBV", "Correction of the positions, rms", float,
                 lambda v: 1e9 * _placed(v).rms_m, egu="nm", prec=1, high=1_000_000, fields={"MDEL": 0.1, "ADEL": 10}),
        Readback("Refine:PositionMax_RBV", "Largest correction of a position", float,
                 lambda v: 1e9 * _placed(v).largest_m, egu="nm", prec=1, high=1_000_000,
                 fields={"MDEL": 0.1, "ADEL": 10}),
        Readback("Refine:PositionBound_RBV", "A position moves so far along an axis", float,
                 lambda v: 1e9 * _placed(v).bound_m, egu="nm", prec=1, high=1_000_000,
                 fields={"MDEL": 0.1, "ADEL": 10}),
        Readback("Refine:AtBound_RBV", "Frames whose position is at the bound", int, lambda v: _placed(v).at_bound,
                 egu="frames", high=MANY, fields={"HIGH": 1, "HSV": "MINOR"}),
        Readback("Refine:PositionPasses_RBV", "Passes that corrected positions", int, lambda v: _placed(v).passes,
                 egu="passes", high=10_000),
        Readback("Refine:Images_RBV", "Refined images served", int, lambda v: v.parts.refined.served,
                 egu="images", high=MANY, fields={"ADEL": 10}),
        edge("Refine:Left_RBV", "x of the refined image's left edge", lambda area: area.image_um[0], _area),
        edge("Refine:Right_RBV", "x of the refined image's right edge", lambda area: area.image_um[1], _area),
        edge("Refine:Top_RBV", "y of the refined image's first row", lambda area: area.image_um[2], _area),
        edge("Refine:Bottom_RBV", "y of the refined image's last row", lambda area: area.image_um[3], _area),
        Readback("Refine:SavedFile_RBV", "File of the last refined scan", str, lambda v: v.refine.saved, length=1024),
    ),
}
# fmt: on
