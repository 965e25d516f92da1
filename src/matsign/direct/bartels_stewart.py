"""Schur methods on the CPU for a x + x aᴴ = q and a x aᴴ - d x + q = 0: one Schur form of a, then triangular equations.

Bartels & Stewart (1972) for the first, Barraud (1977) for the second, which a Cayley transform of the Schur factor brings into
the form of the first; the result is then corrected. Arguments and results are NumPy stacks with entries of moderate size; d, one
number for each member, is ignored for the first equation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import NDArray as Array
from matsign.backends import lapack, load
from matsign.core.failures import Failure
from matsign.direct.triangular import flip, triangular_lyapunov
from matsign.linalg.separation import ROUNDINGS, spectral_norm
from matsign.linalg.stacks import probe_numbers

Solve = Callable[[Array], Array]


class Triangular(NamedTuple):
    """An equation in the Schur basis: its solver (the flag: f is Hermitian), that of the adjoint, and a norm of the operator."""

    solve: Callable[[Array, bool], Array]
    solve_corrected: Callable[[Array, bool], Array]  # with one correction where `solve` needs it
    adjoint_solve: Solve
    size: Callable[[Callable[[Array], float]], float]


class SchurForm(NamedTuple):
    """The Schur vectors u of a = u t uᴴ, and the equation in this basis."""

    u: Array
    equation: Triangular

    def solve(self, q: Array) -> Array:
        """x in the basis of the caller; Hermitian right-hand sides cost less."""
        return self.from_schur_basis(self.equation.solve_corrected(self.to_schur_basis(q), _is_hermitian(q)))

    def adjoint_solve(self, y: Array) -> Array:
        """The solution of the adjoint equation."""
        return self.from_schur_basis(self.equation.adjoint_solve(self.to_schur_basis(y)))

    def to_schur_basis(self, q: Array) -> Array:
        return lapack.product(lapack.product(self.u.conj().T, q), self.u)

    def from_schur_basis(self, y: Array) -> Array:
        return lapack.product(lapack.product(self.u, y), self.u.conj().T)


def lyapunov(a: Array, q: Array, d: Array) -> tuple[Array, Array]:
    """(x, failure) with a x + x aᴴ = q."""
    return _solve_each(a, q, d, _lyapunov_equation, Failure.COMMON_EIGENVALUE)


def stein(a: Array, q: Array, d: Array) -> tuple[Array, Array]:
    """(x, failure) with a x aᴴ - d x + q = 0."""
    return _solve_each(a, q, d, _stein_equation, Failure.RECIPROCAL_EIGENVALUES)


def lyapunov_responses(a: Array, rights: Array, d: Array) -> tuple[Array, Array]:
    """(solutions, separation) for right-hand sides (B, k, n, n), k ≥ 0."""
    return _solve_and_separate(a, rights, d, _lyapunov_equation)


def stein_responses(a: Array, rights: Array, d: Array) -> tuple[Array, Array]:
    """`lyapunov_responses` for the second equation."""
    return _solve_and_separate(a, rights, d, _stein_equation)


def schur_form(a: Array, *, discrete: bool) -> SchurForm | None:
    """The Schur form of one matrix for solving a x + x aᴴ = q, or a x aᴴ - x + q = 0; None if LAPACK finds none."""
    return _schur_form(a, 1.0, _stein_equation if discrete else _lyapunov_equation)


def _solve_each(
    a: Array, q: Array, d: Array, solver: Callable[..., Triangular], singular: Failure
) -> tuple[Array, Array]:
    out, failure = np.full_like(q, np.nan), np.zeros(len(q), np.int32)
    for k in range(len(q)):
        form = _schur_form(a[k], float(d[k]), solver)
        if form is None or not np.isfinite(q[k].sum()):
            failure[k] = Failure.NOT_CONVERGED
            continue
        with np.errstate(all="ignore"):
            x = form.solve(q[k])
            if _singular(form.equation, q[k], x):
                failure[k] = singular
            else:
                out[k] = _real_if(out, x)
    return out, failure


def _solve_and_separate(a: Array, rights: Array, d: Array, solver: Callable[..., Triangular]) -> tuple[Array, Array]:
    out, least = np.full_like(rights, np.nan), np.zeros(len(a), a.real.dtype)
    for k in range(len(a)):
        form = _schur_form(a[k], float(d[k]), solver)
        if form is None:
            continue
        with np.errstate(all="ignore"):
            start, steps = _probe(form.u), 3
            for i, right in enumerate(rights[k]):
                f = form.to_schur_basis(right)
                y = form.equation.solve(f, _is_hermitian(right))
                out[k, i] = _real_if(out, form.from_schur_basis(y))
            if len(rights[k]):
                # The last right-hand side is random: its solution is the first step of the power iteration.
                start, steps = form.equation.adjoint_solve(y / _size(y)), 1
            least[k] = _separation(form.equation, start, steps)
    return out, least


def _schur_form(a: Array, d: float, solver: Callable[..., Triangular]) -> SchurForm | None:
    if not np.isfinite(a.sum()):
        return None
    t, u, eigenvalues, _ = lapack.schur(a)
    if (
        solver is _stein_equation
        and t.dtype.kind == "f"
        and _needs_complex_shift(eigenvalues, d, float(np.finfo(t.dtype).eps))
    ):
        t, u, eigenvalues, _ = lapack.schur(a.astype(np.result_type(a, np.complex64)))
    if not np.isfinite(t).all():
        return None
    with np.errstate(all="ignore"):
        return SchurForm(u, solver(t, eigenvalues, d))


def _needs_complex_shift(eigenvalues: Array, d: float, eps: float) -> bool:
    """Whether a real Cayley transform of the second equation, with θ = ±√d, loses more digits than one correction restores.

    An eigenvalue at the distance δ from θ amplifies rounding by d / δ², after the correction by (d / δ²)² eps.
    """
    theta = math.sqrt(d)
    distance = max(np.abs(eigenvalues - theta).min(), np.abs(eigenvalues + theta).min())
    return bool(distance < 4 * eps**0.25 * theta)


def _real_if(out: Array, x: Array) -> Array:
    """The real part of x if `out` is real: the solution of a real equation is real, also when computed in complex numbers."""
    return x.real if np.iscomplexobj(x) and not np.iscomplexobj(out) else x


def _probe(like: Array) -> Array:
    """A random right-hand side."""
    return probe_numbers(len(like), len(like)).astype(like.dtype)


def _singular(equation: Triangular, q: Array, x: Array) -> bool:
    """Whether the equation is singular to working precision; the solution for a random right-hand side nearly always decides.

    Distances of eigenvalues are no test: with long Jordan chains an equation is nearly singular though they are far apart.
    """
    n, probe, unit = len(q), _probe(q), ROUNDINGS * float(np.finfo(q.dtype).eps)
    # The kernel, if any, contains a Hermitian matrix.
    part = probe + probe.conj().T
    size_q, least = _size(q), _size(part) / _size(equation.solve(part, True))
    if size_q > 0:
        least = min(least, size_q / _size(x))
    if least > 100 * n * unit * equation.size(_size):
        return False
    limit = unit * equation.size(_spectral_norm)
    return not (least > limit and _separation(equation, probe) > limit)


def _spectral_norm(t: Array) -> float:
    return float(spectral_norm(load("numpy"), t[None])[0])


def _size(x: Array) -> float:
    return float(np.linalg.norm(x))


def _is_hermitian(x: Array) -> bool:
    return bool((x == x.conj().T).all())


def _lyapunov_equation(t: Array, eigenvalues: Array, d: float) -> Triangular:
    """For t y + y tᴴ = f and tᴴ y + y t = f."""

    def solve(f: Array, hermitian: bool) -> Array:
        return triangular_lyapunov(t, f, hermitian)

    return Triangular(solve, solve, _adjoint(t), lambda norm: 2 * norm(t))


def _stein_equation(t: Array, eigenvalues: Array, d: float) -> Triangular:
    """For t y tᴴ - d y + f = 0 and tᴴ y t - d y + f = 0, by g y + y gᴴ = -m f mᴴ, m = (t - θI)⁻¹, g = θ m + I/2.

    Any θ with |θ|² = d that is not an eigenvalue is allowed; of a few the farthest from the eigenvalues is taken, and one
    correction restores the digits lost. If a real θ would lose too many the Schur form is complex.
    """
    candidates: Array = np.exp(0.25j * np.pi * np.arange(8)) if t.dtype.kind == "c" else np.array([1.0, -1.0])
    candidates = (math.sqrt(d) * candidates).astype(t.dtype)
    theta: Any = candidates[np.argmax(np.abs(eigenvalues[:, None] - candidates).min(axis=0))]
    m = _quasi_triangular(lapack.inv(t - theta * np.eye(len(t), dtype=t.dtype)), t)
    g = theta * m + 0.5 * np.eye(len(t), dtype=t.dtype)
    adjoint_g = _adjoint(g)

    def solve(f: Array, hermitian: bool) -> Array:
        return triangular_lyapunov(g, -_congruence(m, f), hermitian)

    def solve_corrected(f: Array, hermitian: bool) -> Array:
        y = solve(f, hermitian)
        return y + solve(f + _congruence(t, y) - d * y, hermitian)

    def adjoint_solve(f: Array) -> Array:
        return adjoint_g(-_congruence(m.conj().T, f))

    return Triangular(solve, solve_corrected, adjoint_solve, lambda norm: norm(t) ** 2 + d)


def _congruence(t: Array, y: Array) -> Array:
    """t y tᴴ."""
    return lapack.product(lapack.product(t, y), t.conj().T)


def _quasi_triangular(m: Array, t: Array) -> Array:
    """m with zeros below the diagonal blocks of the quasi-triangular t."""
    m = np.triu(m, -1)
    below = np.arange(len(m) - 1)
    m[below + 1, below] *= np.diagonal(t, -1) != 0
    return np.asfortranarray(m)


def _adjoint(t: Array) -> Solve:
    """A solver for tᴴ y + y t = f, by flipping: J tᴴ J is upper triangular again."""
    flipped = flip(t)
    return lambda f: triangular_lyapunov(flipped, f[::-1, ::-1], False)[::-1, ::-1]


def _separation(equation: Triangular, probe: Array, steps: int = 3) -> float:
    """An upper estimate of the smallest singular value of the operator, by power iteration on its inverse."""
    y, smallest = probe, np.inf
    for _ in range(steps):
        for solve in (lambda f: equation.solve(f, False), equation.adjoint_solve):
            size = _size(y)
            if not 0 < size < np.inf:
                return 0.0
            y = solve(y / size)
            smallest = min(smallest, 1 / max(_size(y), 1e-300))
    return smallest
