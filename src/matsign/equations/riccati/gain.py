"""The gain k of an algebraic Riccati equation and f = a - b k, accurate also where x in working precision does not suffice.

The gain may lose digits if r is small relative to bᴴ x b, or if the closed loop of a strongly unstable plant depends on the
last digits of x. If rounding changes the gain too much, k and f come from the solution in decimal arithmetic.
"""

from __future__ import annotations

import functools
from typing import Any

from matsign._typing import Array
from matsign.backends import Backend
from matsign.equations.riccati.decimal_fallback import affordable, solve_in_decimals
from matsign.equations.riccati.newton_kleinman import Equation
from matsign.equations.riccati.perturbations import in_odd_units, round_randomly
from matsign.equations.riccati.problem import RiccatiProblem, gain_exponent, loop_exponent, scale_problem
from matsign.linalg.stacks import all_false, broadcast_scalar, safe_divisor


def gain_at(
    backend: Backend, equation: Equation, x: Array, p: RiccatiProblem, *, perturb: bool = False
) -> tuple[Array, Array]:
    """(k, f) in the caller's units; `perturb`: in decimal arithmetic take the data with a random rounding."""
    scaled, x = _in_scaled_units(backend, equation, x, p)
    at = backend.shared_function(equation.gap, backend, scaled, x)
    outer = broadcast_scalar(gain_exponent(backend, p, discrete=equation.discrete))
    if not affordable(backend, x, 2):
        gain = backend.ldexp(at.gain, outer)
        return gain, p.a - p.b @ gain
    decimals_needed = _needs_more_digits(backend, equation, x, scaled, at.gain)
    decimal_gain = functools.partial(_decimal_gain, backend, equation, perturb)
    gain, closed = backend.masked_cond(
        decimals_needed, decimal_gain, lambda p, gain, closed: (gain, closed), scaled, at.gain, at.closed
    )
    gain = backend.ldexp(gain, outer)
    closed = backend.ldexp(closed, broadcast_scalar(loop_exponent(backend, p, discrete=equation.discrete)))
    return gain, backend.xp.where(broadcast_scalar(decimals_needed), closed, p.a - p.b @ gain)


def gain_spread(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> Array:
    """The change of each entry of the gain due to rounding; 0 where the gain comes from decimal arithmetic."""
    scaled, x = _in_scaled_units(backend, equation, x, p)
    gain = equation.gap(backend, scaled, x).gain
    spread = _rounding_changes(backend, equation, x, scaled, gain)
    spread = backend.xp.where(
        broadcast_scalar(_needs_more_digits(backend, equation, x, scaled, gain)), 0 * spread, spread
    )
    return backend.ldexp(spread, broadcast_scalar(gain_exponent(backend, p, discrete=equation.discrete)))


def _in_scaled_units(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> tuple[RiccatiProblem, Array]:
    scaled, whole, _ = scale_problem(backend, p, discrete=equation.discrete)
    return scaled, backend.ldexp(x, broadcast_scalar(-whole))


def _needs_more_digits(backend: Backend, equation: Equation, x: Array, scaled: RiccatiProblem, gain: Array) -> Array:
    """Whether the gain in working precision is inaccurate and decimal arithmetic is affordable."""
    if not affordable(backend, x, 2):
        return all_false(backend, x)
    enough = min(4096 * backend.eps(x), backend.eps(x) ** 0.5)
    return ~(backend.norm(_rounding_changes(backend, equation, x, scaled, gain)) <= enough * backend.norm(gain))


def _rounding_changes(backend: Backend, equation: Equation, x: Array, scaled: RiccatiProblem, gain: Array) -> Array:
    """The change of each entry of the gain due to rounding: the largest in three other systems of units.

    Perturbing the data instead would miss the digits that a sum of 1 and 1e-12 loses: they stay lost if the 1 changes by eps.
    If r (or r + bᴴ x b) is singular to working precision, no system of units shows it: the gain itself counts as the change.
    """
    changes = [
        backend.xp.abs(gain)
        * broadcast_scalar(
            backend.astype(_weight_is_singular(backend, equation, x, scaled), backend.dtype_name(gain.real))
        )
    ]
    for draw in range(3):
        odd = in_odd_units(backend, scaled, x, draw)
        changes.append(backend.xp.abs(odd.gain * equation.gap(backend, odd.plant, odd.x).gain - gain))
    return functools.reduce(backend.xp.maximum, changes)


def _weight_is_singular(backend: Backend, equation: Equation, x: Array, p: RiccatiProblem) -> Array:
    """Whether r (or r + bᴴ x b, or I + x g), scaled to a diagonal of 1, is singular to working precision."""
    weight = p.weight(backend, x, discrete=equation.discrete)
    if weight is None:
        return all_false(backend, x)
    units = 1 / backend.xp.sqrt(safe_divisor(backend, backend.xp.abs(backend.xp.linalg.diagonal(weight).real)))
    weight = weight * units[:, :, None] * units[:, None, :]
    return ~(backend.norm(weight) * backend.norm(backend.inv(weight)) * (4 * weight.shape[-1] * backend.eps(x)) < 1)


def _decimal_gain(
    backend: Backend, equation: Equation, perturb: bool, p: RiccatiProblem, gain: Array, closed: Array
) -> Any:
    """(gain, closed loop) from the solution in decimal arithmetic where it is stabilising, else unchanged."""
    solution = solve_in_decimals(backend, equation, round_randomly(backend, p) if perturb else p)
    accepted = broadcast_scalar(solution.found & solution.stable)
    return backend.xp.where(accepted, solution.gain, gain), backend.xp.where(accepted, solution.closed, closed)
