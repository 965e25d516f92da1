"""Error estimates for pairs of Sylvester equations a x - y b = c, d x - y e = f, and their separation."""

from __future__ import annotations

import functools

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.direct import generalized_schur
from matsign.equations.sylvester.pair_methods import (
    halves,
    scale_coefficients,
    scale_right_sides,
    solve_adjoint_pair,
    solve_pair,
    stack,
    terms,
)
from matsign.iterations.refinement import backward, correction, relative_gap
from matsign.linalg.double_word import DoubleWord, dw_add, dw_neg, dw_product, from_double
from matsign.linalg.separation import random_right_side, separation_of_response
from matsign.linalg.stacks import random_probe, scale_to_unit

_SAMPLES = 2


def sylvester_pair_residual(
    backend: Backend, value: tuple[Array, Array], a: Array, b: Array, c: Array, d: Array, e: Array, f: Array
) -> Residual:
    """Backward error, corrections and separation.

    The residual is computed in double-word arithmetic: its rounding in working precision would look like an error of x. The
    correction adds solutions for random perturbations of the data by rounding, the uncertainty of the exact solution. The
    separation is that of the caller's equations, with one unit for all coefficients.
    """
    least = _separation(backend, a, b, d, e, stack(backend, c, f))
    scaled = scale_coefficients(backend, a, b, d, e)
    rights, top = scale_right_sides(backend, c, f, scaled.of_c, scaled.of_f)
    units = top + scaled.of_x, top + scaled.of_y
    z = stack(backend, *(backend.ldexp(x, -k) for x, k in zip(value, units, strict=True)))
    a, b, d, e = scaled[:4]
    gap = _exact_gap(backend, a, b, d, e, rights, z)
    noise = [_data_perturbation(backend, a, b, d, e, rights, z, k) for k in range(_SAMPLES)]
    solved, _ = _responses(backend, a, b, d, e, backend.xp.stack([gap, *noise], axis=1))
    left = backward(backend, gap, *terms(backend, a, b, d, e, rights, z))
    parts = zip(halves(correction(backend, solved)), units, value, strict=True)
    steps = tuple(scaling.at_least_rounded(backend, backend.ldexp(step, k), x) for step, k, x in parts)
    return Residual(left, steps, least)


def _separation(backend: Backend, a: Array, b: Array, d: Array, e: Array, like: Array) -> Array:
    a, b, d, e, size = scale_to_unit(backend, a, b, d, e)
    _, least = _responses(backend, a, b, d, e, random_right_side(backend, like)[:, None])
    return backend.ldexp(least, size)


def _exact_gap(backend: Backend, a: Array, b: Array, d: Array, e: Array, rights: Array, z: Array) -> Array:
    """The residual in double-word arithmetic."""
    a, b, d, e, x, y, c, f = (from_double(m) for m in (a, b, d, e, *halves(z), *halves(rights)))

    def gap(left: DoubleWord, right: DoubleWord, q: DoubleWord) -> Array:
        first, second = dw_product(backend, left, x), dw_product(backend, y, right)
        return dw_add(dw_add(dw_neg(first), second), q).high

    return stack(backend, gap(a, b, c), gap(d, e, f))


def _data_perturbation(
    backend: Backend, a: Array, b: Array, d: Array, e: Array, rights: Array, z: Array, k: int
) -> Array:
    """The change of the residual under the k-th random perturbation of each entry of the data by rounding."""
    x, y = halves(z)

    def change(m: Array, place: int) -> Array:
        rows, columns = m.shape[-2:]
        start = (5 * k + place) * rows
        probe = random_probe(backend, 5 * _SAMPLES * rows, columns, m)
        return m * (backend.eps(m) * probe[:, start : start + rows])

    first = change(a, 0) @ x + y @ change(b, 1)
    second = change(d, 2) @ x + y @ change(e, 3)
    return stack(backend, first, second) + change(rights, 4)


def _responses(backend: Backend, a: Array, b: Array, d: Array, e: Array, rights: Array) -> tuple[Array, Array]:
    """(solutions for right-hand sides (B, k, 2n, m), separation): by generalised equations, and by QZ where unreliable."""
    solved, reliable = solve_pair(backend, a, b, d, e, rights)
    gap = relative_gap(backend, functools.partial(terms, backend), a, b, d, e, rights[:, 0], solved[:, 0])
    reliable = reliable & (gap < backend.eps(a) ** 0.75)
    least, also = separation_of_response(
        backend, rights[:, -1], solved[:, -1], lambda y: solve_adjoint_pair(backend, a, b, d, e, y)
    )
    result: tuple[Array, Array] = backend.rare_cond(
        ~(reliable & also),
        lambda a, b, d, e, rights, *_: backend.host_callback(
            generalized_schur.pair_responses, (rights, backend.ones(a)), a, b, d, e, rights
        ),
        lambda a, b, d, e, rights, solved, least: (solved, least),
        *(a, b, d, e, rights, solved, least),
    )
    return result
