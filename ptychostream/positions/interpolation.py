"""Linear interpolation of many times in a long history of samples, compiled: a frame costs less than a microsecond."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]


@numba.njit(
    numba.int64(
        numba.float64[::1],
        numba.float64[::1],
        numba.float64[::1],
        numba.float64[::1],
        numba.float64,
        numba.float64[:, ::1],
    ),
    nogil=True,
    cache=True,
)
def interpolate(times: Doubles, x: Doubles, y: Doubles, at: Doubles, tolerance_s: float, places: Doubles) -> int:
    """Write x and y at the times `at` to `places` [2, n].

    A place is NaN if its time lies outside the samples, or if the samples around it are more than `tolerance_s` apart.
    It is that of the sample if there is one of that time.

    Parameters
    ----------
    times, x, y
        [m] samples, times in rising order.
    at
        [n] times. It is fastest if they rise.

    Returns
    -------
    int
        The number of places that are not NaN.
    """
    number, found, last = 0, 0, times.size
    for index in range(at.size):
        time = at[index]
        places[0, index] = places[1, index] = np.nan
        if last == 0 or not times[0] <= time <= times[last - 1]:
            continue
        # the first sample that is not before `time`: in (low, high], which is doubled from the sample found before
        low, step = -1, 1
        if found < last and times[found] < time:
            low, high = found, found + 1
            while high < last and times[high] < time:
                low, step = high, 2 * step
                high += step
            high = min(high, last - 1)
        else:
            high = found if found < last else last - 1
        while high - low > 1:
            middle = (low + high) // 2
            if times[middle] < time:
                low = middle
            else:
                high = middle
        found = high
        before, part = found, 0.0
        if times[found] != time:
            before = found - 1
            gap_s = times[found] - times[before]
            if gap_s > tolerance_s:
                continue
            part = (time - times[before]) / gap_s
        places[0, index] = x[before] + part * (x[found] - x[before])
        places[1, index] = y[before] + part * (y[found] - y[before])
        if places[0, index] == places[0, index]:
            number += 1
    return number
