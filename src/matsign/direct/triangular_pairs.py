"""Pairs of triangular Sylvester equations, a x - y b = c and d x - y e = f, by recursive halving down to LAPACK's tgsyl.

a and b are upper quasi-triangular, d and e upper triangular, as in generalised Schur forms (Kågström & Poromaa 1996).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import lapack

# Up to this size LAPACK solves a pair.
_LEAF = 32


class TriangularPair(NamedTuple):
    """The coefficients of (x, y) ↦ (a x - y b, d x - y e)."""

    a: Array
    b: Array
    d: Array
    e: Array

    def rows(self, part: slice) -> TriangularPair:
        return TriangularPair(self.a[part, part], self.b, self.d[part, part], self.e)

    def columns(self, part: slice) -> TriangularPair:
        return TriangularPair(self.a, self.b[part, part], self.d, self.e[part, part])

    def solve(self, c: Array, f: Array) -> tuple[Array, Array]:
        """(x, y) with a x - y b = c and d x - y e = f."""
        n, m = c.shape
        if max(n, m) <= _LEAF:
            return lapack.tgsyl(*self._in_order(c, f))
        if n >= m:
            first, last = _halves(self.a)
            lower = self.rows(last).solve(c[last], f[last])
            c, f = (g[first] - _product(t[first, last], lower[0]) for g, t in ((c, self.a), (f, self.d)))
            upper = self.rows(first).solve(c, f)
            return _concatenate_pairs(upper, lower, axis=0)
        first, last = _halves(self.b)
        left = self.columns(first).solve(c[:, first], f[:, first])
        c, f = (g[:, last] + _product(left[1], t[first, last]) for g, t in ((c, self.b), (f, self.e)))
        return _concatenate_pairs(left, self.columns(last).solve(c, f), axis=1)

    def adjoint_solve(self, g: Array, h: Array) -> tuple[Array, Array]:
        """(c, f) with aᴴ c + dᴴ f = g and -c bᴴ - f eᴴ = h."""
        n, m = g.shape
        if max(n, m) <= _LEAF:
            return lapack.tgsyl(*self._in_order(g, h), adjoint=True)
        if n >= m:
            first, last = _halves(self.a)
            upper = self.rows(first).adjoint_solve(g[first], h[first])
            known = (_product(t[first, last].conj().T, x) for x, t in zip(upper, (self.a, self.d), strict=True))
            lower = self.rows(last).adjoint_solve(g[last] - sum(known), h[last])
            return _concatenate_pairs(upper, lower, axis=0)
        first, last = _halves(self.b)
        right = self.columns(last).adjoint_solve(g[:, last], h[:, last])
        known = (_product(x, t[first, last].conj().T) for x, t in zip(right, (self.b, self.e), strict=True))
        left = self.columns(first).adjoint_solve(g[:, first], h[:, first] + sum(known))
        return _concatenate_pairs(left, right, axis=1)

    def _in_order(self, c: Array, f: Array) -> tuple[Array, ...]:
        return self.a, self.b, c, self.d, self.e, f


def discrete(r: Array, s: Array, d: float) -> TriangularPair:
    """The pair for d x - r x s = f, with the right-hand sides 0 and f: r x - y g = 0 and d x - y g s = f.

    r and s are (quasi-)triangular. The orthogonal g, block diagonal, makes g s triangular where s has blocks of size 2.
    """
    g, t = np.eye(len(s), dtype=s.dtype), s.copy()
    for k in np.flatnonzero(np.diagonal(s, -1)):
        rotation = _rotation(*s[k : k + 2, k])
        g[k : k + 2, k : k + 2] = rotation
        t[k : k + 2, k:] = rotation @ s[k : k + 2, k:]
        t[k + 1, k] = 0
    return TriangularPair(r, g, d * np.eye(len(r), dtype=r.dtype), t)


def _rotation(x: float, y: float) -> Array:
    """The rotation that maps (x, y) to (√(x² + y²), 0)."""
    size = np.hypot(x, y)
    return np.array([[x, y], [-y, x]]) / size


def _halves(t: Array) -> tuple[slice, slice]:
    """The first and the last half of the indices of a quasi-triangular matrix; no 2 x 2 block is divided."""
    h = len(t) // 2
    h += bool(t[h, h - 1] != 0)
    return slice(h), slice(h, None)


def _product(x: Array, y: Array) -> Array | float:
    """x y, without a product where a coupling block is zero, as in the pair of a single equation."""
    return lapack.product(x, y) if x.any() and y.any() else 0.0


def _concatenate_pairs(one: tuple[Array, Array], other: tuple[Array, Array], axis: int) -> tuple[Array, Array]:
    x, y = (np.concatenate(parts, axis=axis) for parts in zip(one, other, strict=True))
    return x, y
