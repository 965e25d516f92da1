"""Two-sided linear matrix equations on the CPU, by (generalised) Schur forms and a pair of triangular equations.

The discrete Sylvester equation d x - a x b = q needs the Schur forms of a and b, and no Cayley transform, which would lose
digits near an eigenvalue at its pole. Arguments and results are NumPy stacks with entries of moderate size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import lapack, load
from matsign.core.failures import Failure
from matsign.direct import triangular_pairs
from matsign.direct.triangular_pairs import TriangularPair
from matsign.linalg.separation import ROUNDINGS, spectral_norm
from matsign.linalg.stacks import probe_numbers

Norm = Callable[[Array], float]


class _Discrete(NamedTuple):
    """d x - a x b = q with a = u r uᴴ, b = v s vᴴ."""

    u: Array
    v: Array
    r: Array
    s: Array
    d: float
    pair: TriangularPair

    @classmethod
    def of(cls, a: Array, b: Array, d: float) -> _Discrete:
        r, u, s, v = lapack.schur_pair(a, b)
        return cls(u, v, r, s, d, triangular_pairs.discrete(r, s, d))

    def is_finite(self) -> bool:
        return bool(np.isfinite(self.r).all() and np.isfinite(self.s).all())

    def size(self, norm: Norm) -> float:
        """A bound on the norm of the operator."""
        return norm(self.r) * norm(self.s) + self.d

    def solve(self, q: Array) -> Array:
        f = lapack.product(lapack.product(self.u.conj().T, q), self.v)
        y = self.pair.solve(np.zeros_like(f), f)[0]
        return lapack.product(lapack.product(self.u, y), self.v.conj().T)

    def adjoint_solve(self, x: Array) -> Array:
        r = lapack.product(lapack.product(self.u.conj().T, x), self.v)
        f = self.pair.adjoint_solve(r, np.zeros_like(r))[1]
        return lapack.product(lapack.product(self.u, f), self.v.conj().T)


def discrete(a: Array, b: Array, q: Array, d: Array) -> tuple[Array, Array, Array]:
    """(x, failure, separation) with d x - a x b = q; the separation, an upper estimate, for singular members only."""
    return _solve_each(lambda k: _Discrete.of(a[k], b[k], float(d[k])), q, a, b, Failure.RECIPROCAL_PAIR)


def discrete_responses(a: Array, b: Array, rights: Array, d: Array) -> tuple[Array, Array]:
    """(solutions, separation) for right-hand sides (B, k, n, m)."""
    return _respond_each(lambda k: _Discrete.of(a[k], b[k], float(d[k])), rights)


def _solve_each(
    form_of: Callable[[int], _Discrete], q: Array, a: Array, b: Array, singular: Failure
) -> tuple[Array, Array, Array]:
    out, failure, least = np.full_like(q, np.nan), np.zeros(len(q), np.int32), np.zeros(len(q), q.real.dtype)
    for k in range(len(q)):
        finite = all(np.isfinite(x[k].sum()) for x in (a, b, q))
        form = form_of(k) if finite else None
        if form is None or not form.is_finite():
            failure[k] = Failure.NOT_CONVERGED
            continue
        with np.errstate(all="ignore"):
            x = form.solve(q[k])
            separation = _separation_if_singular(form, q[k], x)
        if separation is None:
            out[k] = x
        else:
            failure[k], least[k] = singular, separation
    return out, failure, least


def _respond_each(form_of: Callable[[int], _Discrete], rights: Array) -> tuple[Array, Array]:
    out, least = np.full_like(rights, np.nan), np.zeros(len(rights), rights.real.dtype)
    for k in range(len(rights)):
        form = form_of(k)
        if form.is_finite():
            with np.errstate(all="ignore"):
                out[k] = [form.solve(right) for right in rights[k]]
                least[k] = _separation(form, _probe(rights[k, 0]))
    return out, least


def _separation_if_singular(form: _Discrete, q: Array, x: Array) -> float | None:
    """An upper estimate of the separation if the equation is singular to working precision, else None.

    The solution for a random right-hand side nearly always decides. Distances of eigenvalues are no test: with long Jordan
    chains an equation is nearly singular though they are far apart.
    """
    probe, unit = _probe(q), ROUNDINGS * float(np.finfo(q.dtype).eps)
    size_q, least = _size(q), _size(probe) / _size(form.solve(probe))
    if size_q > 0:
        least = min(least, size_q / _size(x))
    if least > 100 * math.sqrt(q.size) * unit * form.size(_size):
        return None
    limit = unit * form.size(_spectral_norm)
    least = _separation(form, probe)
    return None if least > limit else least


def _separation(form: _Discrete, probe: Array, steps: int = 3) -> float:
    """An upper estimate of the smallest singular value of the operator, by power iteration on its inverse."""
    y, smallest = probe, math.inf
    for _ in range(steps):
        for solve in (form.solve, form.adjoint_solve):
            size = _size(y)
            if not 0 < size < math.inf:
                return 0.0
            y = solve(y / size)
            smallest = min(smallest, 1 / max(_size(y), 1e-300))
    return smallest if math.isfinite(_size(y)) else 0.0


def _probe(like: Array) -> Array:
    return probe_numbers(*like.shape).astype(like.dtype)


def _spectral_norm(t: Array) -> float:
    return float(spectral_norm(load("numpy"), t[None])[0])


def _size(x: Array) -> float:
    return float(np.linalg.norm(x))
