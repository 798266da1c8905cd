"""The compiled arithmetic of the spread: the second moment of the patches on each pixel of a canvas.

What a patch adds to a pixel is computed in float32, in one order and without contraction, and rounded to an integer
once. After that there are only additions of integers, so the sums depend neither on the order of the patches nor on
their division among canvases.

===============  ======================================================  =====================
accumulator      a patch adds                                            at most
===============  ======================================================  =====================
square           weight · phase², in 1 / SQUARE_STEPS rad²               2³¹, fits int32
weight squared   weight², in 1 / NUMBER_STEPS                            2²⁸, fits int32
===============  ======================================================  =====================

Here the weight is 1 for a patch pixel of full weight. The phase is that of the patch after the bilinear interpolation,
so that one patch alone has no spread. int64 holds 4·10⁹ patches of the largest phase on one pixel.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from ptychostream.imaging.stitching_kernels import (
    ADD_PATCHES,
    PHASE_STEPS,
    ROWS,
    SUBPIXEL_STEPS,
    TERM_SCALE,
    WEIGHT_STEPS,
)

SQUARE_STEPS = 1 << 21
"""Steps per rad² of a patch of full weight: a square is rounded to 5e-7 rad²."""
NUMBER_STEPS = 1 << 28
_SQUARE = np.float32(SQUARE_STEPS)
_NUMBER = np.float32(NUMBER_STEPS)
_STEPS, _STEP = np.float32(PHASE_STEPS), np.float32(1.0 / PHASE_STEPS)
_WEIGHT = np.float32(1.0 / WEIGHT_STEPS)
_SUBPIXEL = np.float32(1.0 / SUBPIXEL_STEPS)
_ONE, _TINY, _NAN = np.float32(1), np.float32(1e-12), np.float32(np.nan)
_LEAST = 100  # of the sum of squared weights: fewer steps give no number of patches


@numba.njit(ADD_PATCHES, nogil=True, cache=True, error_model="numpy")
def accumulate_spread(
    square: NDArray[np.int64],
    weight_squared: NDArray[np.int64],
    patches: NDArray[np.float32],
    footprint: NDArray[np.int32],
    row0: int,
    column0: int,
    places: NDArray[np.int64],
) -> None:
    """Add patches to the accumulators. Parameters as `stitching_kernels.accumulate`."""
    nr, nc = footprint.shape
    f_row, q_row = np.empty(nc, np.float32), np.empty(nc, np.float32)
    v_rows, w_rows = np.empty((2, nc + 1), np.float32), np.empty((2, nc + 1), np.float32)
    squares, numbers = np.empty(nc + 1, np.int32), np.empty(nc + 1, np.int32)
    for b in range(patches.shape[0]):
        top, left, down, right = places[b, 0], places[b, 1], places[b, 2], places[b, 3]
        width = nc + (1 if right > 0 else 0)
        move_x, move_y = np.float32(right) * _SUBPIXEL, np.float32(down) * _SUBPIXEL
        keep_x, keep_y = _ONE - move_x, _ONE - move_y
        v_rows[:] = 0
        w_rows[:] = 0
        for r in range(nr + (1 if down > 0 else 0)):
            v_now, v_last = v_rows[r & 1], v_rows[1 - (r & 1)]
            w_now, w_last = w_rows[r & 1], w_rows[1 - (r & 1)]
            if r < nr:
                i_row = footprint[r]
                p_row = patches[b, row0 + r, column0 : column0 + nc]
                for c in range(nc):
                    f_row[c] = np.float32(i_row[c]) * _WEIGHT
                    # The phase is rounded as for the mean, because the spread is a small difference of the two.
                    q_row[c] = np.rint(p_row[c] * _STEPS) * _STEP * f_row[c]
                v_now[0], w_now[0] = keep_x * q_row[0], keep_x * f_row[0]
                for c in range(1, nc):
                    v_now[c] = keep_x * q_row[c] + move_x * q_row[c - 1]
                for c in range(1, nc):
                    w_now[c] = keep_x * f_row[c] + move_x * f_row[c - 1]
                v_now[nc], w_now[nc] = move_x * q_row[nc - 1], move_x * f_row[nc - 1]
            else:
                v_now[:] = 0
                w_now[:] = 0
            for c in range(width):
                v = keep_y * v_now[c] + move_y * v_last[c]
                w = keep_y * w_now[c] + move_y * w_last[c]
                squares[c] = np.int32(np.rint(v * v / max(w, _TINY) * _SQUARE))  # v is 0 where w is
                numbers[c] = np.int32(np.rint(w * w * _NUMBER))
            square_row = square[top + r, left : left + width]
            number_row = weight_squared[top + r, left : left + width]
            for c in range(width):
                square_row[c] += squares[c]
            for c in range(width):
                number_row[c] += numbers[c]


@numba.njit(
    numba.void(ROWS, ROWS, ROWS, ROWS, numba.float32[:, ::1], numba.float32[:, ::1]),
    nogil=True,
    cache=True,
    error_model="numpy",
)
def divide_spread(
    value: NDArray[np.int64],
    weight: NDArray[np.int64],
    square: NDArray[np.int64],
    weight_squared: NDArray[np.int64],
    spread_out: NDArray[np.float32],
    number_out: NDArray[np.float32],
) -> None:
    """Spread of single patches (rad) and effective number of patches from the accumulators.

    The number is (Σ w)² / Σ w². The spread is the weighted standard deviation with the correction for the mean that
    comes from the same patches, 1 − 1 / number. The spread is NaN where the number is at most 1.01. The number is 0
    where nothing was added, or only weights so small that their squares are lost.
    """
    for r in range(value.shape[0]):
        value_row, weight_row, square_row, squared_row = value[r], weight[r], square[r], weight_squared[r]
        spread_row, number_row = spread_out[r], number_out[r]
        for c in range(value_row.size):
            w = np.float64(weight_row[c]) / TERM_SCALE
            mean = np.float64(value_row[c]) / (np.float64(weight_row[c]) * PHASE_STEPS)
            variance = np.float64(square_row[c]) / (w * SQUARE_STEPS) - mean * mean
            number = w * w * NUMBER_STEPS / np.float64(squared_row[c]) if squared_row[c] >= _LEAST else 0.0
            several = number > 1.01
            spread_row[c] = np.float32(np.sqrt(max(variance, 0.0) / (1.0 - 1.0 / number))) if several else _NAN
            number_row[c] = np.float32(number)
