"""Schur methods on the CPU for a x + x aᴴ = q and a x aᴴ - x + q = 0: one Schur form of a, then triangular equations.

Bartels & Stewart (1972) for the first, Barraud (1977) for the second, which is brought into the form of the first by a Cayley
transform of the Schur factor and then corrected. NumPy stacks in, NumPy stacks out, with entries of moderate size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from matsign.backends import lapack
from matsign.engine.failures import Failure

Array = np.ndarray[Any, Any]
Solve = Callable[[Array], Array]

# Below this size LAPACK's unblocked triangular solver is as fast as products.
_LEAF = 48


def lyapunov(a: Array, q: Array) -> tuple[Array, Array]:
    """(x, failure) with a x + x aᴴ = q."""
    out, failure = np.empty_like(q), np.zeros(len(q), np.int32)
    for k in range(len(q)):
        out[k], failure[k] = _member(a[k], q[k], _lyapunov_in, Failure.COMMON_EIGENVALUE)
    return out, failure


def stein(a: Array, q: Array) -> tuple[Array, Array]:
    """(x, failure) with a x aᴴ - x + q = 0."""
    out, failure = np.empty_like(q), np.zeros(len(q), np.int32)
    for k in range(len(q)):
        out[k], failure[k] = _member(a[k], q[k], _stein_in, Failure.RECIPROCAL_EIGENVALUES)
    return out, failure


def _member(a: Array, q: Array, solver: Callable[..., Any], singular: Failure) -> tuple[Array, int]:
    """One equation by way of the Schur form of a, and whether its operator is singular to working precision."""
    if not (np.isfinite(a.sum()) and np.isfinite(q.sum())):
        return q * np.nan, Failure.NOT_CONVERGED
    t, u, eigenvalues, _ = lapack.schur(a)
    if not np.isfinite(t).all():
        return q * np.nan, Failure.NOT_CONVERGED
    uh = u.conj().T
    with np.errstate(all="ignore"):
        solve, adjoint_solve, gap, size = solver(t, eigenvalues)
        y = solve(lapack.product(lapack.product(uh, q), u), bool((q == q.conj().T).all()))
        tiny = len(a) ** 0.5 * float(np.finfo(q.dtype).eps) * size
        suspect = gap <= size * float(np.finfo(q.dtype).eps) ** 0.5
        if not np.abs(y).max() * tiny <= np.abs(q).max() or (suspect and _separation(solve, adjoint_solve, y) <= tiny):
            return q * np.nan, singular
    return lapack.product(lapack.product(u, y), uh), 0


def _lyapunov_in(t: Array, eigenvalues: Array) -> tuple[Any, Any, float, float]:
    """Solvers for t y + y tᴴ = f and tᴴ y + y t = f, the smallest |λ + conj μ|, and the size it is measured by."""
    gap = np.abs(eigenvalues[:, None] + eigenvalues.conj()).min()
    return (lambda f, hermitian: _solve(t, f, hermitian)), _adjoint(t), float(gap), float(np.abs(t).max())


def _stein_in(t: Array, eigenvalues: Array) -> tuple[Any, Any, float, float]:
    """The same for t y tᴴ - y + f = 0 and tᴴ y t - y + f = 0, by g y + y gᴴ = -m f mᴴ, m = (t - θI)⁻¹, g = θ m + I/2.

    Any θ on the unit circle does that is no eigenvalue; the farthest of a few is taken, and one correction undoes its harm.
    """
    few: Array = np.exp(0.25j * np.pi * np.arange(8)) if t.dtype.kind == "c" else np.array([1.0, -1.0])
    theta: Any = few.astype(t.dtype)[np.argmax(np.abs(eigenvalues[:, None] - few).min(axis=0))]
    m = _quasi_triangular(lapack.inv(t - theta * np.eye(len(t), dtype=t.dtype)), t)
    g = theta * m + 0.5 * np.eye(len(t), dtype=t.dtype)
    adjoint_g = _adjoint(g)

    def solve(f: Array, hermitian: bool) -> Array:
        y = _solve(g, -_congruence(m, f), hermitian)
        return y + _solve(g, -_congruence(m, f + _congruence(t, y) - y), hermitian)

    def adjoint_solve(f: Array) -> Array:
        return adjoint_g(-_congruence(m.conj().T, f))

    gap = np.abs(eigenvalues[:, None] * eigenvalues.conj() - 1).min()
    return solve, adjoint_solve, float(gap), float(1 + np.abs(t).max() ** 2)


def _congruence(t: Array, y: Array) -> Array:
    """t y tᴴ."""
    return lapack.product(lapack.product(t, y), t.conj().T)


def _quasi_triangular(m: Array, t: Array) -> Array:
    """m with zeros where the quasi-triangular t has them."""
    m = np.triu(m, -1)
    below = np.arange(len(m) - 1)
    m[below + 1, below] *= np.diagonal(t, -1) != 0
    return np.asfortranarray(m)


def _adjoint(t: Array) -> Solve:
    """A solver for tᴴ y + y t = f, by flipping: J tᴴ J is upper triangular again."""
    flipped = np.asfortranarray(t.conj().T[::-1, ::-1])
    return lambda f: _solve(flipped, f[::-1, ::-1], False)[::-1, ::-1]


def _separation(solve: Any, adjoint_solve: Solve, like: Array) -> float:
    """An upper estimate of the smallest singular value of the operator, by two steps of power iteration on its inverse."""
    y: Any = np.random.default_rng(0).standard_normal(like.shape)
    y = y.astype(like.dtype)
    smallest = np.inf
    for _ in range(2):
        size = np.linalg.norm(y)
        if not 0 < size < np.inf:
            return 0.0
        solved = solve(y / size, False)
        smallest = min(smallest, 1 / max(float(np.linalg.norm(solved)), 1e-300))
        y = adjoint_solve(solved)
    return smallest


def _solve(t: Array, f: Array, hermitian: bool) -> Array:
    """y with t y + y tᴴ = f for a (quasi-)triangular t, by halves (Jonsson & Kågström 2002); Hermitian f saves one quarter."""
    if len(f) <= _LEAF:
        return _trsyl(t, t, f)
    h = _cut(t)
    first, corner, last = t[:h, :h], t[:h, h:], t[h:, h:]
    y = np.empty_like(f)
    y[h:, h:] = _solve(last, f[h:, h:], hermitian)
    y[:h, h:] = _solve_rectangular(first, last, f[:h, h:] - lapack.product(corner, y[h:, h:]))
    if hermitian:
        y[h:, :h] = y[:h, h:].conj().T
        known = lapack.product(corner, y[h:, :h])
        y[:h, :h] = _solve(first, f[:h, :h] - known - known.conj().T, True)
        return y
    ch = corner.conj().T
    y[h:, :h] = _solve_rectangular(last, first, f[h:, :h] - lapack.product(y[h:, h:], ch))
    y[:h, :h] = _solve(first, f[:h, :h] - lapack.product(corner, y[h:, :h]) - lapack.product(y[:h, h:], ch), False)
    return y


def _solve_rectangular(r: Array, s: Array, f: Array) -> Array:
    """x with r x + x sᴴ = f for (quasi-)triangular r, s."""
    n, m = f.shape
    if max(n, m) <= _LEAF:
        return _trsyl(r, s, f)
    x = np.empty_like(f)
    if n >= m:
        h = _cut(r)
        x[h:] = _solve_rectangular(r[h:, h:], s, f[h:])
        x[:h] = _solve_rectangular(r[:h, :h], s, f[:h] - lapack.product(r[:h, h:], x[h:]))
    else:
        h = _cut(s)
        x[:, h:] = _solve_rectangular(r, s[h:, h:], f[:, h:])
        known = lapack.product(x[:, h:], s[:h, h:].conj().T)
        x[:, :h] = _solve_rectangular(r, s[:h, :h], f[:, :h] - known)
    return x


def _trsyl(r: Array, s: Array, f: Array) -> Array:
    x, scale, _ = lapack.routine("trsyl", f.dtype.char)(r, s, f, tranb="C")
    return x if scale == 1 else x / scale


def _cut(t: Array) -> int:
    """The middle of a quasi-triangular matrix, not through a 2 x 2 block."""
    h = len(t) // 2
    return h + 1 if t[h, h - 1] != 0 else h
