"""The certificate of a function of a Hermitian matrix tells its negative eigenvalues that counted as zero: `clipped`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.core.tolerances import rank_tolerance
from matsign.linalg.stacks import broadcast_scalar, hermitian, is_nearly_hermitian, safe_divisor, scale_to_unit

CLIPPED = ("clipped",)


def clipped_share(backend: Backend, a: Array, rtol: float | None) -> Array:
    """The largest modulus of such an eigenvalue of a relative to the largest one of all; 0 where a is not Hermitian."""
    if not a.shape[-1]:
        return 0 * backend.ones(a)
    xp, zero = backend.xp, rank_tolerance(backend, a, rtol)
    a, _ = scale_to_unit(backend, a)
    values, _ = backend.eigh(hermitian(xp.where(broadcast_scalar(is_nearly_hermitian(backend, a)), a, 0 * a)))
    shares = -values / safe_divisor(backend, xp.max(xp.abs(values), axis=-1))[:, None]
    return xp.max(xp.where((shares > 0) & (shares <= zero), shares, xp.zeros_like(shares)), axis=-1)


def tells_clipped(residual: Callable[..., Residual]) -> Callable[..., Residual]:
    """The residual of a function whose last argument may be semidefinite, with this measure."""

    @functools.wraps(residual)
    def with_clipped(backend: Backend, value: Arrays, *arrays: Array, rtol: float | None, **options: Any) -> Residual:
        measured = residual(backend, value, *arrays, rtol=rtol, **options)
        return measured._replace(measures=(clipped_share(backend, arrays[-1], rtol),))

    return with_clipped
