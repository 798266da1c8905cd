"""Readbacks of scans: what tells them apart, the finished canvases, their files, the agent's lease."""

from __future__ import annotations

import math

from ptychostream.ioc.view import LARGEST, Groups, Readback
from ptychostream.plugins.flow.snapshot import RunFigures, Snapshot


def progress(snapshot: Snapshot, frames: int) -> float:
    """Percent of a scan of `frames` frames that is stitched; NaN where that number is not known."""
    return min(100.0, 100.0 * snapshot.scan_stitched / frames) if frames else math.nan


def run_text(run: RunFigures) -> str:
    """A run's accounting in a line."""
    counts = {"received": run.received, "stitched": run.stitched, "pending": run.pending, "missed": run.missed}
    counts |= {f"dropped {cause.value}": count for cause, count in run.dropped.items()}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count or name in ("received", "stitched"))
    return f"{run.number} {run.scan or '(unnamed)'}: {told}"


# fmt: off
SCANS: Groups = {
    "agent": (
        Readback("Agent:Lease_RBV", "The agent of this edge", str, lambda v: v.parts.agent.holder, length=39),
        Readback("Agent:ReconstructAsked_RBV", "Number of the newest Reconstruct", int,
                 lambda v: v.parts.agent.asked["reconstruct"], high=LARGEST),
        Readback("Agent:RetrainAsked_RBV", "Number of the newest Retrain", int,
                 lambda v: v.parts.agent.asked["retrain"], high=LARGEST),
        Readback("Agent:CommandStatus_RBV", "The agent and what it was asked to do", int,
                 lambda v: v.parts.agent.status, states=("Idle", "Working", "No agent"), fields={"TWSV": "MAJOR"}),
    ),
    "canvases": (
        Readback("ScanPVState_RBV", "Whether the scan PVs answer", int, lambda v: v.scans.pv_state,
                 states=("Not used", "Disconnected", "Connected"), fields={"ONSV": "MAJOR"}),
        Readback("LateFrames_RBV", "What becomes of a finished scan's frames", bool,
                 lambda v: v.parts.settings.scan.late == "drop", states=("Stitch", "Drop")),
        Readback("ScanRun_RBV", "Number of the scan that is stitched", int,
                 lambda v: v.snapshot.runs[0].number if v.snapshot.runs else 0, high=1000000),
        Readback("KeptCanvases_RBV", "Finished scans that are kept now", int,
                 lambda v: max(0, len(v.snapshot.runs) - 1), high=100),
        Readback("KeptMemory_RBV", "Memory of the finished canvases", float, lambda v: 1e-6 * v.snapshot.kept_bytes,
                 egu="MB", prec=1, high=10000, fields={"MDEL": 0.1, "ADEL": 10}),
        Readback("KeptScans_RBV", "Accounting of the scans, a line each", str,
                 lambda v: "\n".join(map(run_text, v.snapshot.runs)), length=8192),
        Readback("ShowScan_RBV", "Scan shown: 0 live, n the n-th last", int,
                 lambda v: v.parts.shown.wish if v.chosen else 0, high=100),
        Readback("ShownScanID_RBV", "Scan that the images show", str,
                 lambda v: v.chosen.scan if v.chosen else v.snapshot.scan, length=39),
        Readback("LastSavedFile_RBV", "File of the canvas saved last", str, lambda v: v.parts.saver.last_file,
                 length=1024),
        Readback("SaveStatus_RBV", "What the saving of canvases does", int, lambda v: v.parts.saver.state,
                 states=("Idle", "Saving", "Saved", "Failed"), fields={"THSV": "MAJOR"}),
        Readback("SaveMessage_RBV", "What was saved last, or why not", str, lambda v: v.parts.saver.message),
        Readback("CanvasesSaved_RBV", "Canvases saved since the start", int, lambda v: v.parts.saver.saved,
                 high=1000000),
        Readback("CanvasesWaiting_RBV", "Canvases to be saved, or saved again", int, lambda v: v.parts.saver.waiting,
                 high=100),
        Readback("CanvasesLost_RBV", "Canvases that could not be saved at all", int, lambda v: v.parts.saver.lost,
                 high=1000000, fields={"HIGH": 1, "HSV": "MAJOR"}),
    ),
    "scan": (
        Readback("ScanActive_RBV", "Frames of a scan are expected", bool, lambda v: v.scans.active(v.snapshot),
                 states=("Idle", "Active")),
        Readback("ScanProgress_RBV", "Part of the scan that is stitched", float,
                 lambda v: progress(v.snapshot, v.parts.settings.scan.frames), egu="%", prec=1, high=100,
                 fields={"MDEL": 0.1, "ADEL": 1}),
    ),
}
# fmt: on
