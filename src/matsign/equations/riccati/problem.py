"""The data of a regulator problem, E x' = A x + B u at the cost xᴴQx + 2 Re xᴴSu + uᴴRu, and the units it is solved in.

An algebraic Riccati equation with a descriptor e and a cross term s has the stabilising solution of the one in

    a₁ - b r⁻¹ s₁ᴴ,    g = b r⁻¹ bᴴ,    q₁ - s₁ r⁻¹ s₁ᴴ,        a₁ = a e⁻¹, q₁ = e⁻ᴴ q e⁻¹, s₁ = e⁻ᴴ s.

Units decide what rounding does. Inputs, X and time get powers of two that bring the coefficients near 1; each state gets one
that balances its row against its column in the Hamiltonian matrix (Osborne 1960; Benner 2001), which is what makes a model in
volts and megapascals as good as one in sensible units.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.members import nothing_failed
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, far_exponent, hermitian, largest, safe_divisor

_SWEEPS = 24


class RiccatiProblem(NamedTuple):
    """Coefficients of a Riccati equation; e and s may be None."""

    a: Array
    b: Array
    q: Array
    r: Array
    e: Array | None
    s: Array | None


class StandardForm(NamedTuple):
    """The same equation with e = I and s = 0, and g = b r⁻¹ bᴴ; its solution falls short of the one asked for by a diagonal,
    None where that is known to be zero.
    """

    a: Array
    g: Array
    q: Array
    short: Array | None


class Units(NamedTuple):
    """Of the solution: x_ij = 2^(whole + states_i + states_j) times that of the scaled equation; and the exponent that was
    taken out of the linear operator. The states may be None for zeros.
    """

    whole: Array
    states: Array | None
    operator: Array

    def restore(self, backend: Backend, x: Array) -> Array:
        return backend.ldexp(x, self._exponents())

    def apply(self, backend: Backend, x: Array) -> Array:
        return backend.ldexp(x, -self._exponents())

    def _exponents(self) -> Array:
        whole = broadcast_scalar(self.whole)
        return whole if self.states is None else whole + self.states[..., :, None] + self.states[..., None, :]

    def finer(self, states: Array) -> Units:
        """With the states in these units besides."""
        return self._replace(states=states if self.states is None else self.states + states)


class _Exponents(NamedTuple):
    """What powers of two are taken out of a, b, e and the solution."""

    a: Array
    b: Array
    e: Array
    x: Array


def scale_problem(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> tuple[RiccatiProblem, Array, Array]:
    """The plant with b, r and, where the equation leaves it free, a and e near 1; and the exponents of its solution and of
    what acts on the solution.

    With a, e, b, x taken out by 2^α, 2^ε, 2^β, 2^k the equation wants q taken out by the exponent of its other terms, and s and
    r by what makes the gain r⁻¹(bᴴxe + sᴴ) a unit of inputs.
    """
    alpha, beta, epsilon, k = backend.shared_function(_exponents, backend, p, discrete=discrete)
    outer = 2 * alpha if discrete else alpha + epsilon
    inner = k + beta + (alpha if discrete else epsilon)
    rho = k + 2 * beta if discrete else k + 2 * beta + epsilon - alpha

    def out(x: Array | None, by: Array) -> Array | None:
        return None if x is None else backend.ldexp(x, broadcast_scalar(-by))

    scaled = RiccatiProblem(
        out(p.a, alpha), out(p.b, beta), out(p.q, outer + k), out(p.r, rho), out(p.e, epsilon), out(p.s, inner)
    )
    return scaled, k, outer


def gain_exponent(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> Array:
    """The exponent of the gain of the plant beside that of the plant that `scale_problem` makes of it."""
    found = backend.shared_function(_exponents, backend, p, discrete=discrete)
    return found.a - found.b


def loop_exponent(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> Array:
    """The exponent of the closed loop a - b k of the plant beside that of the plant that `scale_problem` makes of it."""
    return backend.shared_function(_exponents, backend, p, discrete=discrete).a


def time_exponent(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> Array:
    """The exponent of the eigenvalues of the plant beside those of the plant that `scale_problem` makes of it."""
    found = backend.shared_function(_exponents, backend, p, discrete=discrete)
    return found.a - found.e


def _exponents(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> _Exponents:
    """So that b, r and a (or e, which in a discrete equation has no choice beside a) come near 1, as far as that is good.

    q is then 2^excess. Where that is huge, the unit of time becomes that of the closed loop; in a discrete equation, where the
    solution is as large as q, its unit grows instead. Where it is tiny, the solution of an unstable model still is near 1. That
    of a stable one is as small as q, and becomes near 1 with a small b.
    """
    xp, limit = backend.xp, far_exponent(backend, p.a)
    sizes = tuple(None if x is None else largest(backend, x) for x in p)
    alpha, beta, kappa, rho = (backend.exponent(x) for x in sizes[:4])
    zero = 0 * alpha
    # Without a descriptor the time step of a discrete equation is fixed: the eigenvalues of a mean what they are.
    epsilon = zero if p.e is None else backend.exponent(sizes[4])
    no_a, no_b, no_q, no_r = (x == 0 for x in sizes[:4])
    if discrete:
        alpha = epsilon
    excess = xp.where(no_q | no_r, zero, kappa - 2 * alpha - rho + 2 * beta)
    above = excess if discrete else excess // 2
    if p.s is not None:
        above = xp.maximum(
            above, xp.where((sizes[5] == 0) | no_r, zero, backend.exponent(sizes[5]) - rho + beta - alpha)
        )

    def apart(p: RiccatiProblem, alpha: Array, beta: Array, rest: _FreeExponents) -> tuple[Array, Array, Array]:
        excess, above, no_a, no_b = rest
        calm = no_b | ((excess < -limit) & _is_stable(backend, discrete, p, alpha))
        beta = xp.where(calm, beta - excess // 2, beta)
        above = xp.where(~calm & (above > limit), above, 0 * above)
        if discrete:
            return alpha, beta, above
        return alpha + xp.where(no_a & ~calm, excess // 2, above), beta, 0 * above

    def together(p: RiccatiProblem, alpha: Array, beta: Array, rest: _FreeExponents) -> tuple[Array, Array, Array]:
        return alpha, beta, 0 * alpha

    far_apart = no_a | no_b | (excess < -limit) | (above > limit)
    alpha, beta, above = backend.rare_cond(
        far_apart, apart, together, p, alpha, beta, _FreeExponents(excess, above, no_a, no_b)
    )
    by_state = kappa - alpha - (alpha if discrete else epsilon)
    by_input = rho - 2 * beta + (above if discrete else alpha - epsilon)
    return _Exponents(alpha, beta, epsilon, xp.where(no_r, by_state, by_input))


class _FreeExponents(NamedTuple):
    """By what power of two q is larger than in good units, by what the solution must be, and which of a and b are zero."""

    excess: Array
    above: Array
    no_a: Array
    no_b: Array


def _is_stable(backend: Backend, discrete: bool, p: RiccatiProblem, alpha: Array) -> Array:
    """Whether the model is stable as it is."""
    a = backend.ldexp(p.a, broadcast_scalar(-alpha))
    if p.e is not None:
        a = backend.solve(backend.ldexp(p.e, broadcast_scalar(-backend.exponent(largest(backend, p.e)))), a)
    known = backend.xp.isfinite(backend.norm(a))
    values = backend.eig(backend.xp.where(broadcast_scalar(known), a, 0 * p.a))[0]
    beyond = backend.xp.abs(values) - 1 if discrete else values.real
    return known & (backend.xp.max(beyond, axis=-1) < 0)


def standard_form(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> StandardForm:
    """The equation without descriptor and cross term; NaN where e or r has no inverse."""
    a, q, s = p.a, p.q, p.s
    if p.e is not None:
        inverse = backend.inv(p.e)
        a, q = a @ inverse, adjoint(inverse) @ q @ inverse
        s = None if s is None else adjoint(inverse) @ s
    plain = RiccatiProblem(a, p.b, q, p.r, None, s)
    if not discrete:
        return _without_cross(backend, plain, None)
    # A discrete equation may have a singular r. Then a part γI of its solution is moved into it.
    weak = ~(backend.norm(p.r) * backend.norm(backend.inv(p.r)) < backend.eps(a) ** -0.5)
    if nothing_failed(backend, weak):
        return _without_cross(backend, plain, None)
    return backend.rare_cond(
        weak,
        functools.partial(_shift_cost, backend),
        lambda p: _without_cross(backend, p, 0 * backend.ones(p.a)),
        plain,
    )


def _without_cross(backend: Backend, p: RiccatiProblem, short: Array | None) -> StandardForm:
    a, q = p.a, p.q
    if p.s is not None:
        cross = backend.solve(p.r, adjoint(p.s))
        a, q = a - p.b @ cross, hermitian(q - p.s @ cross)
    if short is not None:
        short = short[..., None] + backend.xp.zeros_like(a[..., 0, :].real)
    return StandardForm(a, hermitian(p.b @ backend.solve(p.r, adjoint(p.b))), q, short)


def _shift_cost(backend: Backend, p: RiccatiProblem) -> StandardForm:
    """For y = x - γI the equation has r + γ bᴴb, s + γ aᴴb and q + γ (aᴴa - I)."""
    gamma = safe_divisor(backend, backend.norm(p.q)) / math.sqrt(p.a.shape[-1])
    g, ah, bh = broadcast_scalar(gamma), adjoint(p.a), adjoint(p.b)
    s = g * (ah @ p.b)
    moved = RiccatiProblem(
        p.a,
        p.b,
        hermitian(p.q + g * (ah @ p.a - eye(backend, p.a))),
        p.r + g * (bh @ p.b),
        None,
        s if p.s is None else p.s + s,
    )
    return _without_cross(backend, moved, gamma)


def with_shift(backend: Backend, p: StandardForm, y: Array) -> Array:
    """The solution that is asked for, from that of the standard form."""
    if p.short is None:
        return y
    return backend.rare_cond(
        (p.short != 0).any(-1), lambda y, short: y + short[..., None, :] * eye(backend, y), lambda y, _: y, y, p.short
    )


def state_units(backend: Backend, p: StandardForm) -> Array | None:
    """An exponent for each state that balances rows and columns of [[a, -g], [-q, -aᴴ]], (B, n); None where no member of the
    stack has units to change.
    """
    xp = backend.xp
    off = 1 - eye(backend, p.a.real)
    column_of_ones = p.a[..., :1].real * 0 + 1
    one = column_of_ones[:1]  # of the whole stack a step would keep more than it may

    def step(state: Any) -> Any:
        a, g, q, unit, units = state
        one_over = 1 / unit
        rising = (a @ one_over + g @ unit) * unit
        falling = (a.mT @ unit + q @ one_over) * one_over
        both = (rising > 0) & (falling > 0)
        ratio = xp.log2(xp.where(both, falling, one) / xp.where(both, rising, one))
        # All states move at once, so each goes a little less than its way; what is within a factor of 8 stays.
        move = xp.where(xp.abs(ratio) > 3, xp.round(0.4 * ratio), 0 * ratio)
        move = xp.where(xp.isfinite(move), move, 0 * unit)
        return (a, g, q, unit * xp.exp2(move), units + move), (move != 0).any((-1, -2))

    start = (xp.abs(p.a) * off, xp.abs(p.g), xp.abs(p.q), column_of_ones, 0 * column_of_ones)
    found = backend.loop(step, start, _SWEEPS)[4][..., 0]
    if nothing_failed(backend, found):
        return None
    # In units farther apart the squares of the solution would leave the range of numbers.
    most = 3 * far_exponent(backend, p.a) // 8
    return xp.astype(xp.clip(found, -most, most), xp.int32)


def solution_units(backend: Backend, x: Array) -> Array:
    """An exponent for each state that brings the diagonal of the solution x near 1; 0 where it is 0."""
    size = backend.exponent(backend.xp.abs(backend.xp.linalg.diagonal(x).real))
    return backend.xp.astype((size - size % 2) // 2, backend.xp.int32)


def in_units(backend: Backend, p: RiccatiProblem, states: Array | None) -> RiccatiProblem:
    """The plant with its states measured in these units."""
    if states is None:
        return p
    if backend.is_traced(states):
        return _in_units(backend, p, states)
    return backend.masked_cond((states != 0).any(-1), functools.partial(_in_units, backend), lambda p, _: p, p, states)


def _in_units(backend: Backend, p: RiccatiProblem, states: Array) -> RiccatiProblem:
    rows, columns = states[..., :, None], states[..., None, :]
    return RiccatiProblem(
        backend.ldexp(p.a, rows - columns),
        backend.ldexp(p.b, rows),
        backend.ldexp(p.q, -rows - columns),
        p.r,
        None if p.e is None else backend.ldexp(p.e, rows - columns),
        None if p.s is None else backend.ldexp(p.s, -rows),
    )


def standard_in_units(backend: Backend, p: StandardForm, states: Array | None) -> StandardForm:
    if states is None:
        return p
    if backend.is_traced(states):
        return _standard_in_units(backend, p, states)
    return backend.masked_cond(
        (states != 0).any(-1), functools.partial(_standard_in_units, backend), lambda p, _: p, p, states
    )


def _standard_in_units(backend: Backend, p: StandardForm, states: Array) -> StandardForm:
    rows, columns = states[..., :, None], states[..., None, :]
    return StandardForm(
        backend.ldexp(p.a, rows - columns),
        backend.ldexp(p.g, rows + columns),
        backend.ldexp(p.q, -rows - columns),
        None if p.short is None else backend.ldexp(p.short, -2 * states),
    )


class Odd(NamedTuple):
    """A plant and its x in other units; by entries, what is left of the equation and the gain there times `gap` and `gain` are
    those here.
    """

    plant: RiccatiProblem
    x: Array
    gap: Array
    gain: Array


def in_odd_units(backend: Backend, p: RiccatiProblem, x: Array, draw: int) -> Odd:
    """The same equation in units that are no powers of two, so that rounding falls differently everywhere."""
    n, m = p.b.shape[-2:]
    factors = np.random.default_rng(draw).uniform(1, 2, n + m + 1)
    units = backend.astype(backend.asarray(factors, x), backend.dtype_name(x.real))
    t, u, whole = units[:n], units[n : n + m], units[-1]
    rows, columns = t[:, None], t[None, :]
    odd = RiccatiProblem(
        p.a * rows / columns,
        p.b * rows * u[None, :],
        p.q * whole / (rows * columns),
        p.r * whole * u[:, None] * u[None, :],
        None if p.e is None else p.e * rows / columns,
        None if p.s is None else p.s * whole * u[None, :] / rows,
    )
    return Odd(odd, x * whole / (rows * columns), rows * columns / whole, u[:, None] * columns)


def round_randomly(backend: Backend, p: RiccatiProblem) -> RiccatiProblem:
    """The plant with every number changed by one rounding, always the same way; q and r stay Hermitian."""
    a, b, q, r, e, s = (None if x is None else round_by_one(backend, x, k) for k, x in enumerate(p))
    return RiccatiProblem(a, b, hermitian(q), hermitian(r), e, s)


def round_by_one(backend: Backend, x: Array, draw: int = 0) -> Array:
    """Every number changed by one rounding, up or down, always the same way."""
    factors = 1 + backend.eps(x) * np.random.default_rng(draw).choice((-1.0, 1.0), x.shape[-2:])
    return x * backend.astype(backend.asarray(factors, x), backend.dtype_name(x.real))
