"""The nearest rotations of many 3 × 3 matrices by a formula in their entries: no call of LAPACK for each.

Let s₁, s₂ and d s₃ be the signed singular values of M and λ their sum, the maximum of tr(RᵀM): it is the largest root of

    λ⁴ - 2 t λ² - 8 λ det M + t² - 4 ‖cof M‖² = 0,    t = ‖M‖².

With S = RᵀM one has cof M = R cof S, cof S = S² - λ S + c I and S² = MᵀM, so that

    R (MᵀM + c I) = λ M + cof M,    c = (λ² - t) / 2,

where the eigenvalues of the matrix in brackets are products of two of the sums s₁ + s₂, s₁ + d s₃, s₂ + d s₃: it is singular
only where R is not unique. Rounding in λ makes R less orthogonal, which a Newton-Schulz step repairs, before and after one Newton
step for RᵀM = MᵀR. Matrices for which R is then not orthogonal, or is hardly unique, are left to singular vectors.

Sources: Horn 1987 (the quartic), Higham 2008, section 8 (Newton-Schulz).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from matsign._typing import Array

_LAGUERRE_STEPS = 4  # more steps leave no fewer than one matrix in a thousand to singular vectors
_ORTHOGONAL = 1e-8  # the defect before the last Newton-Schulz step, which squares it
_UNIQUE = 1e-6  # the product of the three sums relative to the cube of their size

Entries = Sequence[
    Any
]  # of 3 × 3 matrices by rows, or those of symmetric ones on and above the diagonal: one array for each


def nearest_in_closed_form(m: Array) -> tuple[Array, Array]:
    """Rotations, and where they are right; from NumPy's arrays of double precision, of entries up to 1."""
    entries = [np.ascontiguousarray(m[:, i, j]) for i in range(3) for j in range(3)]
    with np.errstate(all="ignore"):
        r = _normalise(_by_largest_root(entries))[0]
        r, unique = _newton_step(entries, r)
        r, defect = _normalise(r)
    return np.stack(r, axis=-1).reshape(m.shape), unique & (defect < _ORTHOGONAL)


def _by_largest_root(m: Entries) -> Entries:
    cofactors = _cofactors(m)
    root, c = _largest_root(_dot(m, m), _dot(cofactors, cofactors), _dot(m[:3], cofactors[:3]))
    columns = m[0::3], m[1::3], m[2::3]
    gram = [_dot(columns[i], columns[j]) + (c if i == j else 0.0) for i in range(3) for j in range(i, 3)]
    return _times_symmetric([root * x + y for x, y in zip(m, cofactors, strict=True)], _symmetric_inverse(gram)[0])


def _largest_root(t: Array, of_cofactors: Array, det: Array) -> tuple[Array, Array]:
    """λ by Laguerre's method, which comes from above without crossing a root where all roots are real; and c."""
    root, last = np.sqrt(3 * t), t * t - 4 * of_cofactors
    for _ in range(_LAGUERRE_STEPS):
        square = root * root
        value = (square - 2 * t) * square - 8 * det * root + last
        slope, curvature = 4 * (square - t) * root - 8 * det, 12 * square - 4 * t
        step = 4 * value / (slope + np.sqrt(np.maximum(9 * slope * slope - 12 * value * curvature, 0)))
        root = np.where(step > 0, root - step, root)
    return root, (root * root - t) / 2


def _newton_step(m: Entries, r: Entries) -> tuple[Entries, Array]:
    """R (I + Ω) with the Ω of `rotation_derivatives`, and where R is surely the only maximum of tr(RᵀM)."""
    of_m, of_r = (m[0::3], m[1::3], m[2::3]), (r[0::3], r[1::3], r[2::3])
    g = [[_dot(x, y) for y in of_m] for x in of_r]
    a = [
        *(g[1][1] + g[2][2], -(g[0][1] + g[1][0]) / 2, -(g[0][2] + g[2][0]) / 2),
        *(g[0][0] + g[2][2], -(g[1][2] + g[2][1]) / 2, g[0][0] + g[1][1]),
    ]
    inverse, det, minor = _symmetric_inverse(a)
    w = _times_symmetric([g[2][1] - g[1][2], g[0][2] - g[2][0], g[1][0] - g[0][1]], inverse)
    size = a[0] + a[3] + a[5]
    unique = (a[0] > 0) & (minor > 0) & (det > _UNIQUE * size * size * size)
    turned = []
    for x, y, z in zip(*of_r, strict=True):
        turned += [x + (y * w[2] - z * w[1]), y + (z * w[0] - x * w[2]), z + (x * w[1] - y * w[0])]
    return turned, unique


def _normalise(r: Entries) -> tuple[Entries, Array]:
    """R (3 I - RᵀR) / 2, and the norm of (I - RᵀR) / 2."""
    columns = r[0::3], r[1::3], r[2::3]
    gap = [((1.0 if i == j else 0.0) - _dot(columns[i], columns[j])) / 2 for i in range(3) for j in range(i, 3)]
    steps = _times_symmetric(r, gap)
    return [x + y for x, y in zip(r, steps, strict=True)], np.sqrt(_dot(gap, gap))


def _dot(x: Entries, y: Entries) -> Array:
    total = x[0] * y[0]
    for a, b in zip(x[1:], y[1:], strict=True):
        total = total + a * b
    return total


def _cofactors(m: Entries) -> Entries:
    a, b, c, d, e, f, g, h, i = m
    return [
        *(e * i - f * h, f * g - d * i, d * h - e * g),
        *(c * h - b * i, a * i - c * g, b * g - a * h),
        *(b * f - c * e, c * d - a * f, a * e - b * d),
    ]


def _symmetric_inverse(s: Entries) -> tuple[Entries, Array, Array]:
    """The inverse of a symmetric matrix, its determinant and its first minor of size 2."""
    a, b, c, d, e, f = s
    minors = [d * f - e * e, c * e - b * f, b * e - c * d, a * f - c * c, b * c - a * e, a * d - b * b]
    det = a * minors[0] + b * minors[1] + c * minors[2]
    return [x / det for x in minors], det, minors[5]


def _times_symmetric(rows: Entries, s: Entries) -> list[Array]:
    """The product of rows of length 3 and a symmetric matrix."""
    columns = (s[0], s[1], s[2]), (s[1], s[3], s[4]), (s[2], s[4], s[5])
    return [_dot(rows[k : k + 3], column) for k in range(0, len(rows), 3) for column in columns]
