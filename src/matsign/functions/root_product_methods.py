"""How G A^{-s/p} and A^{-1/p} are computed: by products alone, by eigenvectors or by Schur vectors."""

from __future__ import annotations

import math

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.functions.power_methods import matrix_function, scaled
from matsign.iterations.inverse_root_products import inverse_root_product
from matsign.linalg.scalar_powers import exponent
from matsign.linalg.stacks import is_hermitian, is_nearly_hermitian

METHODS = ("auto", "polynomial", "newton", "eigh", "schur")

# On a CPU products are faster than eigenvectors from this size on, for a tolerance of this many units of rounding.
_SIZE, _TOLERANCE = 64, 64
# Guesses of the smallest eigenvalue relative to the largest; for a smaller one eigenvectors are faster on a CPU.
_LEVELS_ON_CPU = (1 / 16, 1 / 128)
_LEVELS = (1 / 64, 1e-4)


def solve_invroot_product(
    backend: Backend,
    g: Array | None,
    a: Array,
    *,
    p: int,
    s: int,
    tol: float | None,
    rtol: float | None,
    method: str,
) -> Solution:
    """g a^{-s/p}, or a^{-s/p} for g = None."""
    common = math.gcd(s, p)
    order, times = p // common, s // common

    def by_vectors(a: Array, *given: Array) -> Solution:
        root = matrix_function(
            backend, a, power=exponent(-times, order), rtol=rtol, method="auto" if method == "polynomial" else method
        )
        if not given:
            return root
        (g,), (z,) = given, root.value
        value = g @ z
        return root._replace(value=(value,), failure=overflow_failure(backend, value, root.failure))

    given = () if g is None else (g,)
    if method in ("newton", "eigh", "schur") or not (method == "polynomial" or _prefers_products(backend, a, tol)):
        return by_vectors(a, *given)
    units, small = scaled(backend, a)
    levels = _LEVELS_ON_CPU if method == "auto" and backend.on_cpu(a) else _LEVELS
    out, steps, right = inverse_root_product(backend, g, small, order, times, tol, levels)
    value = units.outward(backend, out, exponent(-times, order))
    result = backend.masked_cond(
        right & is_hermitian(a) & backend.xp.isfinite(value).all((-1, -2)),
        lambda a, value, steps, *given: solution(backend, (value,), iterations=steps),
        lambda a, value, steps, *given: by_vectors(a, *given),
        *(a, value, steps, *given),
    )
    if method == "polynomial":
        no = ~is_nearly_hermitian(backend, a)
        result = result._replace(failure=Failure.NOT_HERMITIAN.where(backend, no, result.failure))
    return result


def _prefers_products(backend: Backend, a: Array, tol: float | None) -> bool:
    if not backend.on_cpu(a):
        return True
    return tol is not None and tol >= _TOLERANCE * backend.eps(a) and a.shape[-1] >= _SIZE
