"""Real powers and the logarithm of an upper triangular matrix by inverse scaling and squaring.

With R = T^{1/2^k} near I and X = I - R, both functions need the same integral,

    G = X ∫ w(s) (I - s X)⁻¹ ds,    R^t = I - t G,    log R = -G,

with the weight w(s) ∝ s^{-t} (1-s)^t on [0, 1] of total 1 (t = 0 for the logarithm). Gauss-Jacobi quadrature with m nodes is the
[m/m] Padé approximant of (1-x)^t (Higham & Lin 2011) or of log(1-x) (Dieci, Morini & Papini 1996): m triangular inverses. Then

    T^t = (R^t)^{2^k},    log T = 2^k log R.

The diagonals and the first superdiagonals of all these matrices are known functions of those of T, and are put in place of
the computed ones (Al-Mohy & Higham 2012, Higham & Lin 2013).
"""

from __future__ import annotations

import math

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import lapack, load
from matsign.direct.triangular import triangular_sylvester
from matsign.linalg.jacobi_quadrature import jacobi_rule, radius
from matsign.linalg.scalar_powers import Exponent, divided_difference, scalar_function

# The most nodes of a quadrature: with more, a further square root takes less time.
_MOST_NODES = 9
_EPS = float(np.finfo(float).eps)
_RADIUS = radius(_MOST_NODES, _EPS)
# Square roots that bring any finite number in double precision near 1.
_MOST_ROOTS = 64


def function_of_triangular(t: Array, logarithms: Array, power: Exponent) -> Array:
    """T^t or log T for an upper triangular T, complex and in double precision, from the logarithms of its diagonal."""
    if power.is_logarithm:
        return _fractional(t, logarithms, power)
    whole = math.trunc(power.value)
    fraction = Exponent((power.high or 0.0) - whole, power.low)
    if fraction.value == 0:
        return integer_power(t, whole)
    result = _fractional(t, logarithms, fraction)
    return lapack.product(integer_power(t, whole), result) if whole else result


def integer_power(a: Array, k: int) -> Array:
    """a^k, by the inverse for negative k."""
    return np.linalg.matrix_power(lapack.inv(a) if k < 0 else a, abs(k))


def _fractional(t: Array, logarithms: Array, power: Exponent) -> Array:
    root, count = t, _fewest_roots(logarithms)
    for k in range(1, count + 1):
        root = _root(root, np.exp(logarithms / 2**k))
    while True:
        x = -root
        _set_diagonals(x, t, logarithms, count)
        size = _effective_norm(x)
        if size <= _RADIUS or count >= _MOST_ROOTS:
            break
        count += 1
        root = _root(root, np.exp(logarithms / 2**count))
    exponent = 0.0 if power.is_logarithm else power.value
    g = _quadrature(x, exponent, _nodes(size))
    if power.is_logarithm:
        result = np.ldexp(-1.0, count) * g
        _put_diagonals(result, t, logarithms, power)
        return result
    result = -exponent * g
    for k in range(count, -1, -1):
        if k < count:
            result = lapack.product(result, result)
        high, low = math.ldexp(power.high or 0.0, -k), math.ldexp(power.low, -k)
        _put_diagonals(result, t, logarithms, Exponent(high, low))
    return result


def _fewest_roots(logarithms: Array) -> int:
    """The roots that bring the diagonal into the disc where the quadrature is accurate."""
    for k in range(_MOST_ROOTS):
        if np.abs(np.expm1(logarithms / 2**k)).max() <= _RADIUS:
            return k
    return _MOST_ROOTS


def _set_diagonals(x: Array, t: Array, logarithms: Array, count: int) -> None:
    """The diagonals of I - T^{1/2^k}, without cancellation."""
    _put_diagonals(x, -t, logarithms, Exponent(math.ldexp(1.0, -count)))
    np.fill_diagonal(x, -np.expm1(logarithms / 2**count))


def _put_diagonals(f: Array, t: Array, logarithms: Array, power: Exponent) -> None:
    """The diagonal and the first superdiagonal of a function of T."""
    numpy, n = load("numpy"), len(t)
    np.fill_diagonal(f, scalar_function(numpy, logarithms, power))
    upper = np.arange(n - 1), np.arange(1, n)
    f[upper] = t[upper] * divided_difference(numpy, logarithms[:-1], logarithms[1:], power)


def _root(t: Array, diagonal: Array) -> Array:
    """The upper triangular square root of t with this diagonal, by halves (Deadman, Higham & Ralha 2013)."""
    if len(t) == 1:
        return diagonal[:, None].copy()
    h = len(t) // 2
    first, last = _root(t[:h, :h], diagonal[:h]), _root(t[h:, h:], diagonal[h:])
    out = np.zeros(t.shape, t.dtype, order="F")
    out[:h, :h], out[h:, h:], out[:h, h:] = first, last, triangular_sylvester(first, last, t[:h, h:])
    return out


def _effective_norm(x: Array) -> float:
    """A number between the spectral radius and the 1-norm that bounds powers of x (Al-Mohy & Higham 2012)."""
    one = float(np.linalg.norm(x, 1))
    if one <= _RADIUS or not math.isfinite(one):
        return one
    square = lapack.product(x, x)
    cube = lapack.product(square, x)
    return min(one, max(float(np.linalg.norm(square, 1)) ** (1 / 2), float(np.linalg.norm(cube, 1)) ** (1 / 3)))


def _nodes(x: float) -> int:
    return next((m for m in range(1, _MOST_NODES) if x <= radius(m, _EPS)), _MOST_NODES)


def _quadrature(x: Array, t: float, m: int) -> Array:
    one, invert = np.eye(len(x)), lapack.routine("trtri", x.dtype.char)
    total = np.zeros_like(x)
    for node, weight in jacobi_rule(t, m):
        total += weight * invert(one - node * x)[0]
    return lapack.product(x, total)
