"""Reads the live phase over PV Access: `python read_phase_p4p.py ptycho:NN1: phase.npy`."""

import sys

import numpy as np
from p4p.client.thread import Context

prefix = sys.argv[1] if len(sys.argv) > 1 else "ptycho:NN1:"
with Context("pva") as pva:
    phase = pva.get(f"{prefix}Phase", timeout=30)  # a numpy array [H, W], rad: a square around the canvas
    told = phase.attrib
    left, top, width, height = (told[f"Canvas{name}"] for name in ("Left", "Top", "Width", "Height"))
    phase = phase[top : top + height, left : left + width]
    ssim, compared = pva.get([f"{prefix}SSIM_RBV", f"{prefix}SSIMScan_RBV"], timeout=30)
print(f"scan {told['ScanID']}: {told['FramesStitched']} frames, {phase.shape[1]} x {phase.shape[0]} pixels")
print(f"one pixel is {1e9 * told['PixelSize']:.1f} nm; phase from {phase.min():.2f} to {phase.max():.2f} rad")
print(f"SSIM {ssim:.2f} on scan {compared}" if compared else "SSIM: no reconstruction to compare with")
if len(sys.argv) > 2:
    np.save(sys.argv[2], np.asarray(phase))
