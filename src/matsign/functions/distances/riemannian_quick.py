"""The squared Riemannian distance of well-conditioned pairs, by one Cholesky factor and eigenvalues alone.

With A = K Kᴴ the eigenvalues of A⁻¹B are 1 + μ for those μ of C = K⁻¹(B - A)K⁻ᴴ. Rounding changes C by a matrix E with the
Frobenius norm e = eps ‖K⁻¹‖ (‖K⁻¹(B - A)‖ + ‖K⁻¹‖₂ ‖B - A‖) or so, and the vector of all μ by no more than that (Hoffman &
Wielandt 1953), so that d changes by at most e ‖log(1 + μ) / (1 + μ)‖ / d: this is small for well-conditioned pairs and for near
ones. `riemannian_methods` solves the others.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.definiteness import clearly_definite
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian, to_double
from matsign.linalg.triangular_inverse import inverse_of_lower

# The bound of the errors of d may be this many times n eps d.
_LARGEST_ERROR = 1e3


class Quick(NamedTuple):
    """d², and where it is accurate and both matrices are definite to working precision."""

    squared: Array
    accurate: Array


def quick_squared(backend: Backend, a: Array, b: Array, zero: float) -> Quick:
    xp, n = backend.xp, a.shape[-1]
    a, b = to_double(backend, a), to_double(backend, b)
    inverse, gap = inverse_of_lower(backend, backend.cholesky(hermitian(a))), hermitian(b - a)
    size, half = backend.norm(inverse), inverse @ gap
    c = half @ adjoint(inverse)
    usable = xp.isfinite(backend.norm(c))
    mu = xp.linalg.eigvalsh(xp.where(broadcast_scalar(usable), c, xp.zeros_like(c)))
    usable = usable & (mu[:, 0] > -1)
    mu = xp.where(usable[:, None], mu, xp.zeros_like(mu))
    logs, growth = xp.log1p(mu), 1 / (1 + mu)
    squared = xp.sum(logs**2, axis=-1)
    rounding = size * (backend.norm(half) + _spectral_bound(backend, inverse) * backend.norm(gap))
    error = rounding * xp.sqrt(xp.sum((logs * growth) ** 2, axis=-1))  # times d
    # tr B⁻¹ is at most the largest growth times tr A⁻¹.
    condition = size**2 * xp.maximum(abs(backend.trace(a).real), abs(backend.trace(b).real) * growth[:, 0])
    usable = usable & (error <= _LARGEST_ERROR * n * squared)
    definite = condition * zero < 1
    definite = backend.rare_cond(
        usable & ~definite,
        lambda a, b, definite: clearly_definite(backend, a, zero) & clearly_definite(backend, b, zero),
        lambda a, b, definite: definite,
        *(a, b, definite),
    )
    return Quick(squared, usable & definite)


def _spectral_bound(backend: Backend, x: Array) -> Array:
    """√(‖x‖₁ ‖x‖∞), which is at least ‖x‖₂."""
    size, xp = abs(x), backend.xp
    return xp.sqrt(xp.max(xp.sum(size, axis=-1), axis=-1) * xp.max(xp.sum(size, axis=-2), axis=-1))
