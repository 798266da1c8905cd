"""The displacement of a position that a change of its exit waves stands for. Compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_FAST: dict[str, Any] = {"fastmath": True, "error_model": "numpy", "cache": True, "nogil": True}


@njit(inline="always", **_FAST)
def row_of(object_, row, column, n):  # type: ignore[no-untyped-def]
    # Slice a whole row, so that the compiler knows that the result is contiguous.
    return object_[0, row, column : column + n], object_[1, row, column : column + n]


@njit(**_FAST)
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
