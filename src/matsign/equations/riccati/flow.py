"""The exact flow of the differential Riccati equation, by doubling of the time.

On an interval of length t the optimal states z and costates λ of

    ż = a z - g λ,    -λ̇ = q z + aᴴ λ

are determined by the state z₀ at its beginning and the costate λ₁ at its end:

    λ₀ = h z₀ + fᴴ λ₁,    z₁ = f z₀ - g(t) λ₁.

With λ = x z this is x(0) = h + fᴴ x₁ (I + g(t) x₁)⁻¹ f. The three matrices are bounded where the exponential of the Hamiltonian
matrix overflows, and those of 2t are products of them (Anderson 1978). The first ones come from the exponential for a short time.

    V = [[h, fᴴ], [f, -g(t)]] is the Hessian matrix of the least cost in z₀ and λ₁. Hence

    dV = ∫ nᴴ [[dq, daᴴ], [da, -dg]] n dt,    n maps (z₀, λ₁) to (z, λ) at the time t,

    and for the double time  dV ← lᴴ dV l + rᴴ dV r  with the maps l and r from its (z₀, λ₁) to those of its two halves. The
    adjoint is p ← l p lᴴ + r p rᴴ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, assemble, broadcast_scalar, eye, hermitian, plus_identity

# Terms of the exponential and of the integral: for matrices of norm 1/2, the next terms are below eps/8 in double precision.
_TERMS, _INTEGRAL_TERMS = 14, 17

# The longest horizon is 2^(this) times half of 1/‖[[a, -g], [-q, -aᴴ]]‖.
MAX_DOUBLINGS = 64

Inverse = Callable[[Array], Array]


class Flow(NamedTuple):
    """The three matrices above, for some time."""

    f: Array
    g: Array
    h: Array


def exponential(backend: Backend, m: Array) -> Array:
    """exp(m) for ‖m‖ ≤ 1/2."""
    one = eye(backend, m) + 0 * m

    def step(result: Array, k: Any) -> tuple[Array, None]:
        return one + (m @ result) / k, None

    return backend.scan(step, one, range(1, _TERMS + 1), reverse=True)[0]


def integral(backend: Backend, m: Array, k: Array) -> Array:
    """∫ exp(mᴴ s) k exp(m s) ds over 0 ≤ s ≤ 1, for ‖m‖ ≤ 1/2 and a Hermitian k."""

    def step(state: tuple[Array, Array], j: Any) -> tuple[tuple[Array, Array], None]:
        term, result = state
        half = term @ m
        term = (half + adjoint(half)) / (j + 1)
        return (term, result + term), None

    return backend.scan(step, (k, k), range(1, _INTEGRAL_TERMS + 1))[0][1]


def short_flow(backend: Backend, m: Array, inverse: Inverse) -> Flow:
    """The flow for m = t [[a, -g], [-q, -aᴴ]] with ‖m‖ ≤ 1/2."""
    n = m.shape[-1] // 2
    e = exponential(backend, -m)
    f = inverse(e[..., :n, :n])
    return Flow(f, hermitian(f @ e[..., :n, n:]), hermitian(e[..., n:, :n] @ f))


def double(backend: Backend, flow: Flow, inverse: Inverse) -> Flow:
    """The flow for the double time."""
    f, g, h = flow
    w = inverse(plus_identity(backend, 1.0, g @ h))
    fw = f @ w
    return Flow(fw @ f, hermitian(g + fw @ g @ adjoint(f)), hermitian(h + adjoint(f) @ (h @ (w @ f))))


def halves(backend: Backend, flow: Flow, inverse: Inverse) -> tuple[Array, Array]:
    """The maps l and r."""
    f, g, h = flow
    w = inverse(plus_identity(backend, 1.0, g @ h))
    one, fh = eye(backend, f) + 0 * f, adjoint(f)
    state, back = w @ f, -(w @ g @ fh)  # z at the middle from z₀ and from λ₁
    left = assemble(backend, one, 0 * f, h @ state, fh + h @ back)
    return left, assemble(backend, state, back, 0 * f, one)


def interior(backend: Backend, flow: Flow) -> Array:
    """(z₀, λ₀) from (z₀, λ₁)."""
    f, _, h = flow
    return assemble(backend, eye(backend, f) + 0 * f, 0 * f, h, adjoint(f))


def transition(backend: Backend, flow: Flow, x: Array, inverse: Inverse) -> Array:
    """z₁ from z₀ where λ₁ = x z₁."""
    return inverse(plus_identity(backend, 1.0, flow.g @ x)) @ flow.f


def select(mask: Array, backend: Backend, yes: Flow, no: Flow) -> Flow:
    """The flow `yes` for the members in the mask."""
    mask = broadcast_scalar(mask)
    return Flow(*(backend.xp.where(mask, x, y) for x, y in zip(yes, no, strict=True)))


class Level(NamedTuple):
    """The flow before a doubling, and its members that are doubled."""

    flow: Flow
    mask: Array


def levels(backend: Backend, flow: Flow, counts: Array, inverse: Inverse, most: int) -> tuple[Flow, Level]:
    """The flow after `counts` doublings, at most `most`, and all levels before it, stacked along a leading axis."""

    def step(flow: Flow, index: Any) -> tuple[Flow, Level]:
        mask = index < counts
        return select(mask, backend, double(backend, flow, inverse), flow), Level(flow, mask)

    result: tuple[Flow, Level] = backend.scan(step, flow, range(most))
    return result


def lift(backend: Backend, at: Level, dv: Array, inverse: Inverse) -> Array:
    """dV at the end of all levels, from that of the first flow."""

    def step(dv: Array, level: Level) -> tuple[Array, None]:
        left, right = halves(backend, level.flow, inverse)
        new = adjoint(left) @ dv @ left + adjoint(right) @ dv @ right
        return backend.xp.where(broadcast_scalar(level.mask), new, dv), None

    result: Array = backend.scan(step, dv, at)[0]
    return result


def lower(backend: Backend, at: Level, p: Array, inverse: Inverse) -> Array:
    """The adjoint of `lift`."""

    def step(p: Array, level: Level) -> tuple[Array, None]:
        left, right = halves(backend, level.flow, inverse)
        new = left @ p @ adjoint(left) + right @ p @ adjoint(right)
        return backend.xp.where(broadcast_scalar(level.mask), new, p), None

    result: Array = backend.scan(step, p, at, reverse=True)[0]
    return result
