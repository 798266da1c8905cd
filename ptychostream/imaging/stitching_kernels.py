"""The compiled integer arithmetic of the canvas.

Every patch value is rounded to an integer once. After that there are only integer multiplications and additions, which
commute. Therefore neither the order of the patches nor their division among canvases changes the result.

========================  =======================  =========================================
quantity                  unit                     range
========================  =======================  =========================================
phase                     1 / PHASE_STEPS rad      ±PHASE_LIMIT: 21 bits and a sign
patch weight              1 / WEIGHT_STEPS         0 … WEIGHT_STEPS: 10 bits
phase · patch weight                               fits int32
bilinear weight, 1 axis   1 / SUBPIXEL_STEPS       0 … SUBPIXEL_STEPS: 6 bits, 12 for both axes
accumulators              product of these units   int64
========================  =======================  =========================================
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

PHASE_STEPS = 1 << 16
"""Steps per radian: a phase is rounded to 1.5e-5 rad."""
WEIGHT_STEPS = 1 << 10
SUBPIXEL_STEPS = 1 << 6
"""Steps per canvas pixel: a position is rounded to 1/64 pixel."""
FARTHEST = 2.0**40
"""The largest distance from the origin in pixels. Farther away float64 does not resolve 1/64 pixel well."""
PHASE_LIMIT = 10 * math.pi
"""Larger phases are refused: phase · weight must fit int32."""
TERM_SCALE = WEIGHT_STEPS * SUBPIXEL_STEPS**2
"""A patch adds at most (its largest quantised phase) · TERM_SCALE to a value and TERM_SCALE to a weight."""
HEADROOM = (2**63 - 1) // TERM_SCALE
"""The largest allowed sum of the patches' largest quantised phases on one pixel: 10 million patches of π."""

PATCHES = numba.types.Array(numba.float32, 3, "C", readonly=True, aligned=False)
ROWS = numba.types.Array(numba.int64, 2, "A")
_SUMS, _PLACES = numba.int64[:, ::1], numba.int64[:, ::1]
ADD_PATCHES = numba.void(_SUMS, _SUMS, PATCHES, numba.int32[:, ::1], numba.int64, numba.int64, _PLACES)
"""Signature of a kernel that adds patches to two accumulators."""
_LIMIT = np.float32(PHASE_LIMIT)
_STEPS = np.float32(PHASE_STEPS)


@numba.njit(numba.void(PATCHES, numba.int64[::1]), nogil=True, cache=True)
def peaks(patches: NDArray[np.float32], peak: NDArray[np.int64]) -> None:
    """The largest quantised |phase| of each patch, rounded up. -1 if a value is not finite or exceeds PHASE_LIMIT."""
    for b in range(patches.shape[0]):
        largest = np.int32(0)
        bad = np.int32(0)
        for r in range(patches.shape[1]):
            row = patches[b, r]
            for c in range(row.size):
                size = abs(row[c])
                good = size <= _LIMIT  # false for NaN
                step = np.int32(size * _STEPS if good else np.float32(0))
                largest = max(largest, step)
                bad |= np.int32(0) if good else np.int32(1)
        peak[b] = -1 if bad else largest + 1


@numba.njit(
    numba.int64(numba.float64[:, ::1], numba.float64, numba.int64[::1], numba.int64[:, ::1], numba.int64[::1]),
    nogil=True,
    cache=True,
    error_model="numpy",
)
def place(
    xy_m: NDArray[np.float64],
    pixel_m: float,
    footprint: NDArray[np.int64],
    places: NDArray[np.int64],
    box: NDArray[np.int64],
) -> int:
    """Compute the places of patches on the absolute grid.

    Parameters
    ----------
    xy_m
        [B, 2] positions (x, y), metres.
    footprint
        Row and column of the footprint's upper left corner relative to the patch's centre, then its height and width.
    places
        [B, 4] output: row and column of the footprint's corner, sub-pixel steps down and right.
    box
        [4] output: top, left, bottom, right of the bounding box of all footprints.

    Returns
    -------
    int
        Index of the first position that is not finite or too far away, else -1.
    """
    for b in range(xy_m.shape[0]):
        x, y = xy_m[b, 0] / pixel_m, xy_m[b, 1] / pixel_m
        if not (abs(x) < FARTHEST and abs(y) < FARTHEST):
            return b
        column, row = np.int64(np.rint(x * SUBPIXEL_STEPS)), np.int64(np.rint(y * SUBPIXEL_STEPS))
        down, right = row % SUBPIXEL_STEPS, column % SUBPIXEL_STEPS
        top, left = row // SUBPIXEL_STEPS + footprint[0], column // SUBPIXEL_STEPS + footprint[1]
        bottom, end = top + footprint[2] + (down > 0), left + footprint[3] + (right > 0)
        places[b, 0], places[b, 1], places[b, 2], places[b, 3] = top, left, down, right
        if b == 0:
            box[0], box[1], box[2], box[3] = top, left, bottom, end
        else:
            box[0], box[1] = min(box[0], top), min(box[1], left)
            box[2], box[3] = max(box[2], bottom), max(box[3], end)
    return -1


