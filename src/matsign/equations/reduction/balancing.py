"""The balancing projections of a model as an operation, and rules for functions of a model that are written with them.

From yᴴ z = U S Vᴴ, with factors z and y of the Gramians, the projections y U S^-1/2 and z V S^-1/2 make both Gramians equal to S.
`equations.reduction.derivatives` states their differentials, `equations.reduction.kept_derivatives` that of the split of a model
with poles that are kept; the projections then belong to its stable part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

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
from matsign.equations.reduction.kept import Kept, nothing_kept, stable_model
from matsign.equations.reduction.kept_derivatives import stable_jvp, stable_vjp
from matsign.equations.reduction.methods import balance_system, balancing_projections, exponent_of_values
from matsign.equations.reduction.pair_balancing import BalancingProjections
from matsign.equations.reduction.times import Time, is_discrete, time_of
from matsign.linalg.stacks import adjoint, broadcast_scalar


def _balancing(backend: Backend, a: Array, b: Array, c: Array, e: Array | None, *, discrete: bool) -> Solution:
    """Hankel singular values, all columns of both projections, the positions of their largest entries, and the kept poles.

    With a descriptor the projections are those of the model (e⁻¹ a, e⁻¹ b, c).
    """
    time = time_of(discrete)
    balanced = balance_system(backend, time, a, b, c, e)
    left, right, _ = balancing_projections(backend, balanced, a.shape[-1])
    if balanced.system.descriptor is not None:
        left = adjoint(balanced.system.descriptor) @ left
    anchor = backend.eye(a.shape[-1], right)[backend.xp.argmax(backend.xp.abs(right), axis=-2)].mT.real
    s = balanced.system
    shift = s.e[:, :, None] + broadcast_scalar((s.b_scale - s.c_scale) // 2)
    values = backend.ldexp(balanced.values, exponent_of_values(s)[:, None])
    kept = nothing_kept(backend, time, a) if balanced.kept is None else balanced.kept
    projector = backend.ldexp(kept.projector, s.e[:, :, None] - s.e[:, None, :])
    kept = kept._replace(projector=projector, line=backend.ldexp(kept.line, 2 * s.half))
    value = (values, backend.ldexp(left, -shift), backend.ldexp(right, shift), anchor, *kept)
    return solution(backend, value, iterations=balanced.gramians.steps)._replace(failure=balanced.gramians.failure)


class Balancing(NamedTuple):
    """The balancing projections of the stable part of a model (a, b, c), and the split if poles are kept.

    The b of the reduced model is 2^unit times larger in the states that are kept, and its c smaller, than the others.
    """

    time: Time
    model: Arrays
    stable: Arrays
    at: BalancingProjections
    kept: Kept | None
    unit: Array | None

    @classmethod
    def of(cls, backend: Backend, value: Arrays, model: Arrays, discrete: bool, unit: Array | None = None) -> Balancing:
        time, kept = time_of(discrete), Kept(*value[4:])
        some = kept if kept.any_in(backend) else None
        stable = model if some is None else stable_model(backend, time, some, *model)
        return cls(time, model, stable, BalancingProjections(*value[:4]), some, unit)

    def split_jvp(self, backend: Backend, tangents: Arrays) -> tuple[Array | None, Arrays]:
        """(dP, the tangents of the stable part)."""
        if self.kept is None:
            return None, tangents
        return stable_jvp(backend, self.time, self.kept, self.model, tangents)

    def split_vjp(self, backend: Backend, bar_projector: Array, bars: Arrays) -> Arrays:
        """The adjoint of `split_jvp`."""
        if self.kept is None:
            return bars
        return stable_vjp(backend, self.time, self.kept, self.model, bar_projector, bars)

    def jvp(self, backend: Backend, tangents: Arrays) -> Arrays:
        """(dσ, dl, dt), from the tangents of the stable part."""
        return derivatives.tangent(backend, self.time, self.at, self.stable, tangents)

    def vjp(self, backend: Backend, cotangents: Arrays) -> Arrays:
        """The cotangents of the stable part."""
        return derivatives.cotangent(backend, self.time, self.at, self.stable, cotangents)


def _tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, discrete: bool) -> Arrays:
    balancing = Balancing.of(backend, value, arrays, discrete)
    dp, tangents = balancing.split_jvp(backend, tangents)
    zero = tuple(backend.xp.zeros_like(x) for x in value[3:])
    return (*balancing.jvp(backend, tangents), zero[0], zero[1] if dp is None else dp, *zero[2:])


def _cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, discrete: bool) -> Arrays:
    balancing = Balancing.of(backend, value, arrays, discrete)
    return balancing.split_vjp(backend, cotangents[4], balancing.vjp(backend, cotangents[:3]))


BALANCING = Operation(
    "balancing",
    shapes_of("(n,n),(n,m),(p,n),(n,n)"),
    shapes_of("(n),(n,n),(n,n),(n,n),(n,n),(n,n),(n,n),()"),
    solve=_balancing,
    tangent=with_descriptor_tangent(_tangent),
    cotangent=with_descriptor_cotangent(_cotangent),
    kinds=("real", "same", "same", "real", "same", "same", "same", "real"),
)


def _balancing_at(backend: Backend, arrays: Arrays, model: Arrays, dt: Any, unit: Array | None = None) -> Balancing:
    """The balancing projections of the model (a, b, c, e), differentiable; e may be None, and `model` is without it."""
    discrete = is_discrete(dt)
    return Balancing.of(backend, apply(backend, BALANCING, *arrays, discrete=discrete), model, discrete, unit)


def tangent_of_model(powers: Callable[..., scaling.Powers], tangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The tangent for (a, b, c, e), from ``tangent(backend, balancing, tangents)`` for a model in standard form.

    ``powers(j, k, l)`` are those of the value for the model 4^j a, 2^k b, 2^l c.
    """

    def rule(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, dt: Any, **options: Any) -> Arrays:
        if arrays[-1] is not None:
            form = StandardForm.of(backend, arrays)
            return tangent(backend, _balancing_at(backend, arrays, form.model, dt), form.tangents(tangents), **options)
        sizes = _sizes(backend, is_discrete(dt), *arrays[:-1])

        def standard(backend: Backend, value: Arrays, model: Arrays, tangents: Arrays) -> Arrays:
            at = _balancing_at(backend, (*model, None), model, dt, sizes.unit)
            return tangent(backend, at, tangents, **options)

        at_size = scaling.tangent_at_size(lambda backend, *model: powers(*sizes[:3]), standard)
        return cast("Arrays", at_size(backend, value, arrays[:-1], tangents[:-1]))

    return rule


