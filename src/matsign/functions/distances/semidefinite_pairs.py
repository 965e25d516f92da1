"""Two positive semidefinite matrices A = K Kᴴ and B = L Lᴴ of any rank: their distance, fidelity and the derivatives of these.

    b = min over unitary W of ‖K - L W‖        the Bures distance; W = V Uᴴ for KᴴL = U S Vᴴ
    f = tr (A^{1/2} B A^{1/2})^{1/2} = tr S    the root of the fidelity, a nuclear norm;  b² = tr A + tr B - 2 f

b has all its digits where A is near to B, as nothing cancels in b². With T A T = B, where T is the optimal map from A to B,

    d(b²) = tr(G dA) + tr(H dB),    G = I - T = (K - L W) K⁺ + I - K K⁺ on the range of A,    H the same for B and A,

and 2 df = tr((I - G) dA) + tr((I - H) dB). Where A is singular this is the derivative along directions that keep its rank, and,
by the block I of G, along those in which A grows out of the ranges of both. For second derivatives,

    (T A) dT + dT (A T) = dB - T dA T,    dG = -dT,

for nonsingular A and B. Sources: Bures 1969, Uhlmann 1976, Bhatia, Jain & Lim 2019.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.core.tolerances import rank_tolerance
from matsign.iterations.differentiable_solves import sylvester_positive
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    inner,
    safe_divisor,
    scale_to_unit,
    to_double,
)


class Extremes(NamedTuple):
    """The smallest eigenvalue of A over its largest modulus, and that modulus in units of 2^e."""

    e: Array
    least: Array
    top: Array


class Factor(NamedTuple):
    """K of A = 2^e K Kᴴ with an even e, K⁺, the smallest eigenvalue of A over its largest modulus, and that modulus."""

    factor: Array
    inverse: Array
    e: Array
    least: Array
    top: Array

    @property
    def extremes(self) -> Extremes:
        return Extremes(self.e, self.least, self.top)


def scale_evenly(backend: Backend, a: Array) -> tuple[Array, Array]:
    """2^-e A with entries of at most 1, and the even e."""
    a, e = scale_to_unit(backend, a)
    return backend.ldexp(a, broadcast_scalar(-(e % 2))), e + e % 2


def factor(backend: Backend, a: Array, rtol: float | None) -> Factor:
    """By eigenvectors, in double precision; eigenvalues of at most `rtol` times the largest one are zero."""
    zero, xp = rank_tolerance(backend, a, rtol), backend.xp
    a, e = scale_evenly(backend, a)
    values, v = backend.eigh(hermitian(to_double(backend, a)))
    top = xp.max(xp.abs(values), axis=-1)
    kept = values > zero * top[:, None]
    root = xp.sqrt(xp.where(kept, values, xp.ones_like(values)))
    ones = backend.astype(kept, backend.dtype_name(values))
    least = values[:, 0] / safe_divisor(backend, top)
    return Factor(v * (root * ones)[:, None, :], adjoint(v * (ones / root)[:, None, :]), e, least, top)


def largest_negative(backend: Backend, a: Array, rtol: float | None) -> float:
    """Negative eigenvalues up to this, relative to the largest modulus, are rounding errors."""
    return -10 * max(rank_tolerance(backend, a, rtol), rank_tolerance(backend, a, None))


def indefinite(
    backend: Backend, a: Array, f: Extremes, rtol: float | None, reason: Failure, result: Solution
) -> Solution:
    """The solution with this failure where the matrix with these extremes has a negative eigenvalue, which is the detail."""
    bad = f.least < largest_negative(backend, a, rtol)
    mark = solution(backend, result.value, reason, bad, detail=backend.ldexp(f.least * f.top, f.e))
    return result._replace(
        failure=backend.xp.where(result.failure > 0, result.failure, mark.failure),
        detail=backend.xp.where(bad[:, None] & (result.failure == 0)[:, None], mark.detail, result.detail),
    )


def optimal_turn(backend: Backend, k: Array, other: Array) -> tuple[Array, Array]:
    """The unitary W for which K is nearest to L W, and the singular values of KᴴL, L being the other factor."""
    u, values, vh = backend.svd(adjoint(k) @ other)
    return adjoint(u @ vh), values


class Pair(NamedTuple):
    """The factors of A and B, the unitary W, the distance b and the root f of the fidelity, in the precision of the factors."""

    a: Factor
    b: Factor
    w: Array
    distance: Array
    root: Array


def compare(backend: Backend, a: Array, b: Array, rtol: float | None) -> Pair:
    return compare_factors(backend, factor(backend, a, rtol), factor(backend, b, rtol))


def compare_factors(backend: Backend, x: Factor, y: Factor) -> Pair:
    w, values = optimal_turn(backend, x.factor, y.factor)
    e = backend.xp.maximum(x.e, y.e)
    ahead = backend.ldexp(x.factor, broadcast_scalar((x.e - e) // 2))
    gap = ahead - backend.ldexp(y.factor @ w, broadcast_scalar((y.e - e) // 2))
    root = backend.ldexp(backend.xp.sum(values, axis=-1), (x.e + y.e) // 2)
    return Pair(x, y, w, backend.ldexp(backend.norm(gap), e // 2), root)


def gradients(backend: Backend, arrays: Arrays, rtol: float | None) -> Arrays:
    """(G, H), the gradients of the squared Bures distance of A and B."""
    return apply(backend, _GRADIENTS, *arrays, rtol=rtol)


def _half_gradient(backend: Backend, x: Factor, y: Factor, w: Array) -> Array:
    """G for the factors of A and B."""
    gap = x.factor - backend.ldexp(y.factor @ w, broadcast_scalar((y.e - x.e) // 2))
    projector, one = hermitian(x.factor @ x.inverse), eye(backend, gap)
    rest, whole = one - projector, gap @ x.inverse
    across = rest @ whole
    return hermitian(projector @ whole) + across + adjoint(across) + rest


def _solve_gradients(backend: Backend, a: Array, b: Array, *, rtol: float | None) -> Solution:
    p, kind = compare(backend, a, b, rtol), backend.dtype_name(a)
    g, h = _half_gradient(backend, p.a, p.b, p.w), _half_gradient(backend, p.b, p.a, adjoint(p.w))
    return solution(backend, (backend.astype(g, kind), backend.astype(h, kind)))


def _gradients_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, rtol: float | None
) -> Arrays:
    pairs = zip(value, map(hermitian, arrays), map(hermitian, tangents), map(hermitian, tangents[::-1]), strict=True)
    result = []
    for g, a, da, db in pairs:
        t = eye(backend, g) - g
        result.append(-sylvester_positive(backend, t @ a, a @ t, db - t @ da @ t))
    return tuple(result)


def _gradients_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, rtol: float | None
) -> Arrays:
    ys, ts = [], []
    for g, a, bar in zip(value, map(hermitian, arrays), map(hermitian, cotangents), strict=True):
        t = eye(backend, g) - g
        ys.append(-sylvester_positive(backend, a @ t, t @ a, bar))
        ts.append(t)
    (ya, yb), (ta, tb) = ys, ts
    return hermitian(yb - ta @ ya @ ta), hermitian(ya - tb @ yb @ tb)


_GRADIENTS = Operation(
    "gradients of the squared Bures distance",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n),(n,n)"),
    solve=_solve_gradients,
    tangent=_gradients_tangent,
    cotangent=_gradients_cotangent,
)


def squared_tangent(backend: Backend, arrays: Arrays, tangents: Arrays, rtol: float | None) -> Array:
    """d(b²)."""
    pairs = zip(gradients(backend, arrays, rtol), map(hermitian, tangents), strict=True)
    return sum(inner(backend, g, x) for g, x in pairs)


def root_tangent(backend: Backend, arrays: Arrays, tangents: Arrays, rtol: float | None) -> Array:
    """df."""
    pairs = zip(gradients(backend, arrays, rtol), map(hermitian, tangents), strict=True)
    return sum(inner(backend, eye(backend, g) - g, x) for g, x in pairs) / 2


def size(backend: Backend, a: Array, b: Array) -> Array:
    """The root of tr A + tr B: the largest distance of matrices with these traces."""
    return backend.xp.sqrt(abs(backend.trace(a).real + backend.trace(b).real))


def inverse_of_twice(backend: Backend, b: Array, a: Array, other: Array) -> Array:
    """1 / (2 b), and 0 where b is a rounding error."""
    smallest = 8 * a.shape[-1] * backend.eps(a) * size(backend, a, other)
    positive = b > smallest
    return backend.xp.where(positive, 0.5 / backend.xp.where(positive, b, backend.xp.ones_like(b)), 0 * b)


def error_of_root(backend: Backend, b: Array, error: Array, slope: Array) -> Array:
    """The error of b for one of b², with the slope 1 / (2 b): where that is 0, b is itself a rounding error."""
    return backend.xp.where(slope > 0, error * slope, b + 0 * error)


def rounding_of_squared(backend: Backend, a: Array, b: Array, rtol: float | None) -> Array:
    """How much rounding of A and B may change b², to first order."""
    return _rounding(backend, a, b, _solve_gradients(backend, a, b, rtol=rtol).value)


def rounding_of_root(backend: Backend, a: Array, b: Array, rtol: float | None) -> Array:
    """How much rounding of A and B may change f, to first order."""
    g, h = _solve_gradients(backend, a, b, rtol=rtol).value
    return _rounding(backend, a, b, (eye(backend, g) - g, eye(backend, h) - h)) / 2


def _rounding(backend: Backend, a: Array, b: Array, slopes: Arrays) -> Array:
    a, b, e = scale_to_unit(backend, a, b)
    sizes = (backend.norm(g) * backend.norm(x) for g, x in zip(slopes, (a, b), strict=True))
    return backend.ldexp(backend.eps(a) * sum(sizes), e)
