"""The linear equations that derivatives end in, as operations: derivative rules call them, and they have derivatives.

x = a⁻¹
a x + x b = q           for a and b with their spectra in the right half plane
a x + x a = q           the same; a may have zero as a semisimple eigenvalue, if P q P = 0 for its projector P
a x + x aᴴ + q = 0      for a stable a, the closed loop of a regulator
a x aᴴ - x + q = 0      for an a inside the unit circle
"""

from __future__ import annotations

import math
from collections.abc import Callable

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.direct import schur_functions
from matsign.iterations.newton import separable_sylvester
from matsign.iterations.smith import SmithSum, two_sided_sylvester
from matsign.iterations.structured_doubling import ClosedLoopSolution, closed_loop_lyapunov, closed_loop_stein
from matsign.linalg import balancing
from matsign.linalg.conditioning import is_well_conditioned
from matsign.linalg.deflation import deflate
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, is_hermitian


def inverse(backend: Backend, a: Array) -> Array:
    """a⁻¹."""
    return apply(backend, _INVERSE, a)[0]


def sylvester_positive(backend: Backend, a: Array, b: Array, q: Array) -> Array:
    """x with a x + x b = q for a and b with their spectra in the right half plane."""
    return apply(backend, _POSITIVE, a, b, q)[0]


def sylvester_symmetric(backend: Backend, a: Array, q: Array) -> Array:
    """x with a x + x a = q for an a from `mcsgn`, `sqrtm` or `matrix_abs`: spectrum in the right half plane, or zero.

    Where a is singular, with the projector P on its null space, P q P is ignored and P x P = 0. In these functions a zero
    eigenvalue is zero up to n eps ‖a‖, and all others are above √(n eps) ‖a‖: `_zero_threshold` lies between.
    """
    return apply(backend, _SYMMETRIC, a, q)[0]


_INVERSE = Operation(
    "inverse",
    shapes_of("(n,n)"),
    shapes_of("(n,n)"),
    solve=lambda backend, a: solution(backend, (backend.inv(a),)),
    tangent=lambda backend, value, arrays, tangents: (-(value[0] @ tangents[0] @ value[0]),),
    cotangent=lambda backend, value, arrays, cotangents: (-(adjoint(value[0]) @ cotangents[0] @ adjoint(value[0])),),
    unrolled=True,
)


def _solve_positive(backend: Backend, a: Array, b: Array, q: Array) -> Solution:
    # The sum is fast if the spectrum is not too wide; for the other members Newton's method with scaling.
    smith_sum = two_sided_sylvester(backend, a, b, q[:, None], 20)
    if backend.unrolls_loops(q):
        return solution(backend, (_if_converged(backend, smith_sum),))
    x = backend.rare_cond(
        ~smith_sum.converged,
        lambda a, b, q, x: separable_sylvester(backend, a, b, q),
        lambda a, b, q, x: x,
        *(a, b, q, smith_sum.x[:, 0]),
    )
    return solution(backend, (x,))


def _if_converged(backend: Backend, smith_sum: SmithSum) -> Array:
    """The sum, or NaN where it has not converged: for unrolled loops, without a second method."""
    x = smith_sum.x[:, 0]
    return backend.xp.where(broadcast_scalar(smith_sum.converged), x, backend.xp.full_like(x, math.nan))


