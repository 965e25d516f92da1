"""Derivatives of solutions of algebraic Riccati equations, of gains and of closed loops with respect to the plant.

With the gain k and f = a - b k, terms with dk vanish from the differential of the equation, because the cost is stationary
at k:

    continuous   fᴴ dx e + eᴴ dx f = -w,    k = r⁻¹(bᴴ x e + sᴴ)
    discrete     fᴴ dx f - eᴴ dx e = -w,    k = (r + bᴴ x b)⁻¹(bᴴ x a + sᴴ)

    w = dq + kᴴ dr k + h + hᴴ,    h = eᴴ x (da - db k) + deᴴ x f - ds k     continuous
                                  h = fᴴ x (da - db k) - eᴴ x de - ds k     discrete

For g in place of b and r, b = r = g: w has -eᴴ x dg x e or -fᴴ x dg x f, and

    dk = dx e + x de    continuous,        (I + x g) dk = dx f + x (da - dg k)    discrete.

Multiplied by e⁻ᴴ and e⁻¹, this is a Lyapunov or Stein equation with a stable matrix. Only the Hermitian parts of q and r
enter.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.equations.riccati.gain import gain_at
from matsign.equations.riccati.newton_kleinman import Equation
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.iterations.differentiable_solves import inverse, solve_stable_lyapunov, solve_stable_stein
from matsign.linalg.stacks import adjoint, eye, hermitian


class Loop(NamedTuple):
    """A plant with the solution x of its Riccati equation; f = a - b gain, and weight = r or r + bᴴ x b (g: None or I + x g)."""

    plant: RiccatiProblem
    x: Array
    weight_inverse: Array | None
    gain: Array
    f: Array
    e_inverse: Array | None
    discrete: bool
    stabilising: bool

    def matrix(self) -> Array:
        """e⁻¹ f."""
        return self.f if self.e_inverse is None else self.e_inverse @ self.f


def close(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array) -> Loop:
    """The `Loop` of a plant with the solution x."""
    return _loop(backend, equation, p, x, *apply(backend, _GAIN, *p, x, equation=equation))


def _loop(backend: Backend, equation: Equation, p: RiccatiProblem, x: Array, gain: Array, f: Array) -> Loop:
    weight = p.hermitian_parts().weight(backend, x, discrete=equation.discrete)
    return Loop(
        p,
        x,
        None if weight is None else inverse(backend, weight),
        gain,
        f,
        None if p.e is None else inverse(backend, p.e),
        equation.discrete,
        equation.stabilising is None,
    )


def solution_jvp(backend: Backend, at: Loop, d: RiccatiProblem) -> Array:
    """dx for a change d of the plant."""
    k, x, f, e = at.gain, at.x, at.f, at.plant.e
    half = x @ (d.a - d.b @ k)
    if at.discrete:
        half = adjoint(f) @ half
    elif e is not None:
        half = adjoint(e) @ half
    if e is not None:
        half = half - adjoint(e) @ x @ d.e if at.discrete else half + adjoint(d.e) @ x @ f
    if d.s is not None:
        half = half - d.s @ k
    w = hermitian(d.q + 2 * half + adjoint(k) @ hermitian(d.b if d.r is None else d.r) @ k)
    return _solve_loop(backend, at, w)


def solution_vjp(backend: Backend, at: Loop, bar: Array) -> RiccatiProblem:
    """The adjoint of `solution_jvp`: y of the dual equation, f y eᴴ + e y fᴴ = -x̄ or f y fᴴ - e y eᴴ = -x̄, is q̄."""
    y = hermitian(_solve_dual_loop(backend, at, hermitian(bar)))
    yk = y @ adjoint(at.gain)
    ey = y if at.plant.e is None else at.plant.e @ y
    loop, unit = 2 * (at.x @ at.f @ y), 2 * (at.x @ ey)
    a, e = (loop, -unit) if at.discrete else (unit, loop)
    b, r = -(a @ adjoint(at.gain)), at.gain @ yk
    return RiccatiProblem(
        a,
        hermitian(b) + r if at.plant.r is None else b,
        y,
        None if at.plant.r is None else r,
        None if at.plant.e is None else e,
        None if at.plant.s is None else -2 * yk,
    )


def _solve_loop(backend: Backend, at: Loop, w: Array) -> Array:
    """dx with fᴴ dx e + eᴴ dx f = -w or fᴴ dx f - eᴴ dx e = -w."""
    f, e_inverse, w = _stable_loop(backend, at, w)
    if e_inverse is not None:
        f, w = f @ e_inverse, adjoint(e_inverse) @ w @ e_inverse
    return (solve_stable_stein if at.discrete else solve_stable_lyapunov)(backend, adjoint(f), w)


def _solve_dual_loop(backend: Backend, at: Loop, bar: Array) -> Array:
    """y with f y eᴴ + e y fᴴ = -x̄ or f y fᴴ - e y eᴴ = -x̄."""
    f, e_inverse, bar = _stable_loop(backend, at, bar)
    if e_inverse is not None:
        f, bar = e_inverse @ f, e_inverse @ bar @ adjoint(e_inverse)
    return (solve_stable_stein if at.discrete else solve_stable_lyapunov)(backend, f, bar)


def _stable_loop(backend: Backend, at: Loop, right: Array) -> tuple[Array, Array | None, Array]:
    """(f, e⁻¹, right side) of the equations above, with a stable (f, e) for an anti-stabilising solution, too."""
    if at.stabilising:
        return at.f, at.e_inverse, right
    if not at.discrete:
        return -at.f, at.e_inverse, -right
    e = eye(backend, at.f) + 0 * at.f if at.plant.e is None else at.plant.e
    return e, inverse(backend, at.f), -right


def gain_jvp(at: Loop, d: RiccatiProblem, dx: Array) -> Array:
    """dk for changes d of the plant and dx."""
    p, x, k = at.plant, at.x, at.gain
    if p.r is None:
        return _gain_of_g_jvp(at, d, dx)
    right_factor, bh = at.f if at.discrete else p.e, adjoint(p.b)
    change = adjoint(d.b) @ x + bh @ dx
    change = change if right_factor is None else change @ right_factor
    if at.discrete:
        change = change + bh @ x @ (d.a - d.b @ k)
    elif d.e is not None:
        change = change + bh @ x @ d.e
    if d.s is not None:
        change = change + adjoint(d.s)
    assert at.weight_inverse is not None
    return at.weight_inverse @ (change - hermitian(d.r) @ k)


def _gain_of_g_jvp(at: Loop, d: RiccatiProblem, dx: Array) -> Array:
    if at.weight_inverse is not None:
        return at.weight_inverse @ (dx @ at.f + at.x @ (d.a - d.b @ at.gain))
    return dx if at.plant.e is None else dx @ at.plant.e + at.x @ d.e


def gain_vjp(at: Loop, bar: Array) -> tuple[RiccatiProblem, Array]:
    """The adjoint of `gain_jvp`: the cotangents of the plant and of x."""
    p, x, k = at.plant, at.x, at.gain
    if p.r is None:
        return _gain_of_g_vjp(at, bar)
    assert at.weight_inverse is not None
    u = adjoint(at.weight_inverse) @ bar
    right_factor, uh, bu = at.f if at.discrete else p.e, adjoint(u), p.b @ u
    xbu = x @ bu
    a = xbu if at.discrete else 0 * p.a
    b = (x @ uh if right_factor is None else x @ right_factor @ uh) - (a @ adjoint(k))
    e = None if p.e is None else 0 * p.e if at.discrete else xbu
    cotangents = RiccatiProblem(a, b, 0 * p.q, -hermitian(u @ adjoint(k)), e, None if p.s is None else uh)
    return cotangents, bu if right_factor is None else bu @ adjoint(right_factor)


def _gain_of_g_vjp(at: Loop, bar: Array) -> tuple[RiccatiProblem, Array]:
    p = at.plant
    if at.weight_inverse is not None:
        u = adjoint(at.weight_inverse) @ bar
        a = at.x @ u
        e = None if p.e is None else 0 * p.e
        return RiccatiProblem(a, -(a @ adjoint(at.gain)), 0 * p.q, None, e, None), u @ adjoint(at.f)
    e = None if p.e is None else at.x @ bar
    cotangents = RiccatiProblem(0 * p.a, 0 * p.b, 0 * p.q, None, e, None)
    return cotangents, bar if p.e is None else bar @ adjoint(p.e)


def matrix_jvp(at: Loop, d: RiccatiProblem, dk: Array) -> Array:
    """The differential of e⁻¹(a - b k)."""
    change = d.a - d.b @ at.gain - at.plant.b @ dk
    return change if at.e_inverse is None else at.e_inverse @ (change - d.e @ at.matrix())


def matrix_vjp(at: Loop, bar: Array) -> tuple[RiccatiProblem, Array]:
    """The adjoint of `matrix_jvp`: the cotangents of the plant and of k."""
    p = at.plant
    g = bar if at.e_inverse is None else adjoint(at.e_inverse) @ bar
    e = None if p.e is None else -(g @ adjoint(at.matrix()))
    r, s = (None if m is None else 0 * m for m in (p.r, p.s))
    return RiccatiProblem(g, -(g @ adjoint(at.gain)), 0 * p.q, r, e, s), -(adjoint(p.b) @ g)


def add_present(*plants: RiccatiProblem) -> RiccatiProblem:
    """The sum of the plants by coefficients; absent coefficients are None in all of them."""
    return RiccatiProblem(
        *(None if parts[0] is None else sum(parts[1:], parts[0]) for parts in zip(*plants, strict=True))
    )


def _gain_solve(backend: Backend, *arrays: Array, equation: Equation) -> Solution:
    p = RiccatiProblem(*arrays[:-1])
    return solution(backend, gain_at(backend, equation, arrays[-1], p.hermitian_parts()))


def _gain_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, equation: Equation) -> Arrays:
    at, d = _loop(backend, equation, RiccatiProblem(*arrays[:-1]), arrays[-1], *value), RiccatiProblem(*tangents[:-1])
    dk = gain_jvp(at, d, tangents[-1])
    return dk, d.a - d.b @ at.gain - at.plant.b @ dk


def _gain_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, equation: Equation
) -> Arrays:
    at, (bar_gain, bar_f) = _loop(backend, equation, RiccatiProblem(*arrays[:-1]), arrays[-1], *value), cotangents
    by_gain, bar_x = gain_vjp(at, bar_gain - adjoint(at.plant.b) @ bar_f)
    return *by_gain._replace(a=by_gain.a + bar_f, b=by_gain.b - bar_f @ adjoint(at.gain)), bar_x


# An operation with its own derivatives, because `gain_at` may compute the gain in decimal arithmetic.
_GAIN = Operation(
    "gain",
    shapes_of("(n,n),(n,m),(n,n),(m,m),(n,n),(n,m),(n,n)"),
    shapes_of("(m,n),(n,n)"),
    solve=_gain_solve,
    tangent=_gain_tangent,
    cotangent=_gain_cotangent,
)
