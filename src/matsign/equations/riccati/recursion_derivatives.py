"""Derivatives of the backward Riccati recursion (`recursion`): one more recursion with the closed loops f = a - b k.

The cost is stationary in k. So with dc = da - db k

    dx = fᴴ dx⁺ f + dq + kᴴ dr k + h + hᴴ,    h = fᴴ x⁺ dc - ds k
    dk = (r + bᴴ x⁺ b)⁻¹ (bᴴ dx⁺ f + dbᴴ x⁺ f + bᴴ x⁺ dc + dsᴴ - dr k).

Where x⁺ is large and r small, nearly all of a - b k may cancel, and x⁺ f would lose its digits. Then f is found in double-word
arithmetic from k and its correction (r + bᴴ x⁺ b)⁻¹ (bᴴ x⁺ f + sᴴ - r k).

The adjoint runs forwards in time: y = f⁻ y⁻ f⁻ᴴ + … is the covariance of the states that start with that of bar x. Both have a
step for each step of the recursion, as loops that JAX does not unroll.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.equations.riccati.problem import RiccatiProblem
from matsign.equations.riccati.recursion import ByTime, all_steps, close, weight_of
from matsign.iterations.differentiable_solves import inverse
from matsign.linalg.double_word import collapse, dw_add, dw_neg, dw_product, from_double
from matsign.linalg.stacks import adjoint, hermitian

# A closed loop that is smaller than a by this has lost ten bits.
_CANCELLED = 2.0**-10


class Path(NamedTuple):
    """For each step the coefficients, x after it and the gain, stacks (k, B, ...)."""

    p: RiccatiProblem
    x: Array
    gain: Array


class _Bars(NamedTuple):
    """For each step the cotangents of the gain and of x after it."""

    gain: Array
    x: Array


def path_of(backend: Backend, p: RiccatiProblem, value: Arrays, by_time: ByTime) -> Path:
    """The `Path` of gains (B, k, m, n) and solutions (B, k + 1, n, n)."""
    gain, x = (backend.xp.moveaxis(y, -3, 0) for y in value)
    return Path(all_steps(p._replace(q=hermitian(p.q), r=hermitian(p.r)), by_time), x[1:], gain)


def _closed_loop(backend: Backend, at: Path) -> Array:
    """f of one step; the digits that a - b k loses are a constant for derivatives."""
    p, x, gain = at
    parts = (None if y is None else backend.stop_gradient(y) for y in (p.a, p.b, p.r, x, gain, p.s))
    return close(p, gain) + backend.stop_gradient(apply(backend, _LOST_DIGITS, *parts)[0])


def _solve_lost_digits(backend: Backend, *arrays: Array) -> Solution:
    """f in double-word arithmetic less f in working precision, where that has lost ten bits."""
    f = arrays[0] - arrays[1] @ arrays[4]
    lost = backend.rare_cond(
        backend.norm(f) < _CANCELLED * backend.norm(arrays[0]),
        lambda f, arrays: _accurate_loop(backend, *arrays) - f,
        lambda f, arrays: 0 * f,
        *(f, arrays),
    )
    return solution(backend, (lost,))


def _accurate_loop(backend: Backend, a: Array, b: Array, r: Array, x: Array, gain: Array, s: Array | None) -> Array:
    product = functools.partial(dw_product, backend)
    bh, k = from_double(adjoint(b)), from_double(gain)
    f = dw_add(from_double(a), dw_neg(product(from_double(b), k)))
    gap = dw_add(product(product(bh, from_double(x)), f), dw_neg(product(from_double(r), k)))
    if s is not None:
        gap = dw_add(gap, from_double(adjoint(s)))
    weight = hermitian(r + adjoint(b) @ x @ b)
    return collapse(dw_add(f, dw_neg(from_double(b @ backend.solve(weight, collapse(gap))))))


_LOST_DIGITS = Operation(
    "digits of a closed loop",
    shapes_of("(n,n),(n,m),(m,m),(n,n),(m,n),(n,m)"),
    shapes_of("(n,n)"),
    solve=_solve_lost_digits,
)


def recursion_jvp(backend: Backend, path: Path, d: RiccatiProblem, dxf: Array) -> Arrays:
    """(dk, dx) for a change d of the coefficients of all steps, and dxf."""

    def step(dx: Array, row: tuple[Path, RiccatiProblem]) -> tuple[Array, Arrays]:
        dx, dk = _step_jvp(backend, *row, dx)
        return dx, (dk, dx)

    dxf = hermitian(dxf)
    if not len(path.x):
        return backend.xp.moveaxis(0 * path.gain, 0, -3), dxf[..., None, :, :]
    dk, dx = backend.scan(step, dxf, (path, d), reverse=True)[1]
    dx = backend.xp.concat([dx, dxf[None]], axis=0)
    return tuple(backend.xp.moveaxis(y, 0, -3) for y in (dk, dx))


def _step_jvp(backend: Backend, at: Path, d: RiccatiProblem, dx: Array) -> Arrays:
    (p, x, gain), dr = at, hermitian(d.r)
    f, dc, bh = _closed_loop(backend, at), d.a - d.b @ gain, adjoint(p.b)
    half = adjoint(f) @ x @ dc
    right = bh @ dx @ f + adjoint(d.b) @ x @ f + bh @ x @ dc - dr @ gain
    if d.s is not None:
        half, right = half - d.s @ gain, right + adjoint(d.s)
    new = adjoint(f) @ dx @ f + d.q + adjoint(gain) @ dr @ gain + 2 * half
    return hermitian(new), inverse(backend, weight_of(p, x)) @ right


def recursion_vjp(backend: Backend, path: Path, cotangents: Arrays) -> tuple[RiccatiProblem, Array]:
    """The adjoint of `recursion_jvp`: the cotangents of the coefficients of each step, and of xf."""
    bar_gain, bar_x = (backend.xp.moveaxis(y, -3, 0) for y in cotangents)

    def step(y: Array, row: tuple[Path, _Bars]) -> tuple[Array, RiccatiProblem]:
        return _step_vjp(backend, *row, y)

    bar_x = hermitian(bar_x)
    if not len(path.x):
        return RiccatiProblem(*(None if y is None else 0 * y for y in path.p)), bar_x[0]
    y, bars = backend.scan(step, bar_x[0], (path, _Bars(bar_gain, bar_x[1:])))
    return bars, y


def _step_vjp(backend: Backend, at: Path, bars: _Bars, y: Array) -> tuple[Array, RiccatiProblem]:
    p, x, gain = at
    f, gain_h = _closed_loop(backend, at), adjoint(gain)
    bar_right = inverse(backend, weight_of(p, x)) @ bars.gain
    moved, by_input = x @ f, p.b @ bar_right
    bar_c = 2 * (moved @ y) + x @ by_input
    bar_p = RiccatiProblem(
        bar_c,
        moved @ adjoint(bar_right) - bar_c @ gain_h,
        y,
        gain @ y @ gain_h - hermitian(bar_right @ gain_h),
        None,
        None if p.s is None else adjoint(bar_right) - 2 * (y @ gain_h),
    )
    return f @ y @ adjoint(f) + hermitian(by_input @ adjoint(f)) + bars.x, bar_p