def _positive_jvp(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (x,), (a, b, _), (da, db, dq) = value, arrays, tangents
    return (sylvester_positive(backend, a, b, dq - da @ x - x @ db),)


def _positive_vjp(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (x,), (a, b, _) = value, arrays
    y = sylvester_positive(backend, adjoint(a), adjoint(b), cotangents[0])
    return -(y @ adjoint(x)), -(adjoint(x) @ y), y


_POSITIVE = Operation(
    "positive Sylvester equation",
    shapes_of("(n,n),(m,m),(n,m)"),
    shapes_of("(n,m)"),
    solve=_solve_positive,
    tangent=_positive_jvp,
    cotangent=_positive_vjp,
    linear=True,
    unrolled=True,
)


def _zero_threshold(backend: Backend, a: Array) -> float:
    """Eigenvalues of a below this times ‖a‖ count as zero."""
    return (a.shape[-1] * backend.eps(a)) ** 0.75


def _solve_symmetric(backend: Backend, a: Array, q: Array) -> Solution:
    def by_sum(a: Array, q: Array) -> Array:
        smith_sum = two_sided_sylvester(backend, a, a, q[:, None], 20)
        if backend.unrolls_loops(q):
            return _if_converged(backend, smith_sum)
        return backend.rare_cond(
            ~smith_sum.converged, lambda a, q, x: by_newton(a, q), lambda a, q, x: x, a, q, smith_sum.x[:, 0]
        )

    def by_newton(a: Array, q: Array) -> Array:
        inverse, zero = backend.inv(a), _zero_threshold(backend, a)
        condition = backend.norm(a) * backend.norm(inverse)
        singular = ~is_well_conditioned(backend, condition, zero, lambda *pair: pair, a, inverse)
        return backend.masked_cond(singular, by_deflation, regular, a, q)

    def regular(a: Array, q: Array) -> Array:
        x = separable_sylvester(backend, a, a, q)
        if not backend.is_complex(a):
            return x
        # The root of a complex matrix may have eigenvalues on the imaginary axis, where the iteration does not converge.
        gap = backend.norm(a @ x + x @ a - q)
        return backend.rare_cond(
            ~(gap < math.sqrt(backend.eps(a)) * backend.norm(a) * backend.norm(x)),
            lambda a, q, x: backend.host_callback(schur_functions.right_sides, q[:, None], a, a, q[:, None])[:, 0],
            lambda a, q, x: x,
            *(a, q, x),
        )

    def by_deflation(a: Array, q: Array) -> Array:
        zero = deflate(backend, a, _zero_threshold(backend, a))
        p, rest = zero.projector, eye(backend, a) - zero.projector
        across = backend.inv(zero.matrix) @ rest
        x = separable_sylvester(backend, zero.matrix, zero.matrix, rest @ q @ rest)
        x = rest @ x @ rest + across @ q @ p + p @ q @ across
        return backend.xp.where(broadcast_scalar(zero.sound), x, math.nan + 0 * x)

    def general(a: Array, q: Array) -> Array:
        if backend.unrolls_loops(q):
            return by_sum(a, q)  # balancing is LAPACK's, which such a program does not contain
        e, a, k = scaling.balance_together(backend, a)
        if e is None:
            return backend.ldexp(by_sum(a, q), -broadcast_scalar(k))
        shift = e[:, None, :] - e[:, :, None]
        return backend.ldexp(by_sum(a, backend.ldexp(q, shift)), -shift - broadcast_scalar(k))

    if backend.fast_eigh(q) and not backend.is_traced(q):
        x = backend.masked_cond(is_hermitian(a), lambda a, q: _by_eigenvectors(backend, a, q), general, a, q)
    else:
        x = general(a, q)
    return solution(backend, (x,))


def _by_eigenvectors(backend: Backend, a: Array, q: Array) -> Array:
    """For a Hermitian a, with P x P = 0 for the projector P on its null space."""
    values, v = backend.eigh(a)
    sums = values[:, :, None] + values[:, None, :]
    sums = backend.xp.where(sums > _zero_threshold(backend, a) * values[:, -1:, None], sums, math.inf)
    return v @ (adjoint(v) @ q @ v / sums) @ adjoint(v)


def _symmetric_jvp(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (x,), (a, _), (da, dq) = value, arrays, tangents
    return (sylvester_symmetric(backend, a, dq - da @ x - x @ da),)


def _symmetric_vjp(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (x,), (a, _) = value, arrays
    y = sylvester_symmetric(backend, adjoint(a), cotangents[0])
    return -(y @ adjoint(x)) - adjoint(x) @ y, y


_SYMMETRIC = Operation(
    "symmetric Sylvester equation",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n)"),
    solve=_solve_symmetric,
    tangent=_symmetric_jvp,
    cotangent=_symmetric_vjp,
    linear=True,
    unrolled=True,
)


def solve_stable_lyapunov(backend: Backend, a: Array, q: Array) -> Array:
    """x with a x + x aᴴ + q = 0 for a stable a; NaN if a is not stable."""
    return apply(backend, _LYAPUNOV, a, q)[0]


def solve_stable_stein(backend: Backend, a: Array, q: Array) -> Array:
    """x with a x aᴴ - x + q = 0 for an a with its spectrum inside the unit circle; NaN for any other a."""
    return apply(backend, _STEIN, a, q)[0]


def _in_balanced_units(
    solve: Callable[[Backend, Array, Array], ClosedLoopSolution], residual: Callable[..., Array]
) -> Callable[..., Solution]:
    """A solver in units of the states that balance a; `residual(a, x, q)` is that of the equation."""

    def solve_balanced(backend: Backend, a: Array, q: Array) -> Solution:
        e = balancing.balancing_exponents(backend, a)
        outer = e[:, :, None] + e[:, None, :]
        a, q = balancing.rescale(backend, a, e), backend.ldexp(q, -outer)
        result = solve(backend, a, q)
        x = _correct(backend, solve, residual, a, q, result.x)
        return solution(backend, (backend.ldexp(x, outer),), Failure.NOT_CONVERGED, ~result.stable, result.doublings)

    return solve_balanced


# x is corrected if its residual exceeds this times eps ‖q‖, and at most this often.
_LARGE_RESIDUAL, _CORRECTIONS = 1024, 4


def _correct(
    backend: Backend,
    solve: Callable[[Backend, Array, Array], ClosedLoopSolution],
    residual: Callable[..., Array],
    a: Array,
    q: Array,
    x: Array,
) -> Array:
    """x, corrected where its residual is large: a highly nonnormal a magnifies the rounding errors of a sum of powers."""
    for _ in range(0 if backend.is_traced(x) else _CORRECTIONS):
        gap = residual(a, x, q)
        x = backend.masked_cond(
            backend.norm(gap) > _LARGE_RESIDUAL * backend.eps(x) * backend.norm(q),
            lambda a, gap, x: x + solve(backend, a, gap).x,
            lambda a, gap, x: x,
            *(a, gap, x),
        )
    return x


def _lyapunov_residual(a: Array, x: Array, q: Array) -> Array:
    return a @ x + x @ adjoint(a) + q


def _stein_residual(a: Array, x: Array, q: Array) -> Array:
    return a @ x @ adjoint(a) - x + q


def _lyapunov_jvp(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (x,), (a, _), (da, dq) = value, arrays, tangents
    return (solve_stable_lyapunov(backend, a, dq + da @ x + x @ adjoint(da)),)


def _lyapunov_vjp(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (x,), (a, _) = value, arrays
    y = solve_stable_lyapunov(backend, adjoint(a), cotangents[0])
    return y @ adjoint(x) + adjoint(y) @ x, y


def _stein_jvp(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    (x,), (a, _), (da, dq) = value, arrays, tangents
    return (solve_stable_stein(backend, a, dq + da @ x @ adjoint(a) + a @ x @ adjoint(da)),)


def _stein_vjp(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (x,), (a, _) = value, arrays
    y = solve_stable_stein(backend, adjoint(a), cotangents[0])
    return y @ a @ adjoint(x) + adjoint(y) @ a @ x, y


_LYAPUNOV = Operation(
    "Lyapunov equation of a closed loop",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n)"),
    solve=_in_balanced_units(closed_loop_lyapunov, _lyapunov_residual),
    tangent=_lyapunov_jvp,
    cotangent=_lyapunov_vjp,
    linear=True,
)

_STEIN = Operation(
    "Stein equation of a closed loop",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n)"),
    solve=_in_balanced_units(closed_loop_stein, _stein_residual),
    tangent=_stein_jvp,
    cotangent=_stein_vjp,
    linear=True,
)
