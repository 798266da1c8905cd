"""Readbacks of the model: the slot, the canary, the rollback; and of the image's quality."""

from __future__ import annotations

import math

from ptychostream.ioc.view import Groups, Readback

# fmt: off
MODEL: Groups = {
    "canary": (
        Readback("CanaryDifference_RBV", "Rms phase difference to the model before", float,
                 lambda v: v.parts.slot.canary.latest.rms, egu="rad", prec=4, high=10),
        Readback("CanaryFrames_RBV", "Patterns compared; 0: not compared", int,
                 lambda v: v.parts.slot.canary.latest.frames, egu="frames", high=32),
        Readback("PreviousSHA_RBV", "sha256 of the model to go back to", str,
                 lambda v: v.parts.slot.previous.sha256 if v.parts.slot.previous else "", length=72),
        Readback("ModelRolledBack_RBV", "A model was worse, and was taken back", bool,
                 lambda v: v.parts.rollback.alarm, states=("No", "Rolled back"), fields={"OSV": "MAJOR"}),
        Readback("RollbackMessage_RBV", "Both models, their SSIM, what was done", str,
                 lambda v: v.parts.rollback.message, length=1024),
        Readback("Agent:JudgedNonce_RBV", "What the next judgement is signed with", str,
                 lambda v: v.parts.verdicts.nonce, length=39),
    ),
    "model": (
        Readback("ModelFile_RBV", "File of the model that is live", str, lambda v: v.live.path if v.live else "",
                 saved=True),
        Readback("ModelState_RBV", "State of the model slot", int, lambda v: v.parts.slot.state,
                 states=("NoModel", "Staging", "Checking", "Building", "Live", "Failed"),
                 fields={"ZRSV": "MAJOR", "FVSV": "MINOR"}),
        Readback("ModelMessage_RBV", "What the model slot did, or why not", str, lambda v: v.parts.slot.message,
                 length=1024),
        Readback("ModelVersion_RBV", "Name of the model that is live", str,
                 lambda v: v.live.contract.name if v.live else "", length=39),
        Readback("ModelSHA_RBV", "sha256 of the model that is live", str, lambda v: v.live.sha256 if v.live else "",
                 length=72),
        Readback("PreviousModel_RBV", "Model that RollbackModel goes back to", str,
                 lambda v: v.parts.slot.previous.contract.name if v.parts.slot.previous else "", length=39),
        Readback("ModelAge_RBV", "Time since the model went live", float,
                 lambda v: max(0.0, math.floor(v.now - v.live.since)) if v.live else math.nan, egu="s", prec=0,
                 high=604800, fields={"MDEL": 1, "ADEL": 60}),
        Readback("EngineName_RBV", "Engine that is live, with its version", str,
                 lambda v: f"{v.live.engine} {v.live.engine_version}".strip() if v.live else "", length=39),
        Readback("EngineReason_RBV", "Device of the engine, and why this one", str,
                 lambda v: v.live.reason if v.live else ""),
        Readback("EnginePrecision_RBV", "Arithmetic of the engine that is live", str,
                 lambda v: v.live.precision if v.live else "", length=39),
    ),
    "quality": (
        Readback("SSIM_RBV", "SSIM against the reference, as it is", float,
                 lambda v: v.quality.ssim if v.quality else math.nan, high=1),
        Readback("SSIM1px_RBV", "SSIM, both low-passed at 1 object pixel", float,
                 lambda v: v.quality.ssim_1px if v.quality else math.nan, high=1),
        Readback("Pearson_RBV", "Pearson's r against the reference", float,
                 lambda v: v.quality.pearson if v.quality else math.nan, low=-1, high=1),
        Readback("SSIMRange_RBV", "Range of the reference, for the SSIM", float,
                 lambda v: v.quality.range_rad if v.quality else math.nan, egu="rad", high=10),
        Readback("SSIMRunaways_RBV", "Reference pixels that are not compared", int,
                 lambda v: v.quality.runaways if v.quality else 0, egu="pixels", high=10**9),
        Readback("SSIMShift_RBV", "Shift to the reference within its limit", bool,
                 lambda v: v.quality is not None and v.quality.at_limit, states=("Within", "Beyond"),
                 fields={"OSV": "MINOR"}),
        Readback("SSIMScan_RBV", "Scan that SSIM_RBV is about", str,
                 lambda v: v.parts.comparison.latest.scan if v.parts.comparison.latest else "", length=39),
        Readback("SSIMStatus_RBV", "SSIM1px is within its tolerance", int, lambda v: v.parts.comparison.status,
                 states=("Within", "Below", "Unknown"), fields={"ONSV": "MINOR"}),
        Readback("Consistency_RBV", "Pattern explained: 1 all, 0 none of it", float, lambda v: v.consistency.figure,
                 low=-1, high=1, fields={"MDEL": 0.001, "ADEL": 0.01}),
        Readback("RFactor_RBV", "R factor of the latest patch", float,
                 lambda v: v.consistency.r_factor if math.isfinite(v.consistency.figure) else math.nan, prec=4,
                 high=1, fields={"MDEL": 0.0001, "ADEL": 0.01}),
    ),
    "scan": (
        Readback("PixelSize_RBV", "Size of a pixel of the stitched phase", float,
                 lambda v: 1e9 * v.live.contract.object_pixel_m if v.live else math.nan, egu="nm", prec=4, high=1000),
    ),
    "timing": (
        Readback("BatchSize_RBV", "Batch of the engine that is live", int,
                 lambda v: v.live.batch if v.live else v.parts.slot.wish.batch, egu="frames", low=1, high=256),
    ),
}
# fmt: on
