"""Semidefinite pairs given by factors, A = F Fᴴ and B = G Gᴴ with any numbers of columns, without A and B where columns are few.

    b = min over unitary W of ‖F - G W‖,    f = ‖FᴴG‖_*,    both by the singular values of FᴴG, with zero columns for equal sizes.

With U = msign(FᴴG), an isometry between the parts of F and G that the other one sees,

    d(b²) = 2 Re tr((F - G Uᴴ)ᴴ dF) + 2 Re tr((G - F U)ᴴ dG),    df = Re tr((G Uᴴ)ᴴ dF) + Re tr((F U)ᴴ dG).

The derivative of msign gives the second ones. Where both factors have at least as many columns as rows, b and f are those of
A and B if they are nonsingular and far apart (`semidefinite_values`). Else a factor with more columns than rows is replaced by
Rᴴ from Fᴴ = Q R, which has the same A. If both have more, derivatives are those in A and B: G Uᴴ = T F with the optimal map T of
`semidefinite_pairs`. Source: Bhatia, Jain & Lim 2019.
"""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.operations import apply
from matsign.core.tolerances import rank_tolerance
from matsign.functions.distances import semidefinite_pairs as pairs
from matsign.functions.distances import semidefinite_values as values
from matsign.functions.polar.polar import MSIGN
from matsign.linalg.stacks import adjoint, broadcast_scalar, inner, scale_to_unit, to_double

# For matrices with fewer rows singular vectors take as little time.
_LARGE = 16


class Comparison(NamedTuple):
    """b and f, in double precision."""

    distance: Array
    root: Array


def compare(backend: Backend, f: Array, g: Array) -> Comparison:
    (f, e), (g, h) = (scale_to_unit(backend, to_double(backend, x)) for x in (f, g))
    n, *columns = f.shape[-2], f.shape[-1], g.shape[-1]
    if n < _LARGE or min(columns) < n:
        return _by_difference(backend, f, g, e, h)
    quick, accurate = _by_squares(backend, f, g, e, h)
    result: Comparison = backend.masked_cond(
        accurate,
        lambda f, g, e, h, quick: quick,
        lambda f, g, e, h, quick: _by_difference(backend, f, g, e, h),
        *(f, g, e, h, quick),
    )
    return result


def _by_squares(backend: Backend, f: Array, g: Array, e: Array, h: Array) -> tuple[Comparison, Array]:
    """b and f from A and B, and where these are accurate: nonsingular matrices far apart."""
    a, b = (backend.hermitian_product(x, adjoint(x)) for x in (f, g))
    found, accurate = values.products(backend, a, b, rank_tolerance(backend, a, None))
    root, none = backend.xp.sum(backend.xp.sqrt(found), axis=-1), 0 * backend.ones(a)
    traces = values.Traces(abs(backend.trace(a).real), abs(backend.trace(b).real))
    numbers, clear = values.by_traces(backend, root, traces, *(pairs.Extremes(2 * x, none, none) for x in (e, h)))
    return Comparison(numbers.distance, numbers.root), accurate & clear


def _by_difference(backend: Backend, f: Array, g: Array, e: Array, h: Array) -> Comparison:
    f, g = _equal_columns(backend, *(_at_most_square(backend, x) for x in (f, g)))
    w, singular_values = pairs.optimal_turn(backend, f, g)
    top = backend.xp.maximum(e, h)
    gap = _scale(backend, f, e - top) - _scale(backend, g @ w, h - top)
    root = backend.ldexp(backend.xp.sum(singular_values, axis=-1), e + h)
    return Comparison(backend.ldexp(backend.norm(gap), top), root)


def _scale(backend: Backend, x: Array, e: Array) -> Array:
    """2^e x."""
    return backend.ldexp(x, broadcast_scalar(e))


def _at_most_square(backend: Backend, f: Array) -> Array:
    """A factor of the same matrix with at most as many columns as rows."""
    n, k = f.shape[-2:]
    return f if k <= n else adjoint(backend.xp.linalg.qr(adjoint(f))[1])


def _equal_columns(backend: Backend, f: Array, g: Array) -> tuple[Array, Array]:
    """The factors with columns of zeros after those of the shorter one."""
    missing = f.shape[-1] - g.shape[-1]
    if not missing:
        return f, g
    short = g if missing > 0 else f
    zeros = backend.zeros((*short.shape[:-1], abs(missing)), short)
    short = backend.xp.concat([short, zeros], axis=-1)
    return (f, short) if missing > 0 else (short, g)


class Partners(NamedTuple):
    """G Uᴴ, the optimal partner of F, and F U, that of G, in the precision of the factors."""

    of_f: Array
    of_g: Array


def partners(backend: Backend, f: Array, g: Array) -> Partners:
    (f, e), (g, h) = (scale_to_unit(backend, x) for x in (f, g))
    if min(f.shape[-1], g.shape[-1]) > f.shape[-2]:
        a, b = f @ adjoint(f), g @ adjoint(g)
        x, y = pairs.gradients(backend, (a, b), None)
        of_f, of_g = f - x @ f, g - y @ g  # T F for the scaled factors, whose length is that of G
    else:
        (u,) = apply(backend, MSIGN.operation, adjoint(f) @ g, tol=None, rtol=None, method="auto")
        of_f, of_g = g @ adjoint(u), f @ u
    return Partners(_scale(backend, of_f, h), _scale(backend, of_g, e))


def squared_gradients(backend: Backend, f: Array, g: Array) -> Arrays:
    """Those of b²."""
    p = partners(backend, f, g)
    return 2 * (f - p.of_f), 2 * (g - p.of_g)


def squared_tangent(backend: Backend, arrays: Arrays, tangents: Arrays) -> Array:
    """d(b²)."""
    gradients = squared_gradients(backend, *arrays)
    return sum(inner(backend, x, y) for x, y in zip(gradients, tangents, strict=True))


def root_tangent(backend: Backend, arrays: Arrays, tangents: Arrays) -> Array:
    """df."""
    return sum(inner(backend, x, y) for x, y in zip(partners(backend, *arrays), tangents, strict=True))


def size(backend: Backend, f: Array, g: Array) -> Array:
    """The root of tr A + tr B: the largest distance of matrices with these traces."""
    f, g, e = scale_to_unit(backend, f, g)
    return backend.ldexp(backend.xp.sqrt(backend.norm(f) ** 2 + backend.norm(g) ** 2), e)


def inverse_of_twice(backend: Backend, b: Array, f: Array, g: Array) -> Array:
    """1 / (2 b), and 0 where b is a rounding error."""
    smallest = 8 * max(f.shape[-2:]) * backend.eps(f) * size(backend, f, g)
    positive = b > smallest
    return backend.xp.where(positive, 0.5 / backend.xp.where(positive, b, backend.xp.ones_like(b)), 0 * b)


def rounding(backend: Backend, slopes: Arrays, f: Array, g: Array) -> Array:
    """How much rounding of F and G may change a number with these gradients, to first order."""
    return backend.eps(f) * sum(backend.norm(x) * backend.norm(y) for x, y in zip(slopes, (f, g), strict=True))
