"""Balancing by the solutions of two Riccati equations of a model ẋ = a x + b u, y = c x + d u in place of its Gramians.

    aᴴ w + w a - (w b + cᴴ d) r⁻¹ (w b + cᴴ d)ᴴ + cᴴ c = 0,    r = dᴴ d + σ I,

and the same equation of the dual model (aᴴ, cᴴ, bᴴ, dᴴ) for x. LQG balancing has σ = 1, the regulator and the filter with unit
weights (Jonckheere & Silverman 1983). Bounded real balancing has σ = -1, for a stable model with H∞ norm below 1 (Opdenacker &
Jonckheere 1988). The characteristic values are the roots of the eigenvalues of x w.

Factors of w are those of a Gramian, without squaring their range: with k = r⁻¹ (w b + cᴴ d)ᴴ, w is that of

    (a - b k)ᴴ and [(c - d k)ᴴ, kᴴ]  for σ = 1,        aᴴ and [cᴴ, kᴴ f], f fᴴ = I - dᴴ d  for σ = -1.

Differential: dw and dx of the Riccati equations (`equations.riccati.derivatives`), then those of the projections
(`pair_balancing`).
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.core.public import Residual
from matsign.equations.lyapunov.factors import continuous_factor, in_units_of_states
from matsign.equations.reduction.pair_balancing import BalancingProjections, balance_pair, pair_jvp, pair_vjp
from matsign.equations.riccati.care import CARE, CONTINUOUS
from matsign.equations.riccati.certificates import error_estimate
from matsign.equations.riccati.classification import zero_nonfinite_entries
from matsign.equations.riccati.derivatives import close, solution_jvp, solution_vjp
from matsign.equations.riccati.forms import Arguments
from matsign.equations.riccati.newton_kleinman import solve_weighted
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, hermitian

_OPTIONS = {"method": "auto", "balanced": True, "half_plane": "left"}
# The failures of the regulator, and those of the filter, in the words of this problem; others are `lost`.
_REGULATOR = {
    Failure.NOT_STABILISABLE: Failure.NOT_STABILISABLE,
    Failure.NOT_DETECTABLE: Failure.HIDDEN_MODE,
    Failure.OVERFLOW: Failure.OVERFLOW,
}
_FILTER = {
    Failure.NOT_STABILISABLE: Failure.NOT_MEASURED,
    Failure.NOT_DETECTABLE: Failure.HIDDEN_MODE,
    Failure.OVERFLOW: Failure.OVERFLOW,
}


class Model(NamedTuple):
    a: Array
    b: Array
    c: Array
    d: Array

    def dual(self) -> Model:
        return Model(adjoint(self.a), adjoint(self.c), adjoint(self.b), adjoint(self.d))


def _problem(backend: Backend, m: Model, sigma: float) -> RiccatiProblem:
    """The equation for w."""
    r = adjoint(m.d) @ m.d + sigma * eye(backend, m.d)
    return RiccatiProblem(m.a, m.b, adjoint(m.c) @ m.c, r, None, adjoint(m.c) @ m.d)


def _problem_jvp(m: Model, t: Model) -> RiccatiProblem:
    q, r = adjoint(m.c) @ t.c, adjoint(m.d) @ t.d
    s = adjoint(t.c) @ m.d + adjoint(m.c) @ t.d
    return RiccatiProblem(t.a, t.b, q + adjoint(q), r + adjoint(r), None, s)


def _problem_vjp(m: Model, bar: RiccatiProblem) -> Model:
    """The adjoint of `_problem_jvp`."""
    c = 2 * (m.c @ hermitian(bar.q)) + m.d @ adjoint(bar.s)
    return Model(bar.a, bar.b, c, 2 * (m.d @ hermitian(bar.r)) + m.c @ bar.s)


def _factor_model(backend: Backend, m: Model, w: Array, sigma: float) -> tuple[Array, Array]:
    """A stable matrix and an input matrix whose controllability Gramian is w."""
    p = _problem(backend, m, sigma)
    k = solve_weighted(backend, p.r, adjoint(w @ m.b + p.s))
    if sigma > 0:
        return adjoint(m.a - m.b @ k), backend.xp.concat((adjoint(m.c - m.d @ k), adjoint(k)), axis=-1)
    f = zero_nonfinite_entries(backend, backend.cholesky(-hermitian(p.r)))
    return adjoint(m.a), backend.xp.concat((adjoint(m.c), adjoint(k) @ f), axis=-1)


def _is_definite(backend: Backend, m: Model) -> Array:
    """Whether I - dᴴ d is positive definite, which the bounded real equation needs: another one may have a solution, too."""
    return backend.xp.isfinite(backend.norm(backend.cholesky(-hermitian(_problem(backend, m, -1.0).r))))


class Side(NamedTuple):
    """The solution of one of the equations, a factor of it, its failure with a detail, and the number of steps."""

    w: Array
    factor: Array
    failure: Array
    detail: Array
    steps: Array


def _solve_side(backend: Backend, m: Model, sigma: float, words: dict[Failure, Failure], lost: Failure) -> Side:
    result = CARE.operation.solve(backend, *_problem(backend, m, sigma), **_OPTIONS)
    failure = 0 * result.failure
    for one, other in words.items() if sigma > 0 else ():
        failure = other.where(backend, result.failure == int(one), failure)
    has_none = result.failure > 0 if sigma > 0 else (result.failure > 0) | ~_is_definite(backend, m)
    failure = lost.where(backend, has_none & (failure == 0), failure)
    w = zero_nonfinite_entries(backend, result.value[0])
    a, b = _factor_model(backend, m, w, sigma)
    f = continuous_factor(backend, in_units_of_states(backend, zero_nonfinite_entries(backend, a), b))
    # The closed loop of a solution is stable; a itself need not be.
    unstable = f.failure if sigma < 0 else Failure.HIDDEN_MODE.where(backend, f.failure > 0, f.failure)
    failure = backend.xp.where((failure == 0) | (sigma < 0) & (unstable > 0), unstable, failure)
    z = backend.ldexp(f.z, f.e[:, :, None] + broadcast_scalar(f.scale))
    return Side(w, z, failure, result.detail, result.iterations)


def solve_pair(backend: Backend, m: Model, sigma: float) -> tuple[Side, Side]:
    """x and w."""
    lost = Failure.NO_RICCATI_PAIR if sigma > 0 else Failure.NOT_BOUNDED_REAL
    x = _solve_side(backend, m.dual(), sigma, _FILTER, lost)
    return x, _solve_side(backend, m, sigma, _REGULATOR, lost)


def balance_by_riccati(backend: Backend, m: Model, sigma: float) -> tuple[Solution, tuple[Side, Side]]:
    """The projections, with the failures of both equations."""
    x, w = solve_pair(backend, m, sigma)
    failed = w.failure > 0
    result = solution(backend, balance_pair(backend, x.factor, w.factor), iterations=x.steps + w.steps)
    failure = backend.xp.where(failed, w.failure, x.failure)
    return result._replace(failure=failure, detail=backend.xp.where(failed[:, None], w.detail, x.detail)), (x, w)


def solution_errors(backend: Backend, m: Model, sigma: float, sides: tuple[Side, Side]) -> tuple[Residual, Residual]:
    """The error estimates of x and w, each as the product of its factor."""
    x, w = (
        error_estimate(backend, CONTINUOUS, side.factor @ adjoint(side.factor), _problem(backend, k, sigma))
        for side, k in zip(sides, (m.dual(), m), strict=True)
    )
    return x, w


def _solve(backend: Backend, a: Array, b: Array, c: Array, d: Array, *, sigma: float) -> Solution:
    return balance_by_riccati(backend, Model(a, b, c, d), sigma)[0]


def _solutions(backend: Backend, m: Model, sigma: float) -> tuple[Array, Array]:
    """(x, w), differentiable."""
    x, w = (
        apply(backend, CARE.operation, *Arguments(*_problem(backend, k, sigma)), **_OPTIONS)[0] for k in (m.dual(), m)
    )
    return x, w


def projections_tangent(backend: Backend, at: BalancingProjections, m: Model, t: Model, sigma: float) -> Arrays:
    """(dσ, dl, dt) for a change t of the model."""
    pair = _solutions(backend, m, sigma)
    moved = tuple(
        solution_jvp(backend, close(backend, CONTINUOUS, _problem(backend, k, sigma), x), _problem_jvp(k, dk))
        for x, k, dk in zip(pair, (m.dual(), m), (t.dual(), t), strict=True)
    )
    return pair_jvp(backend, at, pair, moved)


def projections_cotangent(
    backend: Backend, at: BalancingProjections, m: Model, cotangents: Arrays, sigma: float
) -> Model:
    """The adjoint of `projections_tangent`."""
    pair = _solutions(backend, m, sigma)
    bars = pair_vjp(backend, at, pair, cotangents)
    dual, own = (
        _problem_vjp(k, solution_vjp(backend, close(backend, CONTINUOUS, _problem(backend, k, sigma), x), bar))
        for x, k, bar in zip(pair, (m.dual(), m), bars, strict=True)
    )
    return Model(*(x + y for x, y in zip(dual.dual(), own, strict=True)))


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, sigma: float) -> Arrays:
    at = BalancingProjections(*value)
    moved = projections_tangent(backend, at, Model(*arrays), Model(*tangents), sigma)
    return (*moved, backend.xp.zeros_like(at.anchor))


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, sigma: float) -> Arrays:
    return projections_cotangent(backend, BalancingProjections(*value), Model(*arrays), cotangents[:3], sigma)


RICCATI_BALANCING = Operation(
    "Riccati balancing",
    shapes_of("(n,n),(n,m),(p,n),(p,m)"),
    shapes_of("(n),(n,n),(n,n),(n,n)"),
    solve=_solve,
    tangent=_tangent,
    cotangent=_cotangent,
    kinds=("real", "same", "same", "real"),
)


def projections_at(backend: Backend, arrays: Arrays, sigma: float) -> BalancingProjections:
    """The projections of a model (a, b, c, d), differentiable."""
    return BalancingProjections(*apply(backend, RICCATI_BALANCING, *arrays, sigma=sigma))


def powers(backend: Backend, a: Array, b: Array, c: Array, d: Array) -> scaling.Powers:
    """The exponents by which a model and its reduced model exceed one with entries of at most about 1 and the same values."""
    of_b, of_c = scaling.size_of(backend, b), scaling.size_of(backend, c)
    half = -(-backend.xp.maximum(scaling.size_of(backend, a), of_b + of_c) // 2)
    shift = (of_b - of_c) // 2
    return scaling.Powers((2 * half, half + shift, half - shift, 0 * half), (2 * half, half, half, 0 * half, 0 * half))
