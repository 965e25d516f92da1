"""Triangular Sylvester and Lyapunov equations by recursive halving, mostly products (Jonsson & Kågström 2002)."""

from __future__ import annotations

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import lapack

# Up to this size LAPACK solves an equation unblocked.
_LEAF = 48


def triangular_sylvester(r: Array, s: Array, f: Array, sign: int = 1, *, adjoint: bool = False) -> Array:
    """x with r x + sign x s = f for (quasi-)triangular r and s, or sᴴ in place of s; the larger one is halved."""
    n, m = f.shape
    if max(n, m) <= _LEAF:
        return lapack.trsyl(r, s, f, sign, adjoint=adjoint)
    if n >= m:
        h = _middle(r)
        lower = triangular_sylvester(r[h:, h:], s, f[h:], sign, adjoint=adjoint)
        known = lapack.product(r[:h, h:], lower)
        upper = triangular_sylvester(r[:h, :h], s, f[:h] - known, sign, adjoint=adjoint)
        return np.concatenate([upper, lower])
    h = _middle(s)
    first, corner, last = s[:h, :h], s[:h, h:], s[h:, h:]
    if adjoint:
        right = triangular_sylvester(r, last, f[:, h:], sign, adjoint=True)
        known = lapack.product(right, corner.conj().T)
        left = triangular_sylvester(r, first, f[:, :h] - sign * known, sign, adjoint=True)
    else:
        left = triangular_sylvester(r, first, f[:, :h], sign)
        right = triangular_sylvester(r, last, f[:, h:] - sign * lapack.product(left, corner), sign)
    return np.concatenate([left, right], axis=1)


def triangular_lyapunov(t: Array, f: Array, hermitian: bool) -> Array:
    """y with t y + y tᴴ = f for a (quasi-)triangular t; a Hermitian f saves a quarter of the work."""
    if len(f) <= _LEAF:
        return lapack.trsyl(t, t, f, adjoint=True)
    h = _middle(t)
    first, corner, last = t[:h, :h], t[:h, h:], t[h:, h:]
    y = np.empty_like(f)
    y[h:, h:] = triangular_lyapunov(last, f[h:, h:], hermitian)
    y[:h, h:] = triangular_sylvester(first, last, f[:h, h:] - lapack.product(corner, y[h:, h:]), adjoint=True)
    if hermitian:
        y[h:, :h] = y[:h, h:].conj().T
        known = lapack.product(corner, y[h:, :h])
        y[:h, :h] = triangular_lyapunov(first, f[:h, :h] - known - known.conj().T, True)
        return y
    ch = corner.conj().T
    y[h:, :h] = triangular_sylvester(last, first, f[h:, :h] - lapack.product(y[h:, h:], ch), adjoint=True)
    known = lapack.product(corner, y[h:, :h])
    y[:h, :h] = triangular_lyapunov(first, f[:h, :h] - known - lapack.product(y[:h, h:], ch), False)
    return y


def flip(t: Array) -> Array:
    """J tᴴ J with J the reversal of rows: upper triangular again."""
    return np.asfortranarray(t.conj().T[::-1, ::-1])


def _middle(t: Array) -> int:
    """A middle index of a quasi-triangular matrix that does not divide a 2 x 2 block."""
    h = len(t) // 2
    return h + 1 if t[h, h - 1] != 0 else h
