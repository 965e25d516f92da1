"""Error estimates for discrete Sylvester equations a x b - x + q = 0, and their separation."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.direct import generalized_schur
from matsign.equations.sylvester.discrete_methods import (
    ScaledEquation,
    by_sum,
    may_be_close_to_singular,
    scale_discrete,
    terms,
)
from matsign.iterations.refinement import (
    backward,
    correction,
    each_in_callers_units,
    solve_weighed,
)
from matsign.linalg.double_word import dw_add, dw_product, from_double, times
from matsign.linalg.stacks import adjoint, broadcast_scalar, random_probe, safe_divisor

_SAMPLES = 2


def discrete_sylvester_residual(backend: Backend, value: tuple[Array], a: Array, b: Array, q: Array) -> Residual:
    """Backward error, correction and separation.

    The residual is computed in double-word arithmetic: its rounding in working precision would look like an error of x. The
    correction adds solutions for random perturbations of the data by rounding, the uncertainty of the exact solution.
    """
    scaled = scale_discrete(backend, a, b, q)
    a, b, q, d, outer, scale, size = scaled
    x = backend.ldexp(value[0], -scaling.add_exponents(outer, scale))
    gap = _exact_gap(backend, scaled, x)
    noise = [_data_perturbation(backend, scaled, x, k) for k in range(_SAMPLES)]
    rights = backend.xp.stack([gap, *noise], axis=1)
    solved, least = _responses(backend, a, b, rights, d)
    solved = each_in_callers_units(
        backend,
        lambda gap, a, b, d: _responses(backend, a, b, gap[:, None], d)[0][:, 0],
        lambda x, right, a, b, d: terms(a, b, right, d, x),
        *(solved, outer, rights, a, b, d),
    )
    left = backward(backend, *solve_weighed(backend, outer, gap, *terms(a, b, q, d, x)))
    step = backend.ldexp(correction(backend, solved), scaling.add_exponents(outer, scale))
    return Residual(left, (scaling.at_least_rounded(backend, step, value[0]),), backend.ldexp(least, size))


def _exact_gap(backend: Backend, scaled: ScaledEquation, x: Array) -> Array:
    """a x b - d x + q in double-word arithmetic."""
    a, b, q, y = (from_double(z) for z in (scaled.a, scaled.b, scaled.q, x))
    product = dw_product(backend, dw_product(backend, a, y), b)
    return dw_add(dw_add(product, times(-broadcast_scalar(scaled.d), y)), q).high


def _data_perturbation(backend: Backend, scaled: ScaledEquation, x: Array, k: int) -> Array:
    """The change of the residual under the k-th random perturbation of each entry of a, b and q by rounding."""

    def change(y: Array, place: int) -> Array:
        n, m = y.shape[-2:]
        probe = random_probe(backend, 3 * _SAMPLES * n, m, y)
        start = (3 * k + place) * n
        return y * (backend.eps(y) * probe[:, start : start + n])

    a, b, q = scaled.a, scaled.b, scaled.q
    return change(a, 0) @ x @ b + a @ x @ change(b, 1) + change(q, 2)


def _responses(backend: Backend, a: Array, b: Array, rights: Array, d: Array) -> tuple[Array, Array]:
    """(solutions for right-hand sides (B, k, n, m), separation): by sums, and by Schur vectors where these fail."""
    sums = by_sum(backend, a, b, rights, d)
    last, right = sums.x[:, -1], rights[:, -1]
    size = safe_divisor(backend, backend.norm(last))
    back = by_sum(backend, adjoint(a), adjoint(b), (last / broadcast_scalar(size))[:, None], d)
    # Upper estimates: ‖right‖ / ‖T⁻¹ right‖, and 1 / ‖T⁻ᴴ y‖ for the unit y along T⁻¹ right.
    least = backend.xp.minimum(
        safe_divisor(backend, backend.norm(right)) / size, 1 / safe_divisor(backend, backend.norm(back.x))
    )
    ok = sums.converged & back.converged
    ok = ok & ~may_be_close_to_singular(backend, a, b, right, d, last, sums.growth)
    return backend.rare_cond(
        ~ok,
        lambda a, b, rights, d, *_: backend.host_callback(
            generalized_schur.discrete_responses, (rights, backend.ones(a)), a, b, rights, d
        ),
        lambda a, b, rights, d, x, least: (x, least),
        *(a, b, rights, d, sums.x, least),
    )
