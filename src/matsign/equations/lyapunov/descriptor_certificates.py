"""Error estimates for a x eᴴ + e x aᴴ = q and a x aᴴ - e x eᴴ + q = 0, and their separation."""

from __future__ import annotations

import math

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.equations.lyapunov.descriptor_equations import (
    DescriptorEquation,
    ScaledEquation,
    equilibrate,
    scale_equation,
)
from matsign.equations.lyapunov.descriptors import member_is_regular, power_sums, surely_regular
from matsign.iterations import shared_sums
from matsign.iterations.refinement import correction
from matsign.iterations.smith import smith, smith_each
from matsign.linalg.double_word import dw_adjoint, dw_neg, dw_product, from_double
from matsign.linalg.separation import random_right_side, separation_of_response, spectral_norm
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    hermitian,
    is_hermitian,
    random_probe,
    safe_divisor,
    scale_to_unit,
)

_SAMPLES = 2


def descriptor_residual(
    backend: Backend, equation: DescriptorEquation, value: Array, a: Array, q: Array, e: Array
) -> Residual:
    """Backward error, correction and separation.

    The backward error is the smallest ε for which relative changes of a, e and q by ε, in norm, may explain the residual to
    first order. The residual is computed in double-word arithmetic, and the correction adds solutions for random perturbations
    of the data by rounding, as for e = I. The separation and the backward error are those of the caller's equation; the
    correction is computed in units of rows and columns that fit the pencil.
    """
    plain = scale_equation(backend, equation, a, q, e)
    return _residual(backend, equation, value, plain, equilibrate(backend, equation, plain))


def descriptor_gramian_residual(
    backend: Backend,
    equation: DescriptorEquation,
    value: Array,
    model: Arrays,
    scaled: ScaledEquation | None = None,
    b: Array | None = None,
) -> Residual:
    """The errors of the Gramian of a model (a, b, e), with respect to changes of these; `scaled` and b are in units of it.

    Without these the units of the model fit it.
    """
    plain, whole = _equation_of_model(backend, equation, model)
    scaled, b = (plain, whole) if scaled is None else (scaled, b)
    return _residual(backend, equation, value, plain, scaled, b)


