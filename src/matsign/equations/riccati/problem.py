"""Coefficients of a regulator problem, E x' = A x + B u at the cost xᴴQx + 2 Re xᴴSu + uᴴRu, and their scaling.

The term with b and r may also be given by its matrix g = b r⁻¹ bᴴ alone, which need not be semidefinite or invertible: the
coefficients b = r = g have this term. Their gain is

    k = x e (continuous)    or    (I + x g)⁻¹ x a (discrete),

because (r + bᴴ x b) k = g (I + x g) k, so that g is never inverted. In a `RiccatiProblem` b is g then, and r is None.

An algebraic Riccati equation with a descriptor e and a cross term s has the same stabilising solution as the standard form
with

    a₁ - b r⁻¹ s₁ᴴ,    g = b r⁻¹ bᴴ,    q₁ - s₁ r⁻¹ s₁ᴴ,        a₁ = a e⁻¹, q₁ = e⁻ᴴ q e⁻¹, s₁ = e⁻ᴴ s.

Scaling determines the effect of rounding. Powers of two for the inputs, X and time bring the coefficients near 1. One power
for each state balances its row and column in the Hamiltonian matrix (Osborne 1960; Benner 2001), so that the accuracy of a
model does not depend on the units of its states.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.members import nothing_failed
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    far_exponent,
    hermitian,
    largest,
    plus_identity,
    safe_divisor,
)

_SWEEPS = 24


class RiccatiProblem(NamedTuple):
    """Coefficients of a Riccati equation; e and s may be None, and r where b is the matrix g."""

    a: Array
    b: Array
    q: Array
    r: Array | None
    e: Array | None
    s: Array | None

    def hermitian_parts(self) -> RiccatiProblem:
        """The same with the Hermitian parts of q, r and g. Hermitian matrices do not change a bit."""
        if self.r is None:
            return self._replace(b=hermitian(self.b), q=hermitian(self.q))
        return self._replace(q=hermitian(self.q), r=hermitian(self.r))

    def present(self) -> tuple[Array, ...]:
        """The coefficients that are not None."""
        return tuple(m for m in self if m is not None)

    def layout(self) -> tuple[bool, ...]:
        """Which coefficients are present."""
        return tuple(m is not None for m in self)

    def weight(self, backend: Backend, x: Array, *, discrete: bool) -> Array | None:
        """What the gain needs the inverse of: r or r + bᴴ x b; for g nothing (None) or I + x g."""
        if self.r is None:
            return plus_identity(backend, 1.0, x @ self.b) if discrete else None
        return self.r + adjoint(self.b) @ x @ self.b if discrete else self.r


def unpack(layout: tuple[bool, ...], arrays: Sequence[Any]) -> list[Any]:
    """The coefficients in the order of `RiccatiProblem`, None for those that are absent, and the arrays that follow them."""
    rest = list(arrays)
    return [*(rest.pop(0) if given else None for given in layout), *rest]


class StandardForm(NamedTuple):
    """The equation with e = I and s = 0, g = b r⁻¹ bᴴ. The wanted x is its solution + diag(shift); shift = None means 0."""

    a: Array
    g: Array
    q: Array
    shift: Array | None


class Units(NamedTuple):
    """x_ij = 2^(whole + states_i + states_j) times the solution of the scaled equation; states = None means zeros.

    The caller's linear operator is 2^operator times the scaled one.
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
        """These units combined with further units of the states."""
        return self._replace(states=states if self.states is None else self.states + states)


class _Exponents(NamedTuple):
    """The exponents of the powers of two that a, b, e and the solution are divided by."""

    a: Array
    b: Array
    e: Array
    x: Array


