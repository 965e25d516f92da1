"""How G A^{-s/p} and A^{-1/p} are computed: by products alone, by eigenvectors or by Schur vectors."""

from __future__ import annotations

import math

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.tolerances import rank_tolerance
from matsign.functions.powers.power_methods import matrix_function, scale_units
from matsign.iterations.inverse_root_products import inverse_root_product
from matsign.iterations.rational_root_products import inverse_root_by_poles
from matsign.linalg.jacobi_rotations import are_many_small
from matsign.linalg.scalar_powers import exponent
from matsign.linalg.stacks import broadcast_scalar, is_hermitian, is_nearly_hermitian, scale_to_unit

METHODS = ("auto", "polynomial", "newton", "eigh", "schur")

# On a CPU products are faster than eigenvectors from this size on, for a tolerance of this many units of rounding.
_SIZE, _TOLERANCE = 64, 64
# Guesses of the smallest eigenvalue relative to the largest; for a smaller one eigenvectors are faster on a CPU.
_LEVELS_ON_CPU = (1 / 4, 1 / 8, 1 / 12, 1 / 32, 1 / 160)
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
    power = exponent(-(s // common), p // common)
    units, a = scale_units(backend, a)
    given: Arrays = ()
    size = 0 * units.k
    if g is not None:
        g, size = scale_to_unit(backend, g)
        given = (g,)

    def by_vectors(a: Array, *given: Array) -> Solution:
        root = matrix_function(backend, a, power=power, rtol=rtol, method="auto" if method == "polynomial" else method)
        return root._replace(value=(given[0] @ root.value[0],)) if given else root

    def by_products(a: Array, *given: Array) -> Solution:
        task = (backend, given[0] if given else None, a, p // common, s // common, tol)
        if method == "auto" and backend.on_cpu(a) and backend.dynamic_shapes(a) and p > common:
            out, steps, right = inverse_root_by_poles(*task, smallest=rank_tolerance(backend, a, rtol))
        elif method == "auto" and backend.on_cpu(a):
            out, steps, right = inverse_root_product(*task, levels=_LEVELS_ON_CPU, estimate=True)
        else:
            out, steps, right = inverse_root_product(*task, levels=_LEVELS, estimate=False)
        return backend.masked_cond(
            right & is_hermitian(a) & backend.xp.isfinite(out).all((-1, -2)),
            lambda a, out, steps, *given: solution(backend, (out,), iterations=steps),
            lambda a, out, steps, *given: by_vectors(a, *given),
            *(a, out, steps, *given),
        )

    products = method == "polynomial" or (method == "auto" and _prefers_products(backend, a, tol))
    result = (by_products if products else by_vectors)(a, *given)
    whole, factor = units.factor(backend, power, a.real)
    value = backend.ldexp(result.value[0] * broadcast_scalar(factor), broadcast_scalar(whole + size))
    failure = overflow_failure(backend, value, result.failure)
    if method == "polynomial":
        failure = Failure.NOT_HERMITIAN.where(backend, ~is_nearly_hermitian(backend, a), failure)
    return result._replace(value=(value,), failure=failure, detail=units.outward_detail(backend, result))


def _prefers_products(backend: Backend, a: Array, tol: float | None) -> bool:
    if not backend.on_cpu(a):
        return not are_many_small(backend, a)
    return tol is not None and tol >= _TOLERANCE * backend.eps(a) and a.shape[-1] >= _SIZE