@numba.njit(ADD_PATCHES, nogil=True, cache=True)
def accumulate(
    value: NDArray[np.int64],
    weight: NDArray[np.int64],
    patches: NDArray[np.float32],
    footprint: NDArray[np.int32],
    row0: int,
    column0: int,
    places: NDArray[np.int64],
) -> None:
    """Add patches to the accumulators.

    Parameters
    ----------
    value, weight
        [H, W] accumulators. They are changed in place.
    patches
        [B, h, w] phases in rad that `peaks` has accepted.
    footprint
        [nr, nc] quantised patch weight within its bounding box. The box begins at patch pixel [row0, column0].
    places
        [B, 4]: row and column of the footprint's corner in the accumulators, sub-pixel steps down and right.
    """
    nr, nc = footprint.shape
    q_row = np.empty(nc, np.int32)
    # This row and the previous one after the horizontal interpolation, so that each patch row is read once.
    v_rows, w_rows = np.empty((2, nc + 1), np.int64), np.empty((2, nc + 1), np.int32)
    for b in range(patches.shape[0]):
        top, left, down, right = places[b, 0], places[b, 1], places[b, 2], places[b, 3]
        width = nc + (1 if right > 0 else 0)
        keep_x, keep_y = SUBPIXEL_STEPS - right, SUBPIXEL_STEPS - down
        keep_x32, right32 = np.int32(keep_x), np.int32(right)
        keep_y32, down32 = np.int32(keep_y), np.int32(down)
        v_rows[:] = 0
        w_rows[:] = 0
        for r in range(nr + (1 if down > 0 else 0)):
            v_now, v_last = v_rows[r & 1], v_rows[1 - (r & 1)]
            w_now, w_last = w_rows[r & 1], w_rows[1 - (r & 1)]
            if r < nr:
                # With views of single rows the loops have no index checks and vectorise, which is 4 times faster.
                w_row = footprint[r]
                p_row = patches[b, row0 + r, column0 : column0 + nc]
                for c in range(nc):
                    q_row[c] = np.int32(np.rint(p_row[c] * _STEPS)) * w_row[c]
                v_now[0], w_now[0] = keep_x * q_row[0], keep_x32 * w_row[0]
                for c in range(1, nc):
                    v_now[c] = keep_x * np.int64(q_row[c]) + right * np.int64(q_row[c - 1])
                for c in range(1, nc):
                    w_now[c] = keep_x32 * w_row[c] + right32 * w_row[c - 1]
                v_now[nc], w_now[nc] = right * q_row[nc - 1], right32 * w_row[nc - 1]
            else:
                v_now[:] = 0
                w_now[:] = 0
            value_row = value[top + r, left : left + width]
            weight_row = weight[top + r, left : left + width]
            for c in range(width):
                value_row[c] += keep_y * v_now[c] + down * v_last[c]
            for c in range(width):
                weight_row[c] += keep_y32 * w_now[c] + down32 * w_last[c]


@numba.njit(
    numba.void(ROWS, ROWS, numba.float32[:, ::1], numba.float32[:, ::1]),
    nogil=True,
    cache=True,
    error_model="numpy",
)
def divide(
    value: NDArray[np.int64],
    weight: NDArray[np.int64],
    phase_out: NDArray[np.float32],
    weight_out: NDArray[np.float32],
) -> None:
    """Mean phase (rad) and weight (patches) from the accumulators. NaN and 0 where nothing was added."""
    for r in range(value.shape[0]):
        value_row, weight_row = value[r], weight[r]
        phase_row, mean_row = phase_out[r], weight_out[r]
        for c in range(value_row.size):
            w = np.float64(weight_row[c])
            # 0 / 0 is the NaN that marks an empty pixel.
            phase_row[c] = np.float32(np.float64(value_row[c]) / (w * PHASE_STEPS))
            mean_row[c] = np.float32(w / TERM_SCALE)
