"""Factors of the Gramians of e ẋ = a x + b u, y = c x and of its discrete twin, without the inverse of e.

With w = a - p e and g = I + 2p w⁻¹ e, the powers of which `iterations.smith_factored` sums up,

    x = z zᴴ of a x eᴴ + e x aᴴ + b bᴴ = 0:   z from the start √2p w⁻¹ b and the powers of g,
    v = y yᴴ of aᴴ v e + eᴴ v a + cᴴ c = 0:   y = w⁻ᴴ f, f from the start √2p cᴴ and the powers of gᴴ.

The Hankel singular values are the singular values of yᴴ e z. The projections y U S^-1/2 and z V S^-1/2 make e the identity.

Differential and cotangent are those of the model in standard form, s = e⁻¹ a and h = e⁻¹ b:

    ds = e⁻¹(da - de s),  dh = e⁻¹(db - de h);     ā = e⁻ᴴ s̄,  b̄ = e⁻ᴴ h̄,  ē = -(ā sᴴ + b̄ hᴴ).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import as_details
from matsign.direct import bartels_stewart
from matsign.equations.lyapunov.descriptor_equations import cayley, norm_of_inverse
from matsign.equations.lyapunov.system import Gramians, ScaledFactor, System
from matsign.iterations.differentiable_solves import inverse
from matsign.iterations.smith_factored import Factors, smith_factors
from matsign.linalg.equilibration import equilibrating_exponents, rescale, scale_to_representable
from matsign.linalg.separation import ROUNDINGS
from matsign.linalg.stacks import adjoint, broadcast_scalar, entry_exponents, plus_identity, scale_to_unit


def descriptor_in_units(backend: Backend, a: Array, b: Array, c: Array, e: Array) -> System:
    """The system in units of rows and columns that fit the pencil; see `System` for the exponents."""
    (a, of_a), (e, of_e) = (scale_to_representable(backend, x) for x in (a, e))
    rows, columns = equilibrating_exponents(backend, *(entry_exponents(backend, x) for x in (a, e)))
    a, again_a = scale_to_unit(backend, rescale(backend, a, rows, columns))
    e, again_e = scale_to_unit(backend, rescale(backend, e, rows, columns))
    of_a, of_e = of_a + again_a, of_e + again_e
    odd = (of_a - of_e) % 2
    half = (of_a - of_e + odd) // 2
    b, of_b = scaling.scale_right_side(backend, b, backend.xp.broadcast_to(rows[:, :, None], b.shape))
    c, of_c = scaling.scale_right_side(backend, c, backend.xp.broadcast_to(columns[:, None, :], c.shape))
    of_b = of_b - of_e
    odd_scale = (of_b + of_c) % 2
    c, of_c = backend.ldexp(c, broadcast_scalar(-odd_scale)), of_c + odd_scale
    return System(backend.ldexp(a, broadcast_scalar(-odd)), b, c, -columns, of_b, of_c, half, e, rows)


def descriptor_gramians(backend: Backend, s: System) -> Gramians:
    """Both Gramians of a continuous-time system; y belongs to the rows of the equation."""
    t = cayley(backend, s.a, s.descriptor, stable=True)
    size = broadcast_scalar(backend.xp.sqrt(2 * t.p))
    starts = size * backend.solve(t.w, s.b), size * adjoint(s.c)
    factors = smith_factors(backend, t.c, starts, (False, True))
    z, f = factors.z
    failure, detail = _continuous_failure(backend, factors, t.c, t.w, t.p, s)
    return Gramians(z, backend.solve(adjoint(t.w), f), factors.steps, failure, detail)


def continuous_descriptor_factor(backend: Backend, s: System) -> ScaledFactor:
    t = cayley(backend, s.a, s.descriptor, stable=True)
    start = broadcast_scalar(backend.xp.sqrt(2 * t.p)) * backend.solve(t.w, s.b)
    factors = smith_factors(backend, t.c, (start,), (False,))
    failure, detail = _continuous_failure(backend, factors, t.c, t.w, t.p, s)
    return ScaledFactor(factors, s.e, s.b_scale - s.half, failure, detail)


def discrete_descriptor_gramians(backend: Backend, s: System) -> Gramians:
    """Both Gramians in discrete time; y = e⁻ᴴ f for the factor f of aᴴ e⁻ᴴ v e⁻¹ a - v + cᴴ c = 0."""
    a, c = _discrete_powers(backend, s)
    factors = smith_factors(backend, c, (backend.solve(s.descriptor, s.b), adjoint(s.c)), (False, True))
    z, f = factors.z
    failure, detail = _discrete_failure(backend, factors, a, c, s.descriptor)
    return Gramians(z, backend.solve(adjoint(s.descriptor), f), factors.steps, failure, detail)


def discrete_descriptor_factor(backend: Backend, s: System) -> ScaledFactor:
    a, c = _discrete_powers(backend, s)
    factors = smith_factors(backend, c, (backend.solve(s.descriptor, s.b),), (False,))
    failure, detail = _discrete_failure(backend, factors, a, c, s.descriptor)
    return ScaledFactor(factors, s.e, s.b_scale, failure, detail)


def _discrete_powers(backend: Backend, s: System) -> tuple[Array, Array]:
    """(a, e⁻¹ a), a in units of its own."""
    a = backend.ldexp(s.a, broadcast_scalar(2 * s.half))
    return a, backend.solve(s.descriptor, a)


def _discrete_failure(backend: Backend, factors: Factors, a: Array, c: Array, e: Array | None) -> tuple[Array, Array]:
    rounding = 2 * norm_of_inverse(backend, e) * (backend.norm(a) * backend.norm(c) + backend.norm(e))
    return _failure(backend, factors, rounding, a, e, discrete=True)


def _continuous_failure(
    backend: Backend, factors: Factors, c: Array, w: Array, p: Array, s: System
) -> tuple[Array, Array]:
    by_e, by_a = backend.norm(plus_identity(backend, -1.0, c)), p * backend.norm(plus_identity(backend, 1.0, c))
    change = backend.norm(s.a) * by_e + backend.norm(s.descriptor) * by_a
    rounding = 2 * norm_of_inverse(backend, w) * change
    return _failure(backend, factors, rounding, s.a, s.descriptor, discrete=False)


def _failure(
    backend: Backend, factors: Factors, rounding: Array, a: Array, e: Array, *, discrete: bool
) -> tuple[Array, Array]:
    """(SINGULAR_E, UNSTABLE, BARELY_STABLE or 0, details), for members whose sum diverged or may be changed by rounding."""
    xp, none = backend.xp, backend.int_zeros(a)

    def diagnose(converged: Array, a: Array, e: Array, *_: Array) -> tuple[Array, Array]:
        of_inverse = backend.norm(backend.inv(e))
        product = backend.norm(e) * of_inverse
        finite = xp.isfinite(product)
        independence = xp.where(finite, 1 / xp.where(finite, product, 1 + 0 * converged), 0 * converged)
        singular = ~(independence > ROUNDINGS * backend.eps(e) / e.shape[-1] ** 0.5)
        s = xp.where(broadcast_scalar(singular), -a / 2, backend.solve(e, a))
        values = backend.eig(s)[0]
        outermost = xp.max(xp.abs(values), axis=-1) - 1 if discrete else xp.max(values.real, axis=-1)
        responses = bartels_stewart.stein_responses if discrete else bartels_stewart.lyapunov_responses
        nothing = s[:, None][:, :0]
        least = backend.host_callback(responses, (nothing, backend.ones(s)), s, nothing, backend.ones(s))[1]
        size = backend.norm(s)
        change = (
            2
            * of_inverse
            * (backend.norm(a) + backend.norm(e) * size)
            * (xp.maximum(size, 1 + 0 * size) if discrete else 1)
        )
        barely = ~(converged > 0) | ~(least > ROUNDINGS * backend.eps(a) * change)
        failure = Failure.BARELY_STABLE.where(backend, barely, backend.int_zeros(a))
        failure = xp.where(outermost < 0, failure, int(Failure.UNSTABLE) + 0 * failure)
        return Failure.SINGULAR_E.where(backend, singular, failure), independence

    uncertain = ~(factors.converged & (factors.growth * ROUNDINGS * backend.eps(a) * rounding < 0.01))
    converged = backend.astype(factors.converged, backend.dtype_name(a.real))
    failure, detail = backend.rare_cond(
        uncertain, diagnose, lambda converged, a, e, none: (none, 0 * converged), converged, a, e, none
    )
    return failure, as_details(backend, a, detail)


class StandardForm(NamedTuple):
    """e⁻¹, and the model s = e⁻¹ a, h = e⁻¹ b, followed by the arrays between b and e."""

    inverse: Array
    model: Arrays

    @classmethod
    def of(cls, backend: Backend, arrays: Arrays) -> StandardForm:
        a, b, *rest, e = arrays
        inv = inverse(backend, e)
        return cls(inv, (inv @ a, inv @ b, *rest))

    def tangents(self, tangents: Arrays) -> Arrays:
        """The tangents of the model."""
        (s, h, *_), (da, db, *rest, de) = self.model, tangents
        return self.inverse @ (da - de @ s), self.inverse @ (db - de @ h), *rest

    def cotangents(self, cotangents: Arrays) -> Arrays:
        """The cotangents of the arrays, from those of the model."""
        (s, h, *_), (bar_s, bar_h, *rest) = self.model, cotangents
        bar_a, bar_b = adjoint(self.inverse) @ bar_s, adjoint(self.inverse) @ bar_h
        return bar_a, bar_b, *rest, -(bar_a @ adjoint(s) + bar_b @ adjoint(h))


def with_descriptor_tangent(tangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The tangent for arrays with a descriptor at the end, which may be None, from the one for models in standard form."""

    def rule(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, **options: Any) -> Arrays:
        if arrays[-1] is None:
            return tangent(backend, value, arrays[:-1], tangents[:-1], **options)
        form = StandardForm.of(backend, arrays)
        return tangent(backend, value, form.model, form.tangents(tangents), **options)

    return rule


def with_descriptor_cotangent(cotangent: Callable[..., Arrays]) -> Callable[..., Arrays]:
    """The adjoint of `with_descriptor_tangent`."""

    def rule(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, **options: Any) -> Arrays:
        if arrays[-1] is None:
            return (*cotangent(backend, value, arrays[:-1], cotangents, **options), None)
        form = StandardForm.of(backend, arrays)
        return form.cotangents(cotangent(backend, value, form.model, cotangents, **options))

    return rule
