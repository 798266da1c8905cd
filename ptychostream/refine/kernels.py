"""One visit of a frame: ePIE's step with a pull towards the network's phase and towards modulus 1. Compiled.

The step descends E = Σ (√I − |ψ|)² + peak · Σ [κ_φ · 2 (1 − cos Δφ) + κ_a (|O| − 1)²] (docs/explanation/refinement.md).
Each visit takes the share |P|² / Σ|P|² of the second sum, so that over all visits a pixel feels it once, however often
it was measured.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from ptychostream.reconstruct.fft_kernels import FAST, forward, inverse
from ptychostream.reconstruct.wave_kernels import (
    constrain,
    displacement,
    exit_wave,
    object_peak,
    probe_peak_of,
    row_of,
    update_probe_row,
)
from ptychostream.refine.frame_store import BAD, STEP


@njit(**FAST)
def visit(order, stored, corners, object_, prior, visits, probe, work, w, steps, pulls, residuals, shifts):  # type: ignore[no-untyped-def]
    """Visit the frames `order` once, in this order, and update object and probe.

    Parameters
    ----------
    order
        [m] int64 places of the frames in the store.
    stored, corners
        [N, n, n] uint16, see `FrameStore.amplitudes`; [N, 2] int64 (row, column) in `object_`.
    object_, prior
        [2, H, W] float32, real and imaginary part. `prior` has modulus 1, or 0 where the network drew nothing.
    visits
        [H, W] float32, how often each pixel was measured: Σ|P|² / max|P|².
    probe, work, w
        [2, modes, n, n] float32; [2, 2, modes, n, n + PADDING]; `fft_kernels.twiddles`.
    steps, pulls
        (object, probe) steps; (κ_φ, κ_a).
    residuals
        [N] float32, gets Σ(√I − |ψ|)² of each visited frame.
    shifts
        [N, 2] float64, gets the displacement of each visited frame (see `wave_kernels.displacement`), for which the
        object must have a pixel around each window; [0, 2]: none is measured.
    """
    modes, n = probe.shape[1], probe.shape[2]
    scratch = np.zeros((2, n), np.float32)
    frame = np.empty((n, n), np.float32)
    peak = probe_peak_of(probe, scratch[0])
    for index in order:
        row, column = corners[index]
        for mode in range(modes):
            re, im = work[0, 0, mode], work[0, 1, mode]
            exit_wave(re, im, probe[0, mode], probe[1, mode], object_, row, column)
            forward(re, im, work[1, 0, mode], work[1, 1, mode], w)
        _decode(stored[index], frame)
        squared, _ = constrain(work[1], frame, scratch[0])
        residuals[index] = squared
        for mode in range(modes):
            inverse(work[1, 0, mode], work[1, 1, mode], work[0, 0, mode], work[0, 1, mode], w)
        if shifts.shape[0]:
            displacement(work[0], probe, object_, row, column, shifts[index])
        probe_step = steps[1] / object_peak(object_, row, column, scratch[0])
        peak = _update(work[0], probe, object_, prior, visits, row, column, peak, steps[0], probe_step, pulls, scratch)


@njit(**FAST)
def _decode(stored, frame):  # type: ignore[no-untyped-def]
    n = frame.shape[0]
    for i in range(n):
        row, out = stored[i], frame[i]
        for k in range(n):
            out[k] = np.float32(row[k]) * np.float32(STEP) if row[k] != BAD else np.float32(-1)


@njit(**FAST)
def add_visits(visits, corners, footprint):  # type: ignore[no-untyped-def]
    """Add `footprint` [n, n] to `visits` [H, W] at every corner [N, 2]."""
    n = footprint.shape[0]
    for index in range(corners.shape[0]):
        row, column = corners[index]
        for i in range(n):
            there, one = visits[row + i, column : column + n], footprint[i]
            for k in range(n):
                there[k] += one[k]


@njit(**FAST)
def _update(change, probe, object_, prior, visits, row, column, peak, step, probe_step, pulls, scratch):  # type: ignore[no-untyped-def]
    """Update object and probe, each with the other's old value. Returns max|P|²."""
    modes, n = probe.shape[1], probe.shape[2]
    columns = np.zeros(n, np.float32)
    power = np.empty(n, np.float32)
    old = np.empty(n, np.float32)
    d_re, d_im = scratch[0], scratch[1]
    gain = step / peak
    one, tiny = np.float32(1), np.float32(1e-12)
    for i in range(n):
        a, b = row_of(object_, row + i, column, n)
        u, v = row_of(prior, row + i, column, n)
        m = visits[row + i, column : column + n]
        old[:] = 0
        for mode in range(modes):
            p, q = probe[0, mode, i], probe[1, mode, i]
            for k in range(n):
                old[k] += p[k] * p[k] + q[k] * q[k]
        update_probe_row(change, probe, i, a, b, probe_step, d_re, d_im, power)
        for k in range(n):
            share = gain * old[k] / max(m[k], tiny)
            modulus = np.sqrt(a[k] * a[k] + b[k] * b[k]) + tiny
            turn = (a[k] * v[k] - b[k] * u[k]) / modulus * min(pulls[0] * share, one)
            stretch = (one - modulus) / modulus * min(pulls[1] * share, one)
            new_a = a[k] + gain * d_re[k] - turn * b[k] / modulus + stretch * a[k]
            b[k] += gain * d_im[k] + turn * a[k] / modulus + stretch * b[k]
            a[k] = new_a
        for k in range(n):
            columns[k] = max(columns[k], power[k])
    return columns.max()