def descriptor_factor_residual(
    backend: Backend, equation: DescriptorEquation, z: Array, model: Arrays, scaled: ScaledEquation, b: Array
) -> Residual:
    """`descriptor_gramian_residual` for z zᴴ, where its entries in the caller's units may underflow.

    The correction is one number for each member, the error of z zᴴ relative to its norm in the caller's units.
    """
    plain, _ = _equation_of_model(backend, equation, model)
    at_size, k = scale_to_unit(backend, z)
    k = broadcast_scalar(backend.xp.where((z == 0).all((-1, -2)), plain.scale[:, 0, 0] // 2, k))
    plain = plain._replace(q=backend.ldexp(plain.q, plain.scale - 2 * k))
    half = scaled.scale // 2
    in_units = backend.ldexp(z, -(backend.xp.linalg.diagonal(scaled.outer)[:, :, None] // 2 + half))
    x, y = (m @ adjoint(m) for m in (at_size, in_units))
    left, step, least = _errors(backend, equation, plain, x, scaled, y, b)
    step = backend.ldexp(step, scaled.outer + scaled.scale - 2 * k)
    error = backend.norm(step) / safe_divisor(backend, backend.norm(x))
    return Residual(left, (error,), least)


def _equation_of_model(backend: Backend, equation: DescriptorEquation, model: Arrays) -> tuple[ScaledEquation, Array]:
    """The equation with one power of two for each array of (a, b, e), and b with its largest entry near 1."""
    a, e, k, size = equation.scale(backend, model[0], model[2])
    b, of_b = scale_to_unit(backend, model[1])
    q = equation.gramian_sign * (b @ adjoint(b))
    none = backend.xp.zeros_like(q.real, dtype=backend.xp.int32)
    return ScaledEquation(a, q, e, none, none, broadcast_scalar(2 * of_b - k), size), b


def _residual(
    backend: Backend,
    equation: DescriptorEquation,
    value: Array,
    plain: ScaledEquation,
    scaled: ScaledEquation,
    b: Array | None = None,
) -> Residual:
    """Of x in the caller's units, from the equation with one power of two for each array, and in units."""
    exponents = scaled.outer + scaled.scale
    x, y = backend.ldexp(value, -plain.scale), backend.ldexp(value, -exponents)
    left, step, least = _errors(backend, equation, plain, x, scaled, y, b)
    return Residual(left, (scaling.at_least_rounded(backend, backend.ldexp(step, exponents), value),), least)


def _errors(
    backend: Backend,
    equation: DescriptorEquation,
    plain: ScaledEquation,
    x: Array,
    scaled: ScaledEquation,
    y: Array,
    b: Array | None,
) -> tuple[Array, Array, Array]:
    """(backward error of x, correction of y, separation); with b, q in units is ± b bᴴ, and rounding perturbs b.

    The backward error is the smaller one of x and y: entries of x may underflow.
    """
    _, least = _responses(backend, equation, plain.a, plain.e, random_right_side(backend, plain.q)[:, None])

    rights = [exact_descriptor_gap(backend, equation, scaled, y, b)]
    rights += [_data_perturbation(backend, equation, scaled, y, k, b) for k in range(_SAMPLES)]
    solved, _ = _responses(backend, equation, scaled.a, scaled.e, backend.xp.stack(rights, axis=1))
    left = backend.xp.minimum(
        _backward(backend, equation, plain, x, exact_descriptor_gap(backend, equation, plain, x)),
        _backward(backend, equation, scaled, y, rights[0]),
    )
    return left, correction(backend, solved), backend.ldexp(least, plain.size)


def _backward(backend: Backend, equation: DescriptorEquation, scaled: ScaledEquation, x: Array, gap: Array) -> Array:
    of_a, of_e = spectral_norm(backend, scaled.a), spectral_norm(backend, scaled.e)
    size = equation.perturbation(backend, scaled.a, x, scaled.e, of_a, of_e) + backend.norm(scaled.q)
    return backend.norm(gap) / safe_divisor(backend, size)


def exact_descriptor_gap(
    backend: Backend, equation: DescriptorEquation, scaled: ScaledEquation, x: Array, b: Array | None = None
) -> Array:
    """The sum of the terms, in double-word arithmetic; with b, for ± b bᴴ in place of q."""
    a, q, e, y = (from_double(z) for z in (scaled.a, scaled.q, scaled.e, x))
    if b is not None:
        q = dw_product(backend, from_double(b), dw_adjoint(from_double(b)))
        q = q if equation.gramian_sign > 0 else dw_neg(q)
    gap: Array = equation.exact_gap(backend, a, y, q, e).high
    return gap


def _data_perturbation(
    backend: Backend, equation: DescriptorEquation, scaled: ScaledEquation, x: Array, k: int, b: Array | None
) -> Array:
    """The change of the residual under the k-th random perturbation of each entry of a, e and q (or b) by rounding."""
    a, q, e = scaled[:3]
    n = q.shape[-1]
    noise = backend.eps(q) * random_probe(backend, 3 * _SAMPLES * n, n, q)
    of_a, of_e, of_q = (noise[:, (3 * k + i) * n : (3 * k + i + 1) * n] for i in range(3))
    change = equation.differential(a, x, e, a * of_a, e * of_e)
    if b is not None:
        on_b = backend.eps(b) * random_probe(backend, _SAMPLES * n, b.shape[-1], b)[:, k * n : (k + 1) * n]
        return change + 2 * equation.gramian_sign * hermitian((b * on_b) @ adjoint(b))
    of_q = backend.xp.where(broadcast_scalar(is_hermitian(q)), math.sqrt(2) * hermitian(of_q), of_q)
    return change + q * of_q


def _responses(
    backend: Backend, equation: DescriptorEquation, a: Array, e: Array, rights: Array
) -> tuple[Array, Array]:
    """(solutions for right-hand sides (B, k, n, n), separation); the last right-hand side should be partly random."""
    if not backend.on_cpu(a):
        return _responses_by_sums(backend, equation, a, e, rights)
    if not backend.is_traced(a) and a.shape[-1] > shared_sums.SMALL:
        members = [slice(k, k + 1) for k in range(len(a))]
        parts = [_member_responses(backend, equation, a[k], e[k], rights[k]) for k in members]
        return backend.xp.concat([x for x, _ in parts]), backend.xp.concat([least for _, least in parts])
    return _by_schur(backend, equation, a, e, rights)


def _by_schur(backend: Backend, equation: DescriptorEquation, a: Array, e: Array, rights: Array) -> tuple[Array, Array]:
    result: tuple[Array, Array] = backend.host_callback(equation.responses, (rights, backend.ones(a)), a, rights, e)
    return result


def _member_responses(
    backend: Backend, equation: DescriptorEquation, a: Array, e: Array, rights: Array
) -> tuple[Array, Array]:
    """`_responses` of one large member: from the powers of a sum if it is reliable, else from Schur forms."""
    t = equation.transform(backend, a, e)
    sums = power_sums(backend, t)
    transformed = [t.right_side(backend, rights[:, k]) for k in range(rights.shape[1])]
    solved = [sums.solve(backend, right) for right in transformed]
    if not backend.all_true(member_is_regular(backend, t, sums, solved[-1], transformed[-1])):
        return _by_schur(backend, equation, a, e, rights)

    def adjoint_solve(y: Array) -> tuple[Array, Array]:
        return t.adjoint_right_side(backend, sums.adjoint_solve(backend, y[:, 0]))[:, None], backend.ones(a) > 0

    least, _ = separation_of_response(backend, rights[:, -1], solved[-1], adjoint_solve)
    return backend.xp.stack(solved, axis=1), least


def _responses_by_sums(
    backend: Backend, equation: DescriptorEquation, a: Array, e: Array, rights: Array
) -> tuple[Array, Array]:
    t = equation.transform(backend, a, e)
    transformed = tuple(t.right_side(backend, rights[:, k]) for k in range(rights.shape[1]))
    sums = smith_each(backend, a, lambda: (t.c, *transformed))
    solved = backend.xp.stack(sums.x, axis=1)

    def adjoint_solve(y: Array) -> tuple[Array, Array]:
        part = smith(backend, a, lambda: (adjoint(t.c), y[:, 0]))
        return t.adjoint_right_side(backend, part.x)[:, None], part.converged

    least, reliable = separation_of_response(backend, rights[:, -1], solved[:, -1], adjoint_solve)
    reliable = reliable & sums.converged
    reliable = reliable & surely_regular(backend, t, sums.growth, solved[:, -1], transformed[-1])
    result: tuple[Array, Array] = backend.rare_cond(
        ~reliable,
        lambda a, e, rights, *_: _by_schur(backend, equation, a, e, rights),
        lambda a, e, rights, solved, least: (solved, least),
        *(a, e, rights, solved, least),
    )
    return result
