"""Two-sided linear matrix equations on the CPU, by (generalised) Schur forms and a pair of triangular equations.

The discrete Sylvester equation d x - a x b = q needs the Schur forms of a and b, and no Cayley transform, which would lose
digits near an eigenvalue at its pole. The generalised one, a x b + c x d = q, is [a x, c x] [b; d] = q. With [b; d] = w t for
orthonormal columns w and their complement z it is the pair of equations [a x, c x] - y zᴴ = q t⁻¹ wᴴ, whose generalised Schur
forms QZ computes. Arguments and results are NumPy stacks with entries of moderate size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import lapack, load
from matsign.core.failures import Failure
from matsign.direct import entrywise_systems, triangular_pairs
from matsign.direct.entrywise_systems import EntrywiseSystem
from matsign.direct.triangular_pairs import TriangularPair
from matsign.linalg.separation import ROUNDINGS, spectral_norm
from matsign.linalg.stacks import probe_numbers

Norm = Callable[[Array], float]


class Inverse(Protocol):
    """The inverse of the operator of an equation."""

    def solve(self, q: Array) -> Array:
        """x of the equation."""

    def adjoint_solve(self, x: Array) -> Array:
        """The solution of the adjoint equation."""


class Form(Inverse, Protocol):
    """An equation in (generalised) Schur form."""

    def is_finite(self) -> bool: ...

    def size(self, norm: Norm) -> float:
        """A bound on the norm of the operator."""


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
        return norm(self.r) * norm(self.s) + self.d

    def solve(self, q: Array) -> Array:
        f = lapack.product(lapack.product(self.u.conj().T, q), self.v)
        y = self.pair.solve(np.zeros_like(f), f)[0]
        return lapack.product(lapack.product(self.u, y), self.v.conj().T)

    def adjoint_solve(self, x: Array) -> Array:
        r = lapack.product(lapack.product(self.u.conj().T, x), self.v)
        f = self.pair.adjoint_solve(r, np.zeros_like(r))[1]
        return lapack.product(lapack.product(self.u, f), self.v.conj().T)


class GeneralizedForm(NamedTuple):
    """a x b + c x d = q with (a, c) = u (s, t) vᴴ and zᴴ = p (s', t') wᴴ for the complement z of [b; d]."""

    matrices: tuple[Array, Array, Array, Array]
    right: Array  # the pseudo-inverse t⁻¹ wᴴ of [b; d]
    u: Array
    v: Array
    w: Array
    pair: TriangularPair

    @classmethod
    def of(cls, a: Array, b: Array, c: Array, d: Array) -> GeneralizedForm:
        m = len(b)
        basis, t = np.linalg.qr(np.vstack([b, d]), mode="complete")
        complement = np.ascontiguousarray(basis[:, m:].conj().T)
        right = lapack.product(lapack.inv(t[:m]), np.ascontiguousarray(basis[:, :m].conj().T))
        s, t, u, v = lapack.qz(a, c)
        other_s, other_t, _, w = lapack.qz(complement[:, :m], complement[:, m:])
        return cls((a, b, c, d), right, u, v, w, TriangularPair(s, other_s, t, other_t))

    def is_finite(self) -> bool:
        return all(bool(np.isfinite(x).all()) for x in self.pair)

    def size(self, norm: Norm) -> float:
        a, b, c, d = self.matrices
        return norm(a) * norm(b) + norm(c) * norm(d)

    def solve(self, q: Array) -> Array:
        """With one correction, if it reduces the residual: t may be ill-conditioned."""
        a, b, c, d = self.matrices
        x = self._solve(q)
        gap = q - a @ x @ b - c @ x @ d
        new = x + self._solve(gap)
        return new if _size(q - a @ new @ b - c @ new @ d) < _size(gap) else x

    def _solve(self, q: Array) -> Array:
        m = q.shape[1]
        f = lapack.product(lapack.product(self.u.conj().T, q), self.right)
        y, _ = self.pair.solve(lapack.product(f[:, :m], self.w), lapack.product(f[:, m:], self.w))
        return lapack.product(lapack.product(self.v, y), self.w.conj().T)

    def adjoint_solve(self, x: Array) -> Array:
        g = lapack.product(lapack.product(self.v.conj().T, x), self.w)
        parts = self.pair.adjoint_solve(g, np.zeros_like(g))
        f = np.hstack([lapack.product(y, self.w.conj().T) for y in parts])
        return lapack.product(lapack.product(self.u, f), self.right.conj().T)


class _Pair(NamedTuple):
    """a x - y b = c, d x - y e = f for [x; y] and [c; f], with (a, d) = u (s, t) vᴴ and (b, e) = p (s', t') wᴴ."""

    matrices: tuple[Array, Array, Array, Array]
    u: Array
    v: Array
    p: Array
    w: Array
    pair: TriangularPair

    @classmethod
    def of(cls, a: Array, b: Array, d: Array, e: Array) -> _Pair:
        s, t, u, v = lapack.qz(a, d)
        other_s, other_t, p, w = lapack.qz(b, e)
        return cls((a, b, d, e), u, v, p, w, TriangularPair(s, other_s, t, other_t))

    def is_finite(self) -> bool:
        return all(bool(np.isfinite(x).all()) for x in self.pair)

    def size(self, norm: Norm) -> float:
        return sum(norm(x) for x in self.pair)

    def solve(self, q: Array) -> Array:
        """With one correction, if it reduces the larger residual: one of x and y may be much smaller than the other."""
        z = self._solve(q)
        gap, error = self._residual(q, z)
        new = z + self._solve(gap)
        return new if self._residual(q, new)[1] < error else z

    def _residual(self, q: Array, z: Array) -> tuple[Array, float]:
        """The residual, and the larger one of the backward errors of the two equations."""
        (a, b, d, e), (x, y) = self.matrices, np.split(z, 2)
        gaps, errors = [], []
        for left, right, known in zip((a, d), (b, e), np.split(q, 2), strict=True):
            first, second = left @ x, y @ right
            gap = known - first + second
            gaps.append(gap)
            size = _size(known) + _size(first) + _size(second)
            errors.append(_size(gap) / max(size, float(np.finfo(q.dtype).tiny)))
        return np.vstack(gaps), max(errors)

    def _solve(self, q: Array) -> Array:
        c, f = (_congruence(self.u.conj().T, x, self.w) for x in np.split(q, 2))
        x, y = self.pair.solve(c, f)
        return np.vstack([_congruence(self.v, x, self.w.conj().T), _congruence(self.u, y, self.p.conj().T)])

    def adjoint_solve(self, x: Array) -> Array:
        top, bottom = np.split(x, 2)
        parts = self.pair.adjoint_solve(
            _congruence(self.v.conj().T, top, self.w), _congruence(self.u.conj().T, bottom, self.p)
        )
        return np.vstack([_congruence(self.u, y, self.w.conj().T) for y in parts])


class _Adjoint(NamedTuple):
    """The adjoint of an equation."""

    form: Form

    def is_finite(self) -> bool:
        return self.form.is_finite()

    def size(self, norm: Norm) -> float:
        return self.form.size(norm)

    def solve(self, q: Array) -> Array:
        return self.form.adjoint_solve(q)

    def adjoint_solve(self, x: Array) -> Array:
        return self.form.solve(x)


def _congruence(u: Array, x: Array, v: Array) -> Array:
    return lapack.product(lapack.product(u, np.ascontiguousarray(x)), v)


def discrete(a: Array, b: Array, q: Array, d: Array) -> tuple[Array, Array, Array]:
    """(x, failure, separation) with d x - a x b = q; the separation, an upper estimate, for singular members only."""
    return solve_each(lambda k: _Discrete.of(a[k], b[k], float(d[k])), q, (a, b), Failure.RECIPROCAL_PAIR)


def discrete_responses(a: Array, b: Array, rights: Array, d: Array) -> tuple[Array, Array]:
    """(solutions, separation) for right-hand sides (B, k, n, m)."""
    return respond_each(lambda k: _Discrete.of(a[k], b[k], float(d[k])), rights)


def solve_generalized(a: Array, b: Array, c: Array, d: Array, q: Array) -> tuple[Array, Array, Array]:
    """(x, failure, separation) with a x b + c x d = q, as `discrete`."""
    return solve_each(
        lambda k: GeneralizedForm.of(a[k], b[k], c[k], d[k]),
        q,
        (a, b, c, d),
        Failure.COMMON_PENCIL_EIGENVALUE,
        lambda k: entrywise_systems.generalized_system(a[k], b[k], c[k], d[k]),
    )


def generalized_responses(a: Array, b: Array, c: Array, d: Array, rights: Array) -> tuple[Array, Array]:
    """(solutions, separation) for right-hand sides (B, k, n, m)."""
    return respond_each(
        lambda k: GeneralizedForm.of(a[k], b[k], c[k], d[k]),
        rights,
        lambda k: entrywise_systems.generalized_system(a[k], b[k], c[k], d[k]),
    )


def pair(a: Array, b: Array, d: Array, e: Array, rights: Array) -> tuple[Array, Array, Array]:
    """([x; y], failure, separation) with a x - y b = c and d x - y e = f for rights = [c; f], as `discrete`."""
    return solve_each(
        lambda k: _Pair.of(a[k], b[k], d[k], e[k]),
        rights,
        (a, b, d, e),
        Failure.COMMON_PAIR_EIGENVALUE,
        lambda k: entrywise_systems.pair(a[k], b[k], d[k], e[k]),
    )


def adjoint_pair(a: Array, b: Array, d: Array, e: Array, rights: Array) -> tuple[Array, Array, Array]:
    """The same for the adjoint, [u; v] with aᴴ u + dᴴ v = g and -u bᴴ - v eᴴ = h for rights = [g; h]."""
    return solve_each(
        lambda k: _Adjoint(_Pair.of(a[k], b[k], d[k], e[k])),
        rights,
        (a, b, d, e),
        Failure.COMMON_PAIR_EIGENVALUE,
        lambda k: entrywise_systems.pair(a[k], b[k], d[k], e[k]).adjoint(),
    )


def pair_responses(a: Array, b: Array, d: Array, e: Array, rights: Array) -> tuple[Array, Array]:
    """(solutions, separation) of the pair for right-hand sides (B, k, 2n, m)."""
    return respond_each(
        lambda k: _Pair.of(a[k], b[k], d[k], e[k]),
        rights,
        lambda k: entrywise_systems.pair(a[k], b[k], d[k], e[k]),
    )


Systems = Callable[[int], EntrywiseSystem]


def solve_each(
    form_of: Callable[[int], Form],
    q: Array,
    matrices: tuple[Array, ...],
    singular: Failure,
    system_of: Systems | None = None,
) -> tuple[Array, Array, Array]:
    """(x, failure, separation); by `system_of` for few unknowns where the norm of the operator says that it is singular."""
    out, failure, least = np.full_like(q, np.nan), np.zeros(len(q), np.int32), np.zeros(len(q), q.real.dtype)
    for k in range(len(q)):
        if not all(np.isfinite(x[k].sum()) for x in (*matrices, q)):
            failure[k] = Failure.NOT_CONVERGED
            continue
        with np.errstate(all="ignore"):
            out[k], failure[k], least[k] = _solve_by_form(form_of(k), q[k], singular)
            system = _regular_system(system_of, k, q[k]) if failure[k] else None
            if system is not None:
                out[k], failure[k], least[k] = system.solve(q[k]), 0, 0
    return out, failure, least


def _solve_by_form(form: Form, q: Array, singular: Failure) -> tuple[Array | float, int, float]:
    if not form.is_finite():
        return math.nan, Failure.NOT_CONVERGED, 0.0
    x = form.solve(q)
    separation = separation_if_singular(form, q, x)
    return (x, 0, 0.0) if separation is None else (math.nan, singular, separation)


def _regular_system(system_of: Systems | None, k: int, q: Array) -> EntrywiseSystem | None:
    """The system for the entries, if these are few, rounding of them does not make it singular, and it gives q a solution."""
    if system_of is None or q.size > entrywise_systems.MAX_UNKNOWNS:
        return None
    system = system_of(k)
    return system if system.is_regular() and system.is_accurate(q, system.solve(q)) else None


def respond_each(
    form_of: Callable[[int], Form], rights: Array, system_of: Systems | None = None
) -> tuple[Array, Array]:
    """(solutions, separation), as `solve_each`."""
    out, least = np.full_like(rights, np.nan), np.zeros(len(rights), rights.real.dtype)
    for k in range(len(rights)):
        with np.errstate(all="ignore"):
            inverse = _inverse(form_of(k), system_of, k, rights[k, -1])
            if inverse is not None:
                out[k] = [inverse.solve(right) for right in rights[k]]
                least[k] = separation_of(inverse, probe_of(rights[k, 0]))
    return out, least


def _inverse(form: Form, system_of: Systems | None, k: int, q: Array) -> Inverse | None:
    """The form; the regular system where the form is singular to working precision."""
    finite, rounding = form.is_finite(), ROUNDINGS * float(np.finfo(q.dtype).eps)
    if finite and separation_of(form, probe_of(q)) > rounding * form.size(_spectral_norm):
        return form
    return _regular_system(system_of, k, q) or (form if finite else None)


def separation_if_singular(form: Form, q: Array, x: Array) -> float | None:
    """An upper estimate of the separation if the equation is singular to working precision, else None.

    The solution for a random right-hand side nearly always decides. Distances of eigenvalues are no test: with long Jordan
    chains an equation is nearly singular though they are far apart.
    """
    if form.size(_size) == 0:
        return 0.0
    probe, unit = probe_of(q), ROUNDINGS * float(np.finfo(q.dtype).eps)
    size_q, least = _size(q), _size(probe) / _size(form.solve(probe))
    if size_q > 0:
        least = min(least, size_q / _size(x))
    if least > 100 * math.sqrt(q.size) * unit * form.size(_size):
        return None
    limit = unit * form.size(_spectral_norm)
    least = separation_of(form, probe)
    return None if least > limit else least


def separation_of(form: Inverse, probe: Array, steps: int = 3) -> float:
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


def probe_of(like: Array) -> Array:
    return probe_numbers(*like.shape).astype(like.dtype)


def _spectral_norm(t: Array) -> float:
    return float(spectral_norm(load("numpy"), t[None])[0])


def _size(x: Array) -> float:
    return float(np.linalg.norm(x))
