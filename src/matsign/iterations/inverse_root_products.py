"""G A^{-s/r} of Hermitian positive definite matrices by products alone, with the schedules of `root_schedules`.

G ← G q(P)^s and P ← P q(P)^r from P = A/c, c a bound on the largest eigenvalue. All factors are polynomials in A: they commute.
The steps are designed for a guess of the smallest eigenvalue. Whether it was right, and whether rounding errors have remained
small, is measured on a few vectors v: the norm of (I - A/c ∏ q(P)^r)ᵏ v shows how far the eigenvalues of that product are from 1.
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import accuracy
from matsign.iterations.minimax import headroom
from matsign.iterations.root_schedules import RootSchedule, root_schedule
from matsign.linalg.conditioning import largest_eigenvalue_bound
from matsign.linalg.stacks import broadcast_scalar, hermitian, random_probe, safe_divisor

# Vectors, and applications of the difference to them, in the test of convergence.
_VECTORS, _APPLICATIONS = 1, 2
# Units of rounding that the result may be off by.
_ROUNDING = 128


def inverse_root_product(
    backend: Backend, g: Array | None, a: Array, order: int, times: int, tol: float | None, levels: tuple[float, ...]
) -> tuple[Array, Array, Array]:
    """(g a^{-times/order}, number of steps, whether it is right to about tol) for a with entries near 1; g = None stands for I.

    `levels` are guesses of the smallest eigenvalue relative to c, tried in turn.
    """
    square = backend.hermitian_product(a, a)
    bound = backend.xp.sqrt(largest_eigenvalue_bound(backend, square))
    bound = safe_divisor(backend, bound * (1 + headroom(backend.eps(a), a.shape[-1])))
    p, square = a / broadcast_scalar(bound), square / broadcast_scalar(bound * bound)
    given = () if g is None else (g * broadcast_scalar(bound ** (-times / order)),)
    goal = accuracy(backend, a, tol) / 2
    room = headroom(backend.eps(a), a.shape[-1]) / order
    limit = order * max(4 * goal, _ROUNDING * backend.eps(a))

    def attempt(k: int, p: Array, square: Array, bound: Array, *given: Array) -> tuple[Array, Array, Array]:
        schedule = root_schedule(order, levels[k] ** (1 / order), goal, room)
        out, steps, gap = _run(backend, schedule, order, times, p, square, *given)
        out = out if given else out * broadcast_scalar(bound ** (-times / order))
        right = gap < limit
        if k + 1 == len(levels):
            return out, steps, right
        return backend.masked_cond(
            right,
            lambda out, steps, right, *rest: (out, steps, right),
            lambda out, steps, right, *rest: attempt(k + 1, *rest),
            *(out, steps, right, p, square, bound, *given),
        )

    return attempt(0, p, square, bound, *given)


def _run(
    backend: Backend, schedule: RootSchedule, order: int, times: int, p: Array, square: Array, *given: Array
) -> tuple[Array, Array, Array]:
    start, out = p, given[0] if given else None
    factors: list[Array] = []
    for k, q in enumerate(schedule.steps):
        if k:
            p = hermitian(backend.hermitian_product(_power(backend, factors[-1], order), p))
            square = backend.hermitian_product(p, p)
        factors.append(_polynomial(backend, q, p, square))
        right = _power(backend, factors[-1], times)
        out = right if out is None else (out @ right if given else backend.hermitian_product(out, right))
    return out, len(factors) * backend.ones(p), _distance_to_one(backend, start, factors, order)


def _distance_to_one(backend: Backend, p: Array, factors: list[Array], order: int) -> Array:
    """About the largest |1 - λ| of the eigenvalues of the product of p and the powers of the factors, which is not computed."""
    v = random_probe(backend, p.shape[-1], _VECTORS, p) + 0 * p[..., :, :1]
    for _ in range(_APPLICATIONS):
        v = v / broadcast_scalar(safe_divisor(backend, backend.norm(v)))
        w = p @ v
        for factor in factors:
            for _ in range(order):
                w = factor @ w
        v = v - w
    return backend.norm(v)


def _polynomial(backend: Backend, q: tuple[float, ...], p: Array, square: Array) -> Array:
    """q(p) of degree 2 or 4, from p and p²."""
    alpha = q[0] * backend.ones(p)
    if len(q) == 3:
        return backend.add_diagonal(q[1] * p + q[2] * square, alpha)
    inner = backend.add_diagonal(q[3] * p + q[4] * square, q[2] * backend.ones(p))
    return backend.add_diagonal(q[1] * p + backend.hermitian_product(square, inner), alpha)


def _power(backend: Backend, x: Array, k: int) -> Array:
    result = x
    for digit in f"{k:b}"[1:]:
        result = backend.hermitian_product(result, result)
        result = backend.hermitian_product(result, x) if digit == "1" else result
    return result