def scale_problem(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> tuple[RiccatiProblem, Array, Array]:
    """(p with b, r and, as far as possible, a and e near 1; exponent of its solution; exponent of its linear operator).

    a, e, b and x are divided by 2^α, 2^ε, 2^β and 2^k. Then q must be divided by the power of the other terms, and s and r by
    the powers that keep bᴴxe + sᴴ = r · gain consistent.
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
    """The gain of p is 2^(this) times the gain of the plant scaled by `scale_problem`."""
    exponents = backend.shared_function(_exponents, backend, p, discrete=discrete)
    return exponents.a - exponents.b


def loop_exponent(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> Array:
    """The closed loop a - b k of p is 2^(this) times that of the plant scaled by `scale_problem`."""
    return backend.shared_function(_exponents, backend, p, discrete=discrete).a


def time_exponent(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> Array:
    """The eigenvalues of p are 2^(this) times those of the plant scaled by `scale_problem`."""
    exponents = backend.shared_function(_exponents, backend, p, discrete=discrete)
    return exponents.a - exponents.e


def _exponents(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> _Exponents:
    """Exponents that bring b, r and a near 1; in a discrete equation a and e have one exponent, that of e.

    For g, b and r have the same exponent, that of g. q is then about 2^excess. If that is huge, time is scaled to the closed
    loop, or in a discrete equation, where x is as large as q, x is scaled. If it is tiny, x of an unstable plant is near 1
    anyway; x of a stable plant is as small as q, and a smaller b brings it near 1.
    """
    xp, limit = backend.xp, far_exponent(backend, p.a)
    sizes = [None if x is None else largest(backend, x) for x in p]
    if p.r is None:
        sizes[3] = sizes[1]
    alpha, beta, kappa, rho = (backend.exponent(x) for x in sizes[:4])
    zero = 0 * alpha
    # A discrete equation without descriptor does not allow scaling of a: the unit circle is fixed.
    epsilon = zero if p.e is None else backend.exponent(sizes[4])
    no_a, no_b, no_q, no_r = (x == 0 for x in sizes[:4])
    if discrete:
        alpha = epsilon
    excess = xp.where(no_q | no_r, zero, kappa - 2 * alpha - rho + 2 * beta)
    above = excess if discrete else excess // 2
    if p.s is not None:
        by_cross_term = backend.exponent(sizes[5]) - rho + beta - alpha
        no_cross_term = (sizes[5] == 0) | no_r
        above = xp.maximum(above, xp.where(no_cross_term, zero, by_cross_term))
        # Without cross term q becomes q - s r⁻¹ sᴴ.
        whole = xp.where(no_q, 2 * by_cross_term, xp.maximum(excess, 2 * by_cross_term))
        excess = xp.where(no_cross_term, excess, whole)

    def rescale(p: RiccatiProblem, alpha: Array, beta: Array, rest: _FreeExponents) -> tuple[Array, Array, Array]:
        excess, above, no_a, no_b = rest
        input_rescaled = no_b | ((excess < -limit) & _is_stable(backend, discrete, p, alpha))
        beta = xp.where(input_rescaled, beta - excess // 2, beta)
        above = xp.where(~input_rescaled & (above > limit), above, 0 * above)
        if discrete:
            return alpha, beta, above
        return alpha + xp.where(no_a & ~input_rescaled, excess // 2, above), beta, 0 * above

    def keep_units(p: RiccatiProblem, alpha: Array, beta: Array, rest: _FreeExponents) -> tuple[Array, Array, Array]:
        return alpha, beta, 0 * alpha

    far_apart = no_a | no_b | (excess < -limit) | (above > limit)
    alpha, beta, above = backend.rare_cond(
        far_apart, rescale, keep_units, p, alpha, beta, _FreeExponents(excess, above, no_a, no_b)
    )
    by_state = kappa - alpha - (alpha if discrete else epsilon)
    by_input = rho - 2 * beta + (above if discrete else alpha - epsilon)
    whole = xp.where(no_r, by_state, by_input)
    if p.r is None:
        # g is divided by one power, that of a / (x e), or of 1 / x in a discrete equation.
        beta = -whole if discrete else alpha - epsilon - whole
    return _Exponents(alpha, beta, epsilon, whole)


class _FreeExponents(NamedTuple):
    """log2 of the size of q (`excess`) and the exponent it demands of the solution (`above`); whether a or b is zero."""

    excess: Array
    above: Array
    no_a: Array
    no_b: Array


def _is_stable(backend: Backend, discrete: bool, p: RiccatiProblem, alpha: Array) -> Array:
    """Whether the plant is stable without control."""
    a = backend.ldexp(p.a, broadcast_scalar(-alpha))
    if p.e is not None:
        a = backend.solve(backend.ldexp(p.e, broadcast_scalar(-backend.exponent(largest(backend, p.e)))), a)
    finite = backend.xp.isfinite(backend.norm(a))
    values = backend.eig(backend.xp.where(broadcast_scalar(finite), a, 0 * p.a))[0]
    beyond = backend.xp.abs(values) - 1 if discrete else values.real
    return finite & (backend.xp.max(beyond, axis=-1) < 0)


def standard_form(backend: Backend, p: RiccatiProblem, *, discrete: bool) -> StandardForm:
    """The equation without descriptor and cross term; NaN where e or r has no inverse."""
    a, q, s = p.a, p.q, p.s
    if p.e is not None:
        inverse = backend.inv(p.e)
        a, q = a @ inverse, adjoint(inverse) @ q @ inverse
        s = None if s is None else adjoint(inverse) @ s
    if p.r is None:
        return StandardForm(a, p.b, q, None)
    plain = RiccatiProblem(a, p.b, q, p.r, None, s)
    if not discrete:
        return _eliminate_cross_term(backend, plain, None)
    # A discrete equation may have a singular r. Then solve for y = x - γI, which has r + γ bᴴb in place of r.
    r_singular = ~(backend.norm(p.r) * backend.norm(backend.inv(p.r)) < backend.eps(a) ** -0.5)
    if nothing_failed(backend, r_singular):
        return _eliminate_cross_term(backend, plain, None)
    return backend.rare_cond(
        r_singular,
        functools.partial(_shift_cost, backend),
        lambda p: _eliminate_cross_term(backend, p, 0 * backend.ones(p.a)),
        plain,
    )


def _eliminate_cross_term(backend: Backend, p: RiccatiProblem, shift: Array | None) -> StandardForm:
    a, q = p.a, p.q
    if p.s is not None:
        cross = backend.solve(p.r, adjoint(p.s))
        a, q = a - p.b @ cross, hermitian(q - p.s @ cross)
    if shift is not None:
        shift = shift[..., None] + backend.xp.zeros_like(a[..., 0, :].real)
    return StandardForm(a, hermitian(p.b @ backend.solve(p.r, adjoint(p.b))), q, shift)


def _shift_cost(backend: Backend, p: RiccatiProblem) -> StandardForm:
    """For y = x - γI the equation has r + γ bᴴb, s + γ aᴴb and q + γ (aᴴa - I)."""
    gamma = safe_divisor(backend, backend.norm(p.q)) / math.sqrt(p.a.shape[-1])
    g, ah, bh = broadcast_scalar(gamma), adjoint(p.a), adjoint(p.b)
    s = g * (ah @ p.b)
    shifted = RiccatiProblem(
        p.a,
        p.b,
        hermitian(p.q + g * (ah @ p.a - eye(backend, p.a))),
        p.r + g * (bh @ p.b),
        None,
        s if p.s is None else p.s + s,
    )
    return _eliminate_cross_term(backend, shifted, gamma)


def with_shift(backend: Backend, p: StandardForm, y: Array) -> Array:
    """x = y + diag(shift) from the solution y of the standard form."""
    if p.shift is None:
        return y
    return backend.rare_cond(
        (p.shift != 0).any(-1), lambda y, shift: y + shift[..., None, :] * eye(backend, y), lambda y, _: y, y, p.shift
    )


def state_units(backend: Backend, p: StandardForm, eighths: int = 3) -> Array | None:
    """Exponents (B, n) of states that balance rows and columns of [[a, -g], [-q, -aᴴ]]; None if all are 0.

    They are at most so many eighths of the `far_exponent`.
    """
    xp = backend.xp
    off = 1 - eye(backend, p.a.real)
    column_of_ones = p.a[..., :1].real * 0 + 1
    one = column_of_ones[:1]  # one member: a step must not hold arrays of the whole stack in a closure

    def step(state: Any) -> Any:
        a, g, q, unit, units = state
        one_over = 1 / unit
        rising = (a @ one_over + g @ unit) * unit
        falling = (a.mT @ unit + q @ one_over) * one_over
        both = (rising > 0) & (falling > 0)
        ratio = xp.log2(xp.where(both, falling, one) / xp.where(both, rising, one))
        # All states change at once, so the change is damped to 0.4 of the exponent; ratios within a factor of 8 stay.
        move = xp.where(xp.abs(ratio) > 3, xp.round(0.4 * ratio), 0 * ratio)
        move = xp.where(xp.isfinite(move), move, 0 * unit)
        return (a, g, q, unit * xp.exp2(move), units + move), (move != 0).any((-1, -2))

    start = (xp.abs(p.a) * off, xp.abs(p.g), xp.abs(p.q), column_of_ones, 0 * column_of_ones)
    exponents = backend.loop(step, start, _SWEEPS)[4][..., 0]
    if nothing_failed(backend, exponents):
        return None
    # With larger exponents than three eighths the squares of entries of the solution would over- or underflow.
    most = eighths * far_exponent(backend, p.a) // 8
    return xp.astype(xp.clip(exponents, -most, most), xp.int32)


def solution_units(backend: Backend, x: Array) -> Array:
    """Exponents of states that bring the diagonal of the solution x near 1; 0 for a diagonal entry 0."""
    size = backend.exponent(backend.xp.abs(backend.xp.linalg.diagonal(x).real))
    return backend.xp.astype((size - size % 2) // 2, backend.xp.int32)


def in_units(backend: Backend, p: RiccatiProblem, states: Array | None) -> RiccatiProblem:
    """The plant with its states in these units."""
    if states is None:
        return p
    if backend.is_traced(states):
        return _in_units(backend, p, states)
    return backend.masked_cond((states != 0).any(-1), functools.partial(_in_units, backend), lambda p, _: p, p, states)


def _in_units(backend: Backend, p: RiccatiProblem, states: Array) -> RiccatiProblem:
    rows, columns = states[..., :, None], states[..., None, :]
    return RiccatiProblem(
        backend.ldexp(p.a, rows - columns),
        backend.ldexp(p.b, rows if p.r is not None else rows + columns),
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
        None if p.shift is None else backend.ldexp(p.shift, -2 * states),
    )
