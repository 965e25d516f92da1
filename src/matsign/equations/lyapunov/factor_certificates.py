"""Certificates of factors z of Gramians: those of the equation for x = z zᴴ."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.public import Residual
from matsign.equations.lyapunov.certificates import lyapunov_residual, stein_residual
from matsign.equations.lyapunov.descriptor_certificates import descriptor_factor_residual
from matsign.equations.lyapunov.descriptor_factors import descriptor_in_units
from matsign.equations.lyapunov.descriptor_gramians import CONTINUOUS, DISCRETE, DescriptorTime
from matsign.linalg.stacks import adjoint, broadcast_scalar, norm, safe_divisor, scale_to_unit


def continuous_factor_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, e: Array | None = None
) -> Residual:
    """The certificate of the equation for z zᴴ; the relative error of z is half that of z zᴴ."""
    (z,) = value
    if e is not None:
        return _descriptor_residual(backend, CONTINUOUS, z, a, b, e)
    a, scale_a = scale_to_unit(backend, a)
    b, scale_b = scale_to_unit(backend, b)
    scaled, scale_z = _factor_at_size(backend, z, scale_b - scale_a // 2)
    q = -backend.ldexp(b @ adjoint(b), broadcast_scalar(2 * (scale_b - scale_z) - scale_a))
    gramian_residual = lyapunov_residual(backend, (scaled @ adjoint(scaled),), a, q, rounded=True)
    return _factor_residual(backend, gramian_residual, z, scaled)._replace(
        separation=backend.ldexp(gramian_residual.separation, scale_a)
    )


def discrete_factor_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, e: Array | None = None
) -> Residual:
    (z,) = value
    if e is not None:
        return _descriptor_residual(backend, DISCRETE, z, a, b, e)
    b, scale_b = scale_to_unit(backend, b)
    scaled, scale_z = _factor_at_size(backend, z, scale_b)
    q = backend.ldexp(b @ adjoint(b), broadcast_scalar(2 * (scale_b - scale_z)))
    gramian_residual = stein_residual(backend, (scaled @ adjoint(scaled),), a, q, rounded=True)
    return _factor_residual(backend, gramian_residual, z, scaled)


def _descriptor_residual(backend: Backend, time: DescriptorTime, z: Array, a: Array, b: Array, e: Array) -> Residual:
    """The same with a descriptor."""
    s = descriptor_in_units(backend, a, b, adjoint(b)[:, :1], e)
    scaled = time.scale(backend, s)
    gramian_residual = descriptor_factor_residual(backend, time.equation, z, (a, b, e), scaled, s.b)
    half = broadcast_scalar(gramian_residual.correction[0] / 2)
    return gramian_residual._replace(correction=(scaling.at_least_rounded(backend, half * z, z),))


def _factor_at_size(backend: Backend, z: Array, expected: Array) -> tuple[Array, Array]:
    """(2^-k z, k) with the largest entry of 2^-k z near 1; k = expected for z = 0, which may have underflowed."""
    scaled, k = scale_to_unit(backend, z)
    return scaled, backend.xp.where((z == 0).all((-1, -2)), expected, k)


def _factor_residual(backend: Backend, gramian_residual: Residual, z: Array, scaled: Array) -> Residual:
    error = norm(backend, gramian_residual.correction[0]) / safe_divisor(
        backend, norm(backend, scaled @ adjoint(scaled))
    )
    return gramian_residual._replace(
        correction=(scaling.at_least_rounded(backend, broadcast_scalar(error / 2) * z, z),)
    )
