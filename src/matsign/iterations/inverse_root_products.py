"""G A^{-s/r} of Hermitian positive definite matrices by products alone, with the schedules of `root_schedules`.

G ← G q(P)^s and P ← P q(P)^r from P = A/c, c an estimate of the largest eigenvalue. All factors are polynomials in A: they
commute. The steps are designed for guesses of the smallest eigenvalue; Lanczos' method tells which one fits. Whether it was
right, and whether rounding errors have remained small, is measured on a few vectors v: the norm of (I - A/c ∏ q(P)^r)ᵏ v shows
how far the eigenvalues of that product are from 1.
"""

from __future__ import annotations

import itertools

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import accuracy
from matsign.iterations.minimax import headroom
from matsign.iterations.root_schedules import RootSchedule, powers_of, root_schedule
from matsign.linalg.conditioning import largest_eigenvalue_bound
from matsign.linalg.ritz_values import spectrum_ends
from matsign.linalg.stacks import adjoint, all_false, broadcast_scalar, eye, hermitian, random_probe, safe_divisor

# Vectors, and applications of the difference to them, in the test of convergence.
_VECTORS, _APPLICATIONS = 4, 3
# Units of rounding that the result may be off by.
ROUNDING = 128
# The share of the tolerance for the design.
_DESIGN = 0.7
# Steps of Lanczos' method, and how far beyond its estimates eigenvalues may lie.
LANCZOS_STEPS = 12
BEYOND = 0.02


def inverse_root_product(
    backend: Backend,
    g: Array | None,
    a: Array,
    order: int,
    times: int,
    tol: float | None,
    levels: tuple[float, ...],
    estimate: bool,
) -> tuple[Array, Array, Array]:
    """(g a^{-times/order}, number of steps, whether it is right to about tol) for a with entries near 1; g = None stands for I.

    `levels` are guesses of the smallest eigenvalue relative to the largest. With `estimate` Lanczos' method chooses one for each
    member; those that are below all levels are not right. Without, the levels are tried in turn.
    """
    goal = accuracy(backend, a, tol) * _DESIGN / times  # the error of a factor counts `times` times
    room = headroom(backend.eps(a), a.shape[-1]) / order
    limit = order * max(goal / _DESIGN, ROUNDING * backend.eps(a))

    def run(k: int, a: Array, bound: Array, lower: Array, *given: Array) -> tuple[Array, Array, Array]:
        schedule = root_schedule(order, levels[k] ** (1 / order), goal, room)
        out, right = _run(backend, schedule, order, times, limit, a, bound, *given)
        out = out * broadcast_scalar(bound ** (-times / order))
        return out, (len(schedule.steps) + 1) * backend.ones(a), right

    def chosen(k: int, *arrays: Array) -> tuple[Array, Array, Array]:
        a, _, lower, *given = arrays
        if k == len(levels):
            return given[0] if given else a, 0 * backend.ones(a), all_false(backend, a)
        return backend.masked_cond(lower >= levels[k], lambda *xs: run(k, *xs), lambda *xs: chosen(k + 1, *xs), *arrays)

    def in_turn(k: int, *arrays: Array) -> tuple[Array, Array, Array]:
        result = run(k, *arrays)
        if k + 1 == len(levels):
            return result
        return backend.masked_cond(
            result[2], lambda result, *_: result, lambda _, *arrays: in_turn(k + 1, *arrays), result, *arrays
        )

    low, high = spectrum_ends(backend, a, LANCZOS_STEPS) if estimate else _bounds(backend, a)
    bound = safe_divisor(backend, high * (1 + BEYOND))
    given = () if g is None else (g,)
    return (chosen if estimate else in_turn)(0, a, bound, low * (1 - BEYOND) / bound, *given)


def _bounds(backend: Backend, a: Array) -> tuple[Array, Array]:
    """Bounds on the eigenvalues of positive definite matrices, by one product."""
    high = backend.xp.sqrt(largest_eigenvalue_bound(backend, backend.hermitian_product(a, a)))
    return 0 * high, high


def _run(
    backend: Backend,
    schedule: RootSchedule,
    order: int,
    times: int,
    limit: float,
    a: Array,
    bound: Array,
    *given: Array,
) -> tuple[Array, Array]:
    """(G (a/bound)^{-times/order}, whether it is right)."""
    p, scale, one = a, 1 / bound, eye(backend, a)
    factors: list[Array] = []
    for q in schedule.steps:
        p = p * broadcast_scalar(scale)
        factors.append(_polynomial(backend, q, p, one))
        p, scale = (
            hermitian(backend.hermitian_product(power_by_products(backend, factors[-1], order), p)),
            backend.ones(a),
        )
    width, middle = schedule.high - schedule.low, schedule.high + schedule.low
    z = p * broadcast_scalar(2 / width * scale) - middle / width * one
    factors.append(_polynomial(backend, schedule.last, z, one))
    out = given[0] if given else None
    for factor in factors:
        right = power_by_products(backend, factor, times)
        if given:
            out = out @ right
        else:
            out = right if out is None else backend.hermitian_product(out, right)
    return out, is_near_one(backend, a, bound, factors, order, limit)


def is_near_one(backend: Backend, a: Array, bound: Array, factors: list[Array], order: int, limit: float) -> Array:
    """Whether the eigenvalues λ of the product of a/bound and powers of the factors, which is not computed, have |1 - λ| < limit.

    By a few vectors, which 1 - λ makes shorter; rows, since products with one column are slow in several libraries.
    """
    v = adjoint(random_probe(backend, a.shape[-1], _VECTORS, a)) + 0 * a[..., :1, :]
    squares = []
    for _ in range(_APPLICATIONS):
        w = (v @ a) / broadcast_scalar(bound)
        for factor in factors:
            for _ in range(order):
                w = w @ factor
        squares.append(backend.xp.sum(backend.xp.abs(v) ** 2, axis=-1))
        v = v - w
    squares.append(backend.xp.sum(backend.xp.abs(v) ** 2, axis=-1))
    # Each time: after an overflow the next comparison would hold.
    near = [after <= limit**2 * before for before, after in itertools.pairwise(squares)]
    return backend.xp.stack(near, axis=-1).all((-1, -2))


def _polynomial(backend: Backend, q: tuple[float, ...], p: Array, one: Array) -> Array:
    """q(p) from a few powers of p, in blocks by Horner's rule (Paterson & Stockmeyer 1973)."""
    size = powers_of(len(q) - 1)
    powers = [p]
    for _ in range(size - 1):
        powers.append(backend.hermitian_product(powers[-1], p))
    top, pieces = q[-1], [q[k : k + size] for k in range(0, len(q) - 1, size)]
    result = None
    for constant, *coefficients in reversed(pieces):
        block = top * powers[-1] if result is None else backend.hermitian_product(result, powers[-1])
        for c, power in zip(coefficients, powers, strict=False):
            block += c * power
        block += constant * one
        result = block
    return result


def power_by_products(backend: Backend, x: Array, k: int) -> Array:
    result = x
    for digit in f"{k:b}"[1:]:
        result = backend.hermitian_product(result, result)
        result = backend.hermitian_product(result, x) if digit == "1" else result
    return result
