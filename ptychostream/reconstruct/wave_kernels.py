"""Exit waves, the modulus constraint, the displacement it stands for, and the parts of ePIE's update. Compiled."""

from __future__ import annotations

import numpy as np
from numba import njit

from ptychostream.reconstruct.fft_kernels import FAST


@njit(inline="always", **FAST)
def row_of(object_, row, column, n):  # type: ignore[no-untyped-def]
    # Slice a whole row, so that the compiler knows that the result is contiguous.
    return object_[0, row, column : column + n], object_[1, row, column : column + n]


@njit(**FAST)
def displacement(change, probe, object_, row, column, shift):  # type: ignore[no-untyped-def]
    """The displacement of a position that would change its exit waves as `change`, least squares over all modes.

    Displaced by d the object is O + d · grad O, and a mode's exit wave P O changes by P (d · grad O).

    Parameters
    ----------
    change
        [2, modes, n, n + padding] change of the exit waves by the modulus constraint.
    shift
        [2] gets (rows, columns), object pixels. The object must have a pixel around the window.
    """
    modes, n = probe.shape[1], probe.shape[2]
    d_re, d_im, power = np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32)
    half = np.float32(0.5)
    yy, xx, xy, by, bx = 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        above_re, above_im = row_of(object_, row + i - 1, column, n)
        below_re, below_im = row_of(object_, row + i + 1, column, n)
        left_re, left_im = row_of(object_, row + i, column - 1, n)
        right_re, right_im = row_of(object_, row + i, column + 1, n)
        d_re[:] = 0
        d_im[:] = 0
        power[:] = 0
        for mode in range(modes):
            x, y = change[0, mode, i, :n], change[1, mode, i, :n]
            p, q = probe[0, mode, i], probe[1, mode, i]
            for k in range(n):
                d_re[k] += p[k] * x[k] + q[k] * y[k]
                d_im[k] += p[k] * y[k] - q[k] * x[k]
                power[k] += p[k] * p[k] + q[k] * q[k]
        row_yy, row_xx, row_xy = np.float32(0), np.float32(0), np.float32(0)
        row_by, row_bx = np.float32(0), np.float32(0)
        for k in range(n):
            u, v = half * (below_re[k] - above_re[k]), half * (below_im[k] - above_im[k])
            s, t = half * (right_re[k] - left_re[k]), half * (right_im[k] - left_im[k])
            row_yy += power[k] * (u * u + v * v)
            row_xx += power[k] * (s * s + t * t)
            row_xy += power[k] * (u * s + v * t)
            row_by += u * d_re[k] + v * d_im[k]
            row_bx += s * d_re[k] + t * d_im[k]
        yy += float(row_yy)
        xx += float(row_xx)
        xy += float(row_xy)
        by += float(row_by)
        bx += float(row_bx)
    determinant = yy * xx - xy * xy
    if determinant > 1e-6 * yy * xx:
        shift[0] = (xx * by - xy * bx) / determinant
        shift[1] = (yy * bx - xy * by) / determinant
    else:  # an object without structure says nothing
        shift[:] = 0


# The maxima are collected column by column, because an ordinary maximum does not become SIMD code.


@njit(**FAST)
def object_peak(object_, row, column, columns):  # type: ignore[no-untyped-def]
    n = columns.shape[0]
    columns[:] = 0
    for i in range(n):
        a, b = row_of(object_, row + i, column, n)
        for k in range(n):
            columns[k] = max(columns[k], a[k] * a[k] + b[k] * b[k])
    return columns.max()


@njit(**FAST)
def probe_peak_of(probe, columns):  # type: ignore[no-untyped-def]
    columns[:] = 0
    for i in range(probe.shape[2]):
        for k in range(probe.shape[3]):
            power = np.float32(0)
            for mode in range(probe.shape[1]):
                power += probe[0, mode, i, k] ** 2 + probe[1, mode, i, k] ** 2
            columns[k] = max(columns[k], power)
    return columns.max()


@njit(**FAST)
def exit_wave(re, im, p_re, p_im, object_, row, column):  # type: ignore[no-untyped-def]
    n = p_re.shape[0]
    norm = np.float32(1) / np.float32(n)
    for i in range(n):
        x, y, p, q = re[i, :n], im[i, :n], p_re[i], p_im[i]
        a, b = row_of(object_, row + i, column, n)
        for k in range(n):
            x[k] = norm * (p[k] * a[k] - q[k] * b[k])
            y[k] = norm * (p[k] * b[k] + q[k] * a[k])


@njit(**FAST)
def constrain(waves, amplitudes, factors):  # type: ignore[no-untyped-def]
    """Replace the waves [2, modes, n, n] by the change that the modulus constraint makes to them.

    Returns the sums of (sqrt(I) - |psi|)^2 and of |sqrt(I) - |psi|| over good pixels.
    """
    modes, n = waves.shape[1], amplitudes.shape[0]
    norm = np.float32(1) / np.float32(n)
    tiny = np.float32(1e-20)
    squared, absolute = 0.0, 0.0
    for i in range(n):
        measured = amplitudes[i]
        factors[:] = tiny
        for mode in range(modes):
            x, y = waves[0, mode, i, :n], waves[1, mode, i, :n]
            for k in range(n):
                factors[k] += x[k] * x[k] + y[k] * y[k]
        row_squared, row_absolute = np.float32(0), np.float32(0)
        for k in range(n):
            modulus = np.sqrt(factors[k])
            good = np.float32(1) if measured[k] >= 0 else np.float32(0)
            lacking = good * (measured[k] - modulus)
            row_squared += lacking * lacking
            row_absolute += abs(lacking)
            factors[k] = norm * lacking / modulus
        squared += float(row_squared)
        absolute += float(row_absolute)
        for mode in range(modes):
            x, y = waves[0, mode, i, :n], waves[1, mode, i, :n]
            for k in range(n):
                x[k] *= factors[k]
                y[k] *= factors[k]
    return squared, absolute


@njit(inline="always", **FAST)
def update_probe_row(change, probe, i, a, b, probe_step, d_re, d_im, power):  # type: ignore[no-untyped-def]
    """Row i of an update: conj(P) · change of the old probe into d_re and d_im, and the new probe's |P|² into power.

    `a` and `b` are the object's row, which is not changed yet.
    """
    n = power.shape[0]
    d_re[:] = 0
    d_im[:] = 0
    power[:] = 0
    for mode in range(probe.shape[1]):
        x, y = change[0, mode, i, :n], change[1, mode, i, :n]
        p, q = probe[0, mode, i], probe[1, mode, i]
        for k in range(n):
            d_re[k] += p[k] * x[k] + q[k] * y[k]
            d_im[k] += p[k] * y[k] - q[k] * x[k]
        for k in range(n):
            p[k] += probe_step * (a[k] * x[k] + b[k] * y[k])
            q[k] += probe_step * (a[k] * y[k] - b[k] * x[k])
        for k in range(n):
            power[k] += p[k] * p[k] + q[k] * q[k]
