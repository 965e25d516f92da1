"""The squared Riemannian distance of well-conditioned pairs, by one Cholesky factor and eigenvalues alone.

With A = K Kᴴ the eigenvalues of A⁻¹B are 1 + μ for those μ of C = K⁻¹(B - A)K⁻ᴴ. Rounding of C changes log(1 + μ) by about
eps ‖K⁻¹‖² ‖B - A‖ / (1 + μ), which is small for well-conditioned pairs and for near ones. `riemannian_methods` solves the others.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
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
    size = backend.norm(inverse) ** 2  # tr A⁻¹
    c = inverse @ gap @ adjoint(inverse)
    usable = xp.isfinite(backend.norm(c))
    mu = xp.linalg.eigvalsh(xp.where(broadcast_scalar(usable), c, xp.zeros_like(c)))
    usable = usable & (mu[:, 0] > -1)
    mu = xp.where(usable[:, None], mu, xp.zeros_like(mu))
    squared = xp.sum(xp.log1p(mu) ** 2, axis=-1)
    growth = 1 / (1 + mu)
    error = size * backend.norm(gap) * xp.sqrt(xp.sum(growth**2, axis=-1))
    # tr B⁻¹ is at most the largest growth times tr A⁻¹.
    condition = size * xp.maximum(abs(backend.trace(a).real), abs(backend.trace(b).real) * growth[:, 0])
    return Quick(squared, usable & (condition * zero < 1) & (error <= _LARGEST_ERROR * n * xp.sqrt(squared)))