def cotangent_of_model(
    powers: Callable[..., scaling.Powers], cotangent: Callable[..., Arrays]
) -> Callable[..., Arrays]:
    """The adjoint of `tangent_of_model`."""

    def rule(backend: Backend, value: Arrays, arrays: Arrays, bars: Arrays, *, dt: Any, **options: Any) -> Arrays:
        if arrays[-1] is not None:
            form = StandardForm.of(backend, arrays)
            at = _balancing_at(backend, arrays, form.model, dt)
            return form.cotangents(cotangent(backend, at, bars, **options))
        sizes = _sizes(backend, is_discrete(dt), *arrays[:-1])

        def standard(backend: Backend, value: Arrays, model: Arrays, bars: Arrays) -> Arrays:
            return cotangent(backend, _balancing_at(backend, (*model, None), model, dt, sizes.unit), bars, **options)

        at_size = scaling.cotangent_at_size(lambda backend, *model: powers(*sizes[:3]), standard)
        return (*at_size(backend, value, arrays[:-1], bars), None)

    return rule


class _Sizes(NamedTuple):
    """(j, k, l) with 4^-j a, 2^-k b and 2^-l c near 1, and k + l even; j = 0 in discrete time. unit is (k - l) / 2."""

    half: Array
    of_b: Array
    of_c: Array
    unit: Array


def _sizes(backend: Backend, discrete: bool, a: Array, b: Array, c: Array) -> _Sizes:
    of_b, of_c = scaling.size_of(backend, b), scaling.size_of(backend, c)
    half = 0 * of_b if discrete else -(-scaling.size_of(backend, a) // 2)
    of_c = of_c + (of_b + of_c) % 2
    return _Sizes(half, of_b, of_c, (of_b - of_c) // 2)
