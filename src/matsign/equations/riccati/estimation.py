"""The stationary Kalman filter as the regulator of the dual plant: its solver, its derivatives and its errors.

The dual plant is

    a → aᴴ,  b → cᴴ,  q → g qn gᴴ,  r → rn,  s → g nn,      l = kᴴ,

and its differential

    d(g qn gᴴ) = t + tᴴ + g dqn gᴴ,  t = dg qn gᴴ,      d(g nn) = dg nn + g dnn.

The filter gain x cᴴ (c x cᴴ + rn)⁻¹ is that of the dual plant with a delayed copy of its states (`delayed_copy`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution
from matsign.core.public import Residual
from matsign.equations.riccati.care import CONTINUOUS
from matsign.equations.riccati.classification import zero_nonfinite_entries
from matsign.equations.riccati.dare import DISCRETE
from matsign.equations.riccati.newton_kleinman import Equation
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.regulation import (
    mark_indefinite,
    regulate,
    regulation_cotangent,
    regulation_errors,
    regulation_tangent,
)
from matsign.linalg.stacks import adjoint, hermitian, rounding_probe

# The reasons of the dual regulator, in the words of the estimator.
_REASONS = {
    Failure.NOT_STABILISABLE: Failure.NOT_MEASURED,
    Failure.NOT_DETECTABLE: Failure.NOT_DISTURBED,
    Failure.NOT_STABILISING: Failure.NO_ESTIMATOR,
    Failure.SINGULAR_R: Failure.SINGULAR_RN,
    Failure.HARDLY_STABILISABLE: Failure.HARDLY_MEASURED,
    Failure.HARDLY_STABILISED: Failure.HARDLY_ESTIMATED,
}


class Model(NamedTuple):
    """The arguments: x' = a x + g w, y = c x + v, with the covariances qn of w, rn of v and nn of w with v (or None).

    x0 is an estimate of the solution, or None.
    """

    a: Array
    g: Array
    c: Array
    qn: Array
    rn: Array
    nn: Array | None
    x0: Array | None = None


def _dual(m: Model) -> RiccatiProblem:
    q = hermitian(m.g @ hermitian(m.qn) @ adjoint(m.g))
    return RiccatiProblem(adjoint(m.a), adjoint(m.c), q, hermitian(m.rn), None, None if m.nn is None else m.g @ m.nn)


def _dual_tangent(m: Model, d: Model) -> RiccatiProblem:
    t = d.g @ hermitian(m.qn) @ adjoint(m.g)
    q = t + adjoint(t) + m.g @ hermitian(d.qn) @ adjoint(m.g)
    s = None if m.nn is None else d.g @ m.nn + m.g @ d.nn
    return RiccatiProblem(adjoint(d.a), adjoint(d.c), q, hermitian(d.rn), None, s)


def _dual_cotangent(m: Model, bar: RiccatiProblem) -> Model:
    """The adjoint of `_dual_tangent`."""
    bar_q = hermitian(bar.q)
    g = 2 * (bar_q @ m.g @ hermitian(m.qn))
    if m.nn is not None:
        g = g + bar.s @ adjoint(m.nn)
    qn = hermitian(adjoint(m.g) @ bar_q @ m.g)
    nn = None if m.nn is None else adjoint(m.g) @ bar.s
    x0 = None if m.x0 is None else 0 * bar.q
    return Model(adjoint(bar.a), g, adjoint(bar.b), qn, hermitian(bar.r), nn, x0)


def _of_dual(backend: Backend, gain: Array, x: Array, poles: Array) -> Arrays:
    # Those of real matrices are conjugate pairs.
    return adjoint(gain), x, backend.xp.conj(poles) if backend.is_complex(x) else poles


def _is_filter(options: dict[str, str]) -> bool:
    return options.get("gain") == "filter"


def estimator_solver(equation: Equation) -> Callable[..., Solution]:
    def solve(backend: Backend, *arrays: Array, method: str, **options: str) -> Solution:
        m = Model(*arrays)
        p = _dual(m)
        overflowed = ~backend.xp.isfinite(backend.norm(p.q))
        p = p._replace(q=zero_nonfinite_entries(backend, p.q))
        result = regulate(backend, equation, p, method, start=m.x0, filtering=_is_filter(options))
        failure = Failure.OVERFLOW.where(backend, overflowed, result.failure)
        for of_regulator, of_estimator in _REASONS.items():
            failure = of_estimator.where(backend, failure == int(of_regulator), failure)
        detail = backend.xp.stack(
            (result.detail[:, 0], -result.detail[:, 1]), axis=-1
        )  # aᴴ has the conjugate eigenvalues
        result = result._replace(value=_of_dual(backend, *result.value), failure=failure, detail=detail)
        if not equation.discrete:
            result = mark_indefinite(backend, result, p.r, Failure.SINGULAR_RN)
        return mark_indefinite(backend, result, _covariance(backend, m), Failure.NOT_A_COVARIANCE)

    return solve


def _covariance(backend: Backend, m: Model) -> Array:
    """[[qn, nn], [nnᴴ, rn]]."""
    xp, nn = backend.xp, m.nn
    if nn is None:
        nn = backend.zeros((m.qn.shape[0], m.qn.shape[-1], m.rn.shape[-1]), m.qn)
    upper = xp.concat((hermitian(m.qn), nn), axis=-1)
    return xp.concat((upper, xp.concat((adjoint(nn), hermitian(m.rn)), axis=-1)), axis=-2)


def _errors(equation: Equation, backend: Backend, value: Arrays, *arrays: Array, **options: str) -> Residual:
    m, value = Model(*arrays), _of_dual(backend, *value)
    p, filtering = _dual(m), _is_filter(options)
    result = regulation_errors(backend, equation, value, p, filtering=filtering)
    step, dx, nearest = result.correction
    # The rounding errors of g qn gᴴ, which are large beside it where its terms cancel.
    size = backend.norm(m.g) ** 2 * backend.norm(m.qn)
    noise = hermitian(rounding_probe(backend, p.q, size))
    d = RiccatiProblem(*(None if x is None else 0 * x for x in p))._replace(q=noise)
    by_noise = regulation_tangent(backend, equation, value, p, d, filtering=filtering)
    return result._replace(correction=(adjoint(step + abs(by_noise[0])), abs(dx) + abs(by_noise[1]), nearest))


def continuous_errors(backend: Backend, value: Arrays, *arrays: Array) -> Residual:
    return _errors(CONTINUOUS, backend, value, *arrays)


def discrete_errors(backend: Backend, value: Arrays, *arrays: Array, gain: str) -> Residual:
    return _errors(DISCRETE, backend, value, *arrays, gain=gain)


def estimator_tangent(equation: Equation) -> Callable[..., Arrays]:
    def tangent(
        backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, method: str, **options: str
    ) -> Arrays:
        m = Model(*arrays)
        p, d, value = _dual(m), _dual_tangent(m, Model(*tangents)), _of_dual(backend, *value)
        moved = regulation_tangent(backend, equation, value, p, d, filtering=_is_filter(options))
        return _of_dual(backend, *moved)

    return tangent


def estimator_cotangent(equation: Equation) -> Callable[..., Arrays]:
    def cotangent(
        backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, method: str, **options: str
    ) -> Arrays:
        m = Model(*arrays)
        value, bar = (_of_dual(backend, *x) for x in (value, cotangents))
        dual = regulation_cotangent(backend, equation, value, _dual(m), bar, filtering=_is_filter(options))
        return tuple(_dual_cotangent(m, dual))

    return cotangent
