"""The balancing projections of a model as an operation, and rules for functions of a model that are written with them.

From yᴴ z = U S Vᴴ, with factors z and y of the Gramians, the projections y U S^-1/2 and z V S^-1/2 make both Gramians equal to S.
`equations.reduction.derivatives` states their differentials.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.equations.lyapunov.descriptor_factors import (
    StandardForm,
    with_descriptor_cotangent,
    with_descriptor_tangent,
)
from matsign.equations.reduction import derivatives
from matsign.equations.reduction.derivatives import BalancingProjections
from matsign.equations.reduction.methods import balance_system, balancing_projections, values_of_system
from matsign.linalg.stacks import adjoint, broadcast_scalar


def _balancing(backend: Backend, a: Array, b: Array, c: Array, e: Array | None) -> Solution:
    """Hankel singular values, all columns of both projections, and the positions of their largest entries.

    With a descriptor the projections are those of the model (e⁻¹ a, e⁻¹ b, c).
    """
    balanced = balance_system(backend, a, b, c, e)
    left, right, _ = balancing_projections(backend, balanced, a.shape[-1])
    if balanced.system.descriptor is not None:
        left = adjoint(balanced.system.descriptor) @ left
    anchor = backend.eye(a.shape[-1], right)[backend.xp.argmax(backend.xp.abs(right), axis=-2)].mT.real
    s = balanced.system
    shift = s.e[:, :, None] + broadcast_scalar((s.b_scale - s.c_scale) // 2)
    value = (values_of_system(backend, balanced), backend.ldexp(left, -shift), backend.ldexp(right, shift), anchor)
    return solution(backend, value, iterations=balanced.gramians.steps)._replace(failure=balanced.gramians.failure)


BALANCING = Operation(
    "balancing",
    shapes_of("(n,n),(n,m),(p,n),(n,n)"),
    shapes_of("(n),(n,n),(n,n),(n,n)"),
    solve=_balancing,
    tangent=with_descriptor_tangent(derivatives.tangent),
    cotangent=with_descriptor_cotangent(derivatives.cotangent),
    kinds=("real", "same", "same", "real"),
)


def projections_at(backend: Backend, arrays: Arrays) -> BalancingProjections:
    """The balancing projections of the model (a, b, c, e), differentiable; e may be None."""
    return BalancingProjections(*apply(backend, BALANCING, *arrays))


def tangent_of_model(powers: Callable[..., scaling.Powers], tangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The tangent for (a, b, c, e), from ``tangent(backend, at, model, tangents)`` for a model in standard form."""

    def standard(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
        return tangent(backend, projections_at(backend, (*arrays, None)), arrays, tangents, **options)

    at_size = scaling.tangent_at_size(powers, standard)

    def rule(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
        if arrays[-1] is None:
            return cast("Arrays", at_size(backend, value, arrays[:-1], tangents[:-1], **options))
        form = StandardForm.of(backend, arrays)
        return tangent(backend, projections_at(backend, arrays), form.model, form.tangents(tangents), **options)

    return rule


def cotangent_of_model(
    powers: Callable[..., scaling.Powers], cotangent: Callable[..., Arrays]
) -> Callable[..., Arrays]:
    """The adjoint of `tangent_of_model`."""

    def standard(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
        return cotangent(backend, projections_at(backend, (*arrays, None)), arrays, cotangents, **options)

    at_size = scaling.cotangent_at_size(powers, standard)

    def rule(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
        if arrays[-1] is None:
            return (*at_size(backend, value, arrays[:-1], cotangents, **options), None)
        form = StandardForm.of(backend, arrays)
        bars = cotangent(backend, projections_at(backend, arrays), form.model, cotangents, **options)
        return form.cotangents(bars)

    return rule


def powers_of_model(backend: Backend, a: Array, b: Array, c: Array) -> tuple[Array, Array, Array]:
    """(j, k, l) with 4^-j a, 2^-k b and 2^-l c near 1, and k + l even."""
    half, of_b, of_c = -(-scaling.size_of(backend, a) // 2), scaling.size_of(backend, b), scaling.size_of(backend, c)
    return half, of_b, of_c + (of_b + of_c) % 2
