"""Two-dimensional FFTs for compiled loops: numba, float32, square frames of 2^a · 3^b · 5^c pixels a side.

A modulus constraint does not depend on the order of the frequencies or on a transposition, if the measured amplitudes
have the same order. The forward transform therefore applies the decimation-in-frequency stages (radix 5, 3, 4 and 2,
Gentleman and Sande 1966) to the columns, transposes, and applies them again, without reordering. The inverse undoes the
same stages from the last to the first. Real and imaginary parts are separate planes, so that every inner loop runs
along contiguous floats and becomes SIMD code. Rows are transformed up to the next multiple of 8 floats, into the
padding, because the rest of a loop that SIMD code leaves over is slow; nothing reads what is there.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

PADDING = 8
"""Floats added to each row of a plane. Without them the rows of a butterfly share cache lines."""

SIZES = "16 pixels and more a side without a prime factor but 2, 3 and 5, such as 64, 96, 100, 128, 192, 200"
"""What `supports` takes, in words."""

FAST: dict[str, Any] = {"fastmath": True, "error_model": "numpy", "cache": True, "nogil": True}
"""How the kernels of iterations are compiled."""


def radices(size: int) -> list[int]:
    """The radices of the stages, in the order of the forward transform. Their product is `size` if it is supported."""
    found = []
    for radix in (5, 3, 4, 2):
        while size % radix == 0:
            found.append(radix)
            size //= radix
    return found


def supports(size: int) -> bool:
    """Whether frames of size × size can be transformed: at least 16, and no prime factor but 2, 3 and 5."""
    return size >= 16 and math.prod(radices(size)) == size


def twiddles(size: int) -> NDArray[np.float32]:
    """[butterflies, 8] real and imaginary parts of w, w² … for every butterfly of every stage, then zeros."""
    stages = []
    length = size
    for radix in radices(size):
        angle = -2j * np.pi * np.arange(length // radix) / length
        factors = np.zeros((length // radix, 4), np.complex128)
        factors[:, : radix - 1] = np.exp(angle[:, None] * np.arange(1, radix))
        if radix > 2:  # the last stage of radix 2 has no factors
            stages.append(factors)
        length //= radix
    factors = np.concatenate(stages)
    return np.ascontiguousarray(np.stack([factors.real, factors.imag], axis=2).reshape(len(factors), 8), np.float32)


def order(size: int) -> NDArray[np.int64]:
    """The order of the frequencies: element k of the transformed axis has frequency `order[k]`."""
    places = np.zeros(1, np.int64)
    weight = 1
    for radix in radices(size):
        places = (places[:, None] + weight * np.arange(radix)).ravel()
        weight *= radix
    return places


def permute(frames: NDArray[np.float32], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Reorder frames [N, n, n] with the zero frequency at [0, 0] to the order of `forward`'s output.

    They go to `out`, which may be `frames` itself. None: a new array.
    """
    places = order(frames.shape[-1])
    out = np.empty_like(frames) if out is None else out
    for frame, permuted in zip(frames, out, strict=True):
        permuted[:] = frame.T[places[:, None], places]
    return out


def restore(frames: NDArray[np.float32]) -> None:
    """Undo `permute` in place."""
    back = np.argsort(order(frames.shape[-1]))
    for frame in frames:
        frame[:] = frame[back[:, None], back].T


@njit(inline="never", **FAST)
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


@njit(inline="never", **FAST)
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


@njit(**FAST)
def _split2(re, im):  # type: ignore[no-untyped-def]
    n = re.shape[0]
    for row in range(0, n, 2):
        r0, r1, i0, i1 = re[row, :n], re[row + 1, :n], im[row, :n], im[row + 1, :n]
        for k in range(n):
            dr, di = r0[k] - r1[k], i0[k] - i1[k]
            r0[k] += r1[k]
            i0[k] += i1[k]
            r1[k], i1[k] = dr, di


_HALF_ROOT_3 = np.float32(np.sqrt(3) / 2)
_COS_1, _SIN_1 = np.float32(np.cos(2 * np.pi / 5)), np.float32(np.sin(2 * np.pi / 5))
_COS_2, _SIN_2 = np.float32(np.cos(4 * np.pi / 5)), np.float32(np.sin(4 * np.pi / 5))
_HALF = np.float32(0.5)


