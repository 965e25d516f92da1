"""G A^{-s/r} of Hermitian positive definite matrices by inverses of A + pole I, with the approximations of `rational_roots`.

An inverse takes about as long as one product, and a few of them are enough for any tolerance that is not near rounding. Lanczos'
method tells how many; where it cannot tell, it is applied to an inverse. The result is tested as that of products alone is.
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.tolerances import accuracy
from matsign.iterations.inverse_root_products import BEYOND, LANCZOS_STEPS, ROUNDING, is_near_one, power_by_products
from matsign.iterations.rational_roots import RationalRoot, rational_root, widest_root
from matsign.linalg.block_inverse import definite_inverse, sum_of_inverses
from matsign.linalg.ritz_values import spectrum_ends
from matsign.linalg.stacks import all_false, broadcast_scalar, eye, safe_divisor

# More inverses take longer than eigenvectors.
_MOST_POLES = 7
# The share of the tolerance for the design.
_DESIGN = 0.95
# Rounding errors are below the tolerance if eps times the condition number is below this multiple of it.
_ROUNDING_SHARE = 4
# With larger numbers no interval of eigenvalues is left.
_LARGEST_LEAST = 0.5
# Lanczos' steps for an inverse, of which the largest eigenvalues are far apart.
_STEPS_OF_INVERSE = 6


def inverse_root_by_poles(
    backend: Backend, g: Array | None, a: Array, order: int, times: int, tol: float | None, smallest: float
) -> tuple[Array, Array, Array]:
    """(g a^{-times/order}, number of inverses, whether it is right to about tol) for a with entries near 1; g = None is I.

    Members with an eigenvalue below `smallest` times the largest one are not right, nor are those of which the condition number
    is too large for the tolerance.
    """
    goal = accuracy(backend, a, tol) / times
    least = max(2 * smallest, backend.eps(a) / (_ROUNDING_SHARE * goal))
    roots = _roots(order, _DESIGN * goal, least)
    limit = order * max(goal, ROUNDING * backend.eps(a))
    low, high = spectrum_ends(backend, a, LANCZOS_STEPS)
    bound = safe_divisor(backend, high * (1 + BEYOND))
    unit = a * broadcast_scalar(1 / bound)
    lower = backend.masked_cond(
        low > 0, lambda unit, lower: lower, lambda unit, lower: _lower(backend, unit, least), unit, low / bound
    ) * (1 - BEYOND)
    given = () if g is None else (g,)

    def chosen(k: int, *arrays: Array) -> tuple[Array, Array, Array]:
        lower, unit, bound, *given = arrays
        if k == len(roots):
            return given[0] if given else unit, 0 * bound, all_false(backend, unit)
        return backend.masked_cond(
            lower >= roots[k].low, lambda *xs: by(roots[k], *xs), lambda *xs: chosen(k + 1, *xs), *arrays
        )

    def by(root: RationalRoot, lower: Array, unit: Array, bound: Array, *given: Array) -> tuple[Array, Array, Array]:
        factor = _evaluate(backend, root, unit)
        right = is_near_one(backend, unit, 1 + 0 * bound, [factor], order, limit)
        out = power_by_products(backend, factor, times) * broadcast_scalar(bound ** (-times / order))
        return given[0] @ out if given else out, len(root.poles) + 0 * bound, right

    return chosen(0, lower, unit, bound, *given)


def _roots(order: int, goal: float, least: float) -> list[RationalRoot]:
    """Approximations with 1, 2, … poles, up to the first one for all eigenvalues from `least` to 1."""
    roots: list[RationalRoot] = []
    for count in range(1, _MOST_POLES + 1 if least < _LARGEST_LEAST else 1):
        root = widest_root(order, count, goal)
        if root is None:
            continue
        if root.low <= least:
            # With a smaller error than needed, which leaves room for rounding errors.
            roots.append(rational_root(order, count, least) or root._replace(low=least))
            break
        roots.append(root)
    return roots


def _evaluate(backend: Backend, root: RationalRoot, a: Array) -> Array:
    out = root.slope * a + sum_of_inverses(backend, a, root.poles, root.residues)
    return backend.add_diagonal(out, root.constant * backend.ones(a))


def _lower(backend: Backend, a: Array, shift: float) -> Array:
    """An estimate of the smallest eigenvalue of a from the largest one of (a + shift I)⁻¹; 0 for less than the shift."""
    inverse = definite_inverse(backend, a + shift * eye(backend, a))
    _, high = spectrum_ends(backend, inverse, _STEPS_OF_INVERSE)
    lower = 1 / safe_divisor(backend, high) - shift
    return backend.xp.where((lower > shift) & backend.xp.isfinite(lower), lower, 0 * lower)
