"""Scans of the simulated beamline by bluesky: one repeated until it is good, and an adaptive one.

`python bluesky_plans.py ptycho:NN1: bl: scans/reference.h5`; the last is a reconstruction to compare with.
"""

import sys

import numpy as np
from bluesky import RunEngine
from bluesky import plan_stubs as bps
from ophyd_async.core import init_devices

from ptychostream.bluesky.beamline import SimulatedBeamline
from ptychostream.bluesky.edge import PtychoEdge
from ptychostream.bluesky.plans import adaptive_scan, repeat_until_good, simulated_points

prefix, beamline_prefix, reference = sys.argv[1:4]
engine = RunEngine()
with init_devices():
    edge = PtychoEdge(prefix)
    beamline = SimulatedBeamline(beamline_prefix)


def show(name, document):
    if name == "event":
        data = document["data"]
        told = f"{data['edge-accounting-frames_stitched']} frames stitched by model {data['edge-model-sha'][:8]}"
        print(f"scan {data['edge-scan-id']}: {told}, SSIM {data['edge-quality-ssim']:.3f}")


def more_photons(_taken, _ssim):
    dose = yield from bps.rd(beamline.dose)
    yield from bps.abs_set(beamline.dose, 3 * dose, wait=True)


def session():
    yield from bps.abs_set(edge.quality.ssim_reference, reference, wait=True)
    yield from bps.abs_set(beamline.same_sample, True, wait=True)
    yield from repeat_until_good(edge, beamline, ssim=0.7, tries=3, improve=more_photons)
    axis_m = (np.arange(20) - 9.5) * 80e-9
    points_m = np.stack(np.meshgrid(axis_m, axis_m), axis=-1).reshape(-1, 2)
    beam_m = 750e-9
    yield from adaptive_scan(edge, simulated_points(beamline), points_m, beam_m, budget=len(points_m) // 2)


engine(session(), show)
