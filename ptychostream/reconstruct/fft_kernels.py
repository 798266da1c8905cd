"""Two-dimensional FFTs for compiled loops: numba, float32, square frames whose size is a power of two.

A modulus constraint does not depend on the order of the frequencies or on a transposition, if the measured amplitudes
have the same order. The forward transform therefore applies the decimation-in-frequency stages (radix 4, Gentleman and
Sande 1966) to the columns, transposes, and applies them again, without reordering. The inverse undoes the same stages
from the last to the first. Real and imaginary parts are separate planes, so that every inner loop runs along
contiguous floats and becomes SIMD code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

PADDING = 8
"""Floats added to each row of a plane. Without them the rows of a butterfly share cache lines."""

_FAST: dict[str, Any] = {"fastmath": True, "error_model": "numpy", "cache": True, "nogil": True}


def supports(size: int) -> bool:
    """Whether frames of size × size can be transformed."""
    return size >= 16 and size & (size - 1) == 0


def twiddles(size: int) -> NDArray[np.float32]:
    """[butterflies, 6] real and imaginary parts of w, w², w³ for every butterfly of every stage."""
    stages = []
    length = size
    while length >= 4:
        angle = -2j * np.pi * np.arange(length // 4) / length
        stages.append(np.exp(angle[:, None] * np.arange(1, 4)))
        length //= 4
    factors = np.concatenate(stages)
    return np.ascontiguousarray(np.stack([factors.real, factors.imag], axis=2).reshape(len(factors), 6), np.float32)


def order(size: int) -> NDArray[np.int64]:
    """The order of the frequencies: element k of the transformed axis has frequency `order[k]`."""
    places = np.zeros(1, np.int64)
    remaining, weight = size, 1
    while remaining > 1:
        radix = 4 if remaining >= 4 else 2
        places = (places[:, None] + weight * np.arange(radix)).ravel()
        remaining //= radix
        weight *= radix
    return places


def permute(frames: NDArray[np.float32]) -> NDArray[np.float32]:
    """Reorder frames [N, n, n] with the zero frequency at [0, 0] to the order of `forward`'s output."""
    places = order(frames.shape[-1])
    out = np.empty_like(frames)
    for frame, permuted in zip(frames, out, strict=True):
        permuted[:] = frame.T[places[:, None], places]
    return out


@njit(inline="never", **_FAST)
def _split4(r0, r1, r2, r3, i0, i1, i2, i3, w):  # type: ignore[no-untyped-def]
    ar, ai, br, bi, cr, ci = w[0], w[1], w[2], w[3], w[4], w[5]
    for k in range(r0.shape[0]):
        sr, si = r0[k] + r2[k], i0[k] + i2[k]
        dr, di = r0[k] - r2[k], i0[k] - i2[k]
        tr, ti = r1[k] + r3[k], i1[k] + i3[k]
        ur, ui = i1[k] - i3[k], r3[k] - r1[k]
        r0[k], i0[k] = sr + tr, si + ti
        xr, xi = dr + ur, di + ui
        r1[k], i1[k] = xr * ar - xi * ai, xr * ai + xi * ar
        xr, xi = sr - tr, si - ti
        r2[k], i2[k] = xr * br - xi * bi, xr * bi + xi * br
        xr, xi = dr - ur, di - ui
        r3[k], i3[k] = xr * cr - xi * ci, xr * ci + xi * cr


@njit(inline="never", **_FAST)
def _join4(r0, r1, r2, r3, i0, i1, i2, i3, w):  # type: ignore[no-untyped-def]
    ar, ai, br, bi, cr, ci = w[0], w[1], w[2], w[3], w[4], w[5]
    for k in range(r0.shape[0]):
        x1r, x1i = r1[k] * ar + i1[k] * ai, i1[k] * ar - r1[k] * ai
        x2r, x2i = r2[k] * br + i2[k] * bi, i2[k] * br - r2[k] * bi
        x3r, x3i = r3[k] * cr + i3[k] * ci, i3[k] * cr - r3[k] * ci
        sr, si = r0[k] + x2r, i0[k] + x2i
        dr, di = r0[k] - x2r, i0[k] - x2i
        tr, ti = x1r + x3r, x1i + x3i
        ur, ui = x3i - x1i, x1r - x3r
        r0[k], i0[k] = sr + tr, si + ti
        r1[k], i1[k] = dr + ur, di + ui
        r2[k], i2[k] = sr - tr, si - ti
        r3[k], i3[k] = dr - ur, di - ui


@njit(**_FAST)
def _split2(re, im):  # type: ignore[no-untyped-def]
    n = re.shape[0]
    for row in range(0, n, 2):
        r0, r1, i0, i1 = re[row, :n], re[row + 1, :n], im[row, :n], im[row + 1, :n]
        for k in range(n):
            dr, di = r0[k] - r1[k], i0[k] - i1[k]
            r0[k] += r1[k]
            i0[k] += i1[k]
            r1[k], i1[k] = dr, di


@njit(**_FAST)
def _columns_forward(re, im, w):  # type: ignore[no-untyped-def]
    n = re.shape[0]
    length, first = n, 0
    while length >= 4:
        q = length // 4
        for j in range(q):
            for block in range(0, n, length):
                a, b, c, d = block + j, block + j + q, block + j + 2 * q, block + j + 3 * q
                _split4(
                    re[a, :n], re[b, :n], re[c, :n], re[d, :n],
                    im[a, :n], im[b, :n], im[c, :n], im[d, :n], w[first + j],
                )  # fmt: skip
        first += q
        length = q
    if length == 2:
        _split2(re, im)


@njit(**_FAST)
def _columns_inverse(re, im, w):  # type: ignore[no-untyped-def]
    n, first = re.shape[0], w.shape[0]
    length = 4
    if n != 3 * first + 1:  # a power of two that is not a power of four
        _split2(re, im)
        length = 8
    while length <= n:
        q = length // 4
        first -= q
        for j in range(q):
            for block in range(0, n, length):
                a, b, c, d = block + j, block + j + q, block + j + 2 * q, block + j + 3 * q
                _join4(
                    re[a, :n], re[b, :n], re[c, :n], re[d, :n],
                    im[a, :n], im[b, :n], im[c, :n], im[d, :n], w[first + j],
                )  # fmt: skip
        length *= 4


@njit(**_FAST)
def _transpose(source, target):  # type: ignore[no-untyped-def]
    n = source.shape[0]
    for i in range(0, n, 16):
        for j in range(n):
            row = target[j, i : i + 16]
            for k in range(16):
                row[k] = source[i + k, j]


@njit(**_FAST)
def forward(re, im, out_re, out_im, w):  # type: ignore[no-untyped-def]
    """FFT without normalisation of planes [n, n + PADDING] into other planes. The source is overwritten."""
    _columns_forward(re, im, w)
    _transpose(re, out_re)
    _transpose(im, out_im)
    _columns_forward(out_re, out_im, w)


@njit(**_FAST)
def inverse(re, im, out_re, out_im, w):  # type: ignore[no-untyped-def]
    """The inverse of `forward`, times n². The source is overwritten."""
    _columns_inverse(re, im, w)
    _transpose(re, out_re)
    _transpose(im, out_im)
    _columns_inverse(out_re, out_im, w)