@njit(inline="never", **FAST)
def _split3(r0, r1, r2, i0, i1, i2, w):  # type: ignore[no-untyped-def]
    ar, ai, br, bi = w[0], w[1], w[2], w[3]
    for k in range(r0.shape[0]):
        sr, si = r1[k] + r2[k], i1[k] + i2[k]
        ur, ui = _HALF_ROOT_3 * (i1[k] - i2[k]), _HALF_ROOT_3 * (r2[k] - r1[k])
        mr, mi = r0[k] - _HALF * sr, i0[k] - _HALF * si
        r0[k], i0[k] = r0[k] + sr, i0[k] + si
        xr, xi = mr + ur, mi + ui
        r1[k], i1[k] = xr * ar - xi * ai, xr * ai + xi * ar
        xr, xi = mr - ur, mi - ui
        r2[k], i2[k] = xr * br - xi * bi, xr * bi + xi * br


@njit(inline="never", **FAST)
def _join3(r0, r1, r2, i0, i1, i2, w):  # type: ignore[no-untyped-def]
    ar, ai, br, bi = w[0], w[1], w[2], w[3]
    for k in range(r0.shape[0]):
        x1r, x1i = r1[k] * ar + i1[k] * ai, i1[k] * ar - r1[k] * ai
        x2r, x2i = r2[k] * br + i2[k] * bi, i2[k] * br - r2[k] * bi
        sr, si = x1r + x2r, x1i + x2i
        ur, ui = _HALF_ROOT_3 * (x2i - x1i), _HALF_ROOT_3 * (x1r - x2r)
        mr, mi = r0[k] - _HALF * sr, i0[k] - _HALF * si
        r0[k], i0[k] = r0[k] + sr, i0[k] + si
        r1[k], i1[k] = mr + ur, mi + ui
        r2[k], i2[k] = mr - ur, mi - ui


@njit(inline="never", **FAST)
def _split5(r0, r1, r2, r3, r4, i0, i1, i2, i3, i4, w):  # type: ignore[no-untyped-def]
    ar, ai, br, bi, cr, ci, dr, di = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    for k in range(r0.shape[0]):
        sr, si, tr, ti = r1[k] + r4[k], i1[k] + i4[k], r2[k] + r3[k], i2[k] + i3[k]
        er, ei, fr, fi = r1[k] - r4[k], i1[k] - i4[k], r2[k] - r3[k], i2[k] - i3[k]
        mr, mi = r0[k] + _COS_1 * sr + _COS_2 * tr, i0[k] + _COS_1 * si + _COS_2 * ti
        nr, ni = r0[k] + _COS_2 * sr + _COS_1 * tr, i0[k] + _COS_2 * si + _COS_1 * ti
        ur, ui = _SIN_1 * ei + _SIN_2 * fi, -_SIN_1 * er - _SIN_2 * fr
        vr, vi = _SIN_2 * ei - _SIN_1 * fi, _SIN_1 * fr - _SIN_2 * er
        r0[k], i0[k] = r0[k] + sr + tr, i0[k] + si + ti
        xr, xi = mr + ur, mi + ui
        r1[k], i1[k] = xr * ar - xi * ai, xr * ai + xi * ar
        xr, xi = nr + vr, ni + vi
        r2[k], i2[k] = xr * br - xi * bi, xr * bi + xi * br
        xr, xi = nr - vr, ni - vi
        r3[k], i3[k] = xr * cr - xi * ci, xr * ci + xi * cr
        xr, xi = mr - ur, mi - ui
        r4[k], i4[k] = xr * dr - xi * di, xr * di + xi * dr


@njit(inline="never", **FAST)
def _join5(r0, r1, r2, r3, r4, i0, i1, i2, i3, i4, w):  # type: ignore[no-untyped-def]
    ar, ai, br, bi, cr, ci, dr, di = w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]
    for k in range(r0.shape[0]):
        x1r, x1i = r1[k] * ar + i1[k] * ai, i1[k] * ar - r1[k] * ai
        x2r, x2i = r2[k] * br + i2[k] * bi, i2[k] * br - r2[k] * bi
        x3r, x3i = r3[k] * cr + i3[k] * ci, i3[k] * cr - r3[k] * ci
        x4r, x4i = r4[k] * dr + i4[k] * di, i4[k] * dr - r4[k] * di
        sr, si, tr, ti = x1r + x4r, x1i + x4i, x2r + x3r, x2i + x3i
        er, ei, fr, fi = x1r - x4r, x1i - x4i, x2r - x3r, x2i - x3i
        mr, mi = r0[k] + _COS_1 * sr + _COS_2 * tr, i0[k] + _COS_1 * si + _COS_2 * ti
        nr, ni = r0[k] + _COS_2 * sr + _COS_1 * tr, i0[k] + _COS_2 * si + _COS_1 * ti
        ur, ui = -_SIN_1 * ei - _SIN_2 * fi, _SIN_1 * er + _SIN_2 * fr
        vr, vi = _SIN_1 * fi - _SIN_2 * ei, _SIN_2 * er - _SIN_1 * fr
        r0[k], i0[k] = r0[k] + sr + tr, i0[k] + si + ti
        r1[k], i1[k] = mr + ur, mi + ui
        r2[k], i2[k] = nr + vr, ni + vi
        r3[k], i3[k] = nr - vr, ni - vi
        r4[k], i4[k] = mr - ur, mi - ui


