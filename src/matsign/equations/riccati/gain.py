"""The gain k of an algebraic Riccati equation and f = a - b k, with the digits that they have.

A solution in working precision may leave its gain few: where r is small beside bᴴ x b, or where the closed loop of a strongly
unstable plant hangs on the last digits of x. How much rounding moves the gain tells; where that is too much, both come from the
solution in more digits.
"""

from __future__ import annotations

import functools
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.decimal_fallback import affordable, solve_in_decimals
from matsign.equations.riccati.newton_kleinman import Equation
from matsign.equations.riccati.problem import (
    RiccatiProblem,
    gain_exponent,
    in_odd_units,
    loop_exponent,
    round_randomly,
    scale_problem,
)
from matsign.linalg.stacks import adjoint, all_false, broadcast_scalar, safe_divisor


def gain_at(
    backend: Backend, equation: Equation, x: Array, p: RiccatiProblem, *, shaken: bool = False
) -> tuple[Array, Array]:
    """(k, f) in the units of the caller; `shaken` for rounded data, where the digits of x do not suffice."""
    scaled, x = _in_scaled_units(backend, equation, x, p)
    at = backend.shared_function(equation.gap, backend, scaled, x)
    outer = broadcast_scalar(gain_exponent(backend, p, discrete=equation.discrete))
    if not affordable(backend, x, 2):
        gain = backend.ldexp(at.gain, outer)
        return gain, p.a - p.b @ gain
    lost = _needs_more_digits(backend, equation, x, scaled, at.gain)
    digits = functools.partial(_in_digits, backend, equation, shaken)
    gain, closed = backend.masked_cond(lost, digits, lambda p, gain, closed: (gain, closed), scaled, at.gain, at.closed)
    gain = backend.ldexp(gain, outer)
    closed = backend.ldexp(closed, broadcast_scalar(loop_exponent(backend, p, discrete=equation.discrete)))
    return gain, backend.xp.where(broadcast_scalar(lost), closed, p.a - p.b @ gain)


def gain_spread(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> Array:
    """By how much rounding moves each entry of the gain; 0 where working precision did not suffice."""
    scaled, x = _in_scaled_units(backend, equation, x, p)
    gain = equation.gap(backend, scaled, x).gain
    spread = _changes(backend, equation, x, scaled, gain)
    spread = backend.xp.where(
        broadcast_scalar(_needs_more_digits(backend, equation, x, scaled, gain)), 0 * spread, spread
    )
    return backend.ldexp(spread, broadcast_scalar(gain_exponent(backend, p, discrete=equation.discrete)))


def _in_scaled_units(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> tuple[RiccatiProblem, Array]:
    scaled, whole, _ = scale_problem(backend, p, discrete=equation.discrete)
    return scaled, backend.ldexp(x, broadcast_scalar(-whole))


def _needs_more_digits(backend: Backend, equation: Equation, x: Array, scaled: RiccatiProblem, gain: Array) -> Array:
    """Where working precision does not suffice for the gain, and more digits can be had."""
    if not affordable(backend, x, 2):
        return all_false(backend, x)
    enough = min(4096 * backend.eps(x), backend.eps(x) ** 0.5)
    return ~(backend.norm(_changes(backend, equation, x, scaled, gain)) <= enough * backend.norm(gain))


def _changes(backend: Backend, equation: Equation, x: Array, scaled: RiccatiProblem, gain: Array) -> Array:
    """By how much rounding moves each entry of the gain in working precision: the most in three other systems of units.

    Changes of the data by roundings would not do: what a sum of 1 and 1e-12 loses stays the same when the 1 changes by eps. And
    where rounding makes the weight regular that is multiplied by the gain, what that loses is the same in all units.
    """
    changes = [
        backend.xp.abs(gain)
        * broadcast_scalar(
            backend.astype(_is_made_regular(backend, equation, x, scaled), backend.dtype_name(gain.real))
        )
    ]
    for draw in range(3):
        odd = in_odd_units(backend, scaled, x, draw)
        changes.append(backend.xp.abs(odd.gain * equation.gap(backend, odd.plant, odd.x).gain - gain))
    return functools.reduce(backend.xp.maximum, changes)


def _is_made_regular(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> Array:
    """Where r (or r + bᴴ x b), with its inputs in units that make its diagonal 1, is singular to working precision."""
    weight = p.r + adjoint(p.b) @ x @ p.b if equation.discrete else p.r
    units = 1 / backend.xp.sqrt(safe_divisor(backend, backend.xp.abs(backend.xp.linalg.diagonal(weight).real)))
    weight = weight * units[:, :, None] * units[:, None, :]
    return ~(backend.norm(weight) * backend.norm(backend.inv(weight)) * (4 * weight.shape[-1] * backend.eps(x)) < 1)


def _in_digits(
    backend: Backend, equation: Equation, shaken: bool, p: RiccatiProblem, gain: Array, closed: Array
) -> Any:
    """(gain, closed loop) from the solution in more digits, where that can be had."""
    found = solve_in_decimals(backend, equation, round_randomly(backend, p) if shaken else p)
    good = broadcast_scalar(found.found & found.stable)
    return backend.xp.where(good, found.gain, gain), backend.xp.where(good, found.closed, closed)
