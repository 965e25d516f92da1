"""Error estimates for generalised Sylvester equations a x b + c x d = q, and their separation."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.direct import generalized_schur
from matsign.equations.sylvester.generalized_methods import (
    ScaledEquation,
    equilibrate_generalized,
    scale_generalized,
    solve_by_standard_form,
    terms,
)
from matsign.iterations.refinement import backward, correction, relative_gap
from matsign.linalg.double_word import DoubleWord, dw_add, dw_neg, dw_product, from_double
from matsign.linalg.separation import random_right_side, separation_of_response
from matsign.linalg.stacks import adjoint, random_probe

_SAMPLES = 2


def generalized_sylvester_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, c: Array, d: Array, q: Array
) -> Residual:
    """Backward error, correction and separation.

    The residual is computed in double-word arithmetic: its rounding in working precision would look like an error of x. The
    correction adds solutions for random perturbations of the data by rounding, the uncertainty of the exact solution. The
    separation is that of the caller's equation, the other numbers are measured in units of rows and columns that fit it.
    """
    plain = scale_generalized(backend, a, b, c, d, q)
    right = random_right_side(backend, plain.q)[:, None]
    _, least = _responses(backend, plain.a, plain.b, plain.c, plain.d, right)
    scaled = equilibrate_generalized(backend, a, b, c, d, q)
    a, b, c, d, q = scaled.arrays
    x = backend.ldexp(value[0], -scaled.scale)
    gap = _exact_gap(backend, scaled, x)
    noise = [_data_perturbation(backend, scaled, x, k) for k in range(_SAMPLES)]
    solved, _ = _responses(backend, a, b, c, d, backend.xp.stack([gap, *noise], axis=1))
    left = backward(backend, gap, *terms(a, b, c, d, q, x))
    step = backend.ldexp(correction(backend, solved), scaled.scale)
    step = scaling.at_least_rounded(backend, step, value[0])
    return Residual(left, (step,), backend.ldexp(least, plain.size))


def _exact_gap(backend: Backend, scaled: ScaledEquation, x: Array) -> Array:
    """q - a x b - c x d in double-word arithmetic."""
    a, b, c, d, q, y = (from_double(z) for z in (*scaled.arrays, x))

    def term(left: DoubleWord, right: DoubleWord) -> DoubleWord:
        return dw_neg(dw_product(backend, dw_product(backend, left, y), right))

    return dw_add(dw_add(term(a, b), term(c, d)), q).high


def _data_perturbation(backend: Backend, scaled: ScaledEquation, x: Array, k: int) -> Array:
    """The change of the residual under the k-th random perturbation of each entry of the data by rounding."""
    a, b, c, d, q = scaled.arrays

    def change(y: Array, place: int) -> Array:
        n, m = y.shape[-2:]
        start = (5 * k + place) * n
        return y * (backend.eps(y) * random_probe(backend, 5 * _SAMPLES * n, m, y)[:, start : start + n])

    first = change(a, 0) @ x @ b + a @ x @ change(b, 1)
    return first + change(c, 2) @ x @ d + c @ x @ change(d, 3) + change(q, 4)


def _responses(backend: Backend, a: Array, b: Array, c: Array, d: Array, rights: Array) -> tuple[Array, Array]:
    """(solutions for right-hand sides (B, k, n, m), separation): by a standard form, and by QZ where that is unreliable."""
    solved, reliable = solve_by_standard_form(backend, a, b, c, d, rights)
    gap = relative_gap(backend, terms, a, b, c, d, rights[:, 0], solved[:, 0])
    reliable = reliable & (gap < backend.eps(a) ** 0.75)
    least, also = separation_of_response(
        backend,
        rights[:, -1],
        solved[:, -1],
        lambda y: solve_by_standard_form(backend, adjoint(a), adjoint(b), adjoint(c), adjoint(d), y),
    )
    result: tuple[Array, Array] = backend.rare_cond(
        ~(reliable & also),
        lambda a, b, c, d, rights, *_: backend.host_callback(
            generalized_schur.generalized_responses, (rights, backend.ones(a)), a, b, c, d, rights
        ),
        lambda a, b, c, d, rights, x, least: (x, least),
        *(a, b, c, d, rights, solved, least),
    )
    return result