@njit(**FAST)
def _columns_forward(re, im, w):  # type: ignore[no-untyped-def]
    n = re.shape[0]
    m = (n + 7) // 8 * 8
    length, first = n, 0
    while length % 5 == 0:
        q = length // 5
        for j in range(q):
            for a in range(j, n, length):
                b, c, d, e = a + q, a + 2 * q, a + 3 * q, a + 4 * q
                _split5(
                    re[a, :m], re[b, :m], re[c, :m], re[d, :m], re[e, :m],
                    im[a, :m], im[b, :m], im[c, :m], im[d, :m], im[e, :m], w[first + j],
                )  # fmt: skip
        first += q
        length = q
    while length % 3 == 0:
        q = length // 3
        for j in range(q):
            for a in range(j, n, length):
                b, c = a + q, a + 2 * q
                _split3(re[a, :m], re[b, :m], re[c, :m], im[a, :m], im[b, :m], im[c, :m], w[first + j])
        first += q
        length = q
    while length >= 4:
        q = length // 4
        for j in range(q):
            for block in range(0, n, length):
                a, b, c, d = block + j, block + j + q, block + j + 2 * q, block + j + 3 * q
                _split4(
                    re[a, :m], re[b, :m], re[c, :m], re[d, :m],
                    im[a, :m], im[b, :m], im[c, :m], im[d, :m], w[first + j],
                )  # fmt: skip
        first += q
        length = q
    if length == 2:
        _split2(re, im)


@njit(**FAST)
def _columns_inverse(re, im, w):  # type: ignore[no-untyped-def]
    n, first = re.shape[0], w.shape[0]
    m = (n + 7) // 8 * 8
    length = 1
    while n % (4 * length) == 0:
        length *= 4
    if n % (2 * length) == 0:  # one stage of radix 2 is left over, and it is the last of the forward transform
        _split2(re, im)
        length = 2
    else:
        length = 1
    while n % (4 * length) == 0:
        q = length
        length *= 4
        first -= q
        for j in range(q):
            for block in range(0, n, length):
                a, b, c, d = block + j, block + j + q, block + j + 2 * q, block + j + 3 * q
                _join4(
                    re[a, :m], re[b, :m], re[c, :m], re[d, :m],
                    im[a, :m], im[b, :m], im[c, :m], im[d, :m], w[first + j],
                )  # fmt: skip
    while n % (3 * length) == 0:
        q = length
        length *= 3
        first -= q
        for j in range(q):
            for a in range(j, n, length):
                b, c = a + q, a + 2 * q
                _join3(re[a, :m], re[b, :m], re[c, :m], im[a, :m], im[b, :m], im[c, :m], w[first + j])
    while n % (5 * length) == 0:
        q = length
        length *= 5
        first -= q
        for j in range(q):
            for a in range(j, n, length):
                b, c, d, e = a + q, a + 2 * q, a + 3 * q, a + 4 * q
                _join5(
                    re[a, :m], re[b, :m], re[c, :m], re[d, :m], re[e, :m],
                    im[a, :m], im[b, :m], im[c, :m], im[d, :m], im[e, :m], w[first + j],
                )  # fmt: skip


@njit(**FAST)
def _transpose(source, target):  # type: ignore[no-untyped-def]
    n = source.shape[0]
    whole = n // 16 * 16
    for i in range(0, whole, 16):
        for j in range(n):
            row = target[j, i : i + 16]
            for k in range(16):
                row[k] = source[i + k, j]
    for j in range(n):
        for i in range(whole, n):
            target[j, i] = source[i, j]


@njit(**FAST)
def forward(re, im, out_re, out_im, w):  # type: ignore[no-untyped-def]
    """FFT without normalisation of planes [n, n + PADDING] into other planes. The source is overwritten."""
    _columns_forward(re, im, w)
    _transpose(re, out_re)
    _transpose(im, out_im)
    _columns_forward(out_re, out_im, w)


@njit(**FAST)
def inverse(re, im, out_re, out_im, w):  # type: ignore[no-untyped-def]
    """The inverse of `forward`, times n². The source is overwritten."""
    _columns_inverse(re, im, w)
    _transpose(re, out_re)
    _transpose(im, out_im)
    _columns_inverse(out_re, out_im, w)
