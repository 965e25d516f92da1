"""The derivatives of leading singular values and vectors, M V = U S, Mᴴ U = V S.

With A = Uᴴ dM V, Eᵢⱼ = 1/(sⱼ² - sᵢ²) for i ≠ j and 0 on the diagonal, and the rest G = M - U S Vᴴ of M,

    dS = Re diag A,    dU = U (E ∘ (A S + S Aᴴ) + D) + X,    dV = V (E ∘ (Aᴴ S + S A)) + Y,    D = i Im diag A / S,
    Y S² - GᴴG Y = H S + Gᴴ F,    X = (F + G Y) S⁻¹,    F = (I - UUᴴ) dM V,    H = (I - VVᴴ) dMᴴ U.

Vectors of equal singular values have no derivative: their E is 0, which is right for functions that do not depend on the choice
of these vectors. D is for complex vectors, where V turns by no phase: it follows the state.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.iterations.differentiable_solves import sylvester_positive
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor, scale_to_unit


def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, k: int, **_: Any) -> Arrays:
    u, values, vh, state = value
    m, dm = arrays[0], tangents[0]
    if m.shape[-2] < m.shape[-1]:
        dv, ds, du = _tall_tangent(backend, adjoint(vh), values, u, adjoint(m), adjoint(dm))
    else:
        du, ds, dv = _tall_tangent(backend, u, values, adjoint(vh), m, dm)
    return du, ds, adjoint(dv), backend.xp.zeros_like(state)


def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, k: int, **_: Any) -> Arrays:
    (u, values, vh, _), m = value, arrays[0]
    bar_u, bar_s, bar_vh, _ = cotangents
    if m.shape[-2] < m.shape[-1]:
        bar = adjoint(_tall_cotangent(backend, adjoint(vh), values, u, adjoint(m), adjoint(bar_vh), bar_s, bar_u))
    else:
        bar = _tall_cotangent(backend, u, values, adjoint(vh), m, bar_u, bar_s, adjoint(bar_vh))
    return bar, None if arrays[1] is None else backend.xp.zeros_like(arrays[1])


class _Factors(NamedTuple):
    """U, S, V and G with M in units near its size, 2^e; E, and 1/S as rows."""

    u: Array
    s: Array
    v: Array
    g: Array
    e: Array
    inverse_gaps: Array
    inverse: Array

    @classmethod
    def of(cls, backend: Backend, u: Array, values: Array, v: Array, m: Array) -> _Factors:
        m, e = scale_to_unit(backend, m)
        s = backend.ldexp(values, -e[..., None])
        gaps = s[..., None, :] ** 2 - s[..., :, None] ** 2
        equal = gaps == 0
        inverse_gaps = backend.xp.where(equal, 0 * gaps, 1 / backend.xp.where(equal, backend.xp.ones_like(gaps), gaps))
        g = m - (u * s[..., None, :]) @ adjoint(v)
        return cls(u, s[..., None, :], v, g, e, inverse_gaps, 1 / safe_divisor(backend, s)[..., None, :])

    def outside_u(self, x: Array) -> Array:
        return x - self.u @ (adjoint(self.u) @ x)

    def outside_v(self, x: Array) -> Array:
        return x - self.v @ (adjoint(self.v) @ x)


def _follow_rest(backend: Backend, x: _Factors, right: Array) -> Array:
    """Y with Y S² - GᴴG Y = right; a number between the two spectra makes both sides positive."""
    c, least = adjoint(x.g) @ x.g, backend.stop_gradient(x.s)[..., 0, -1]
    largest = backend.svd(backend.stop_gradient(x.g))[1][..., 0]
    between = broadcast_scalar((largest**2 + least**2) / 2)
    one = backend.eye(x.s.shape[-1], c)
    return sylvester_positive(backend, between * eye(backend, c) - c, (x.s**2 - between) * one, right)


def _turn(backend: Backend, a: Array, x: _Factors) -> Array:
    """D."""
    turn = backend.xp.linalg.diagonal(a).imag[..., None, :] * x.inverse if backend.is_complex(a) else 0 * x.s
    return (1j if backend.is_complex(a) else 1) * turn * backend.eye(a.shape[-1], a)


def _tall_tangent(backend: Backend, u: Array, values: Array, v: Array, m: Array, dm: Array) -> Arrays:
    """dU, dS and dV of a matrix with at least as many rows as columns."""
    x = _Factors.of(backend, u, values, v, m)
    a, s = adjoint(u) @ dm @ v, x.s
    ah, turn = adjoint(a), _turn(backend, a, x)
    f, h = x.outside_u(dm @ v), x.outside_v(adjoint(dm) @ u)
    dy = _follow_rest(backend, x, h * s + adjoint(x.g) @ f)
    dx = (f + x.g @ dy) * x.inverse
    du = u @ (x.inverse_gaps * (a * s + s.mT * ah) + turn) + dx
    dv = v @ (x.inverse_gaps * (ah * s + s.mT * a)) + dy
    unit = broadcast_scalar(-x.e)
    return backend.ldexp(du, unit), backend.xp.linalg.diagonal(a).real, backend.ldexp(dv, unit)


def _tall_cotangent(
    backend: Backend, u: Array, values: Array, v: Array, m: Array, bar_u: Array, bar_s: Array, bar_v: Array
) -> Array:
    """The cotangent of M, from the adjoint of each line of `_tall_tangent`."""
    x = _Factors.of(backend, u, values, v, m)
    unit = broadcast_scalar(-x.e)
    bar_u, bar_v, s = backend.ldexp(bar_u, unit), backend.ldexp(bar_v, unit), x.s
    p, q = adjoint(u) @ bar_u, adjoint(v) @ bar_v
    ep, eq = x.inverse_gaps * p, x.inverse_gaps * q
    bar_a = ep * s + adjoint(ep) * s + s.mT * eq + s.mT * adjoint(eq)
    bar_a = bar_a + _turn(backend, p, x) + bar_s[..., None, :] * backend.eye(s.shape[-1], p)
    bar_f = x.outside_u(bar_u) * x.inverse
    bar_h = _follow_rest(backend, x, x.outside_v(bar_v) + adjoint(x.g) @ bar_f)
    bar_f = x.outside_u(bar_f + x.g @ bar_h)
    return u @ (bar_a @ adjoint(v) + adjoint(x.outside_v(bar_h * s))) + bar_f @ adjoint(v)
