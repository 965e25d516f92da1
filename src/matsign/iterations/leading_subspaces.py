"""Leading singular vectors of a matrix that moves slowly, from those of an earlier one.

Let V have p orthonormal columns, and let M V = U S Wᴴ be a singular value decomposition. With V ← V W the residual
R = Mᴴ U - V S is orthogonal to V, and

    (M - U Rᴴ) V = U S,    (M - U Rᴴ)ᴴ U = V S:

the columns are exact singular vectors of a matrix ‖R‖ away. One step of Newton's method for R = 0 adds X to V,

    X D - (I - VVᴴ) MᴴM X = R S,    D = S²,

where columns that are not wanted get a larger D. Each column is a positive definite system if its singular value is above
those of the rest of M; the conjugate gradient method needs few products where it is far above. The error is squared in each
step (the block form of the Jacobi-Davidson method of Sleijpen and van der Vorst, 1996, with the vectors of before as the start).

Whether these are the leading singular vectors is decided by the rest G = M - U S Vᴴ: ‖G‖ < s if and only if s² I - GᴴG has a
Cholesky factor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye, safe_divisor, scale_to_unit

# Newton's method squares the error; a start that needs more steps is so far away that a whole decomposition costs less.
_STEPS = 4

# So many products with MᴴM solve the equation of one step.
_PRODUCTS = 10

# The share of the tolerance that is left to that equation.
_ACCURACY = 0.3

_SINGLE = {"float64": "float32", "complex128": "complex64"}

# The next error has to be smaller than this times the last one.
_PROGRESS = 0.5

Wanted = Callable[[Array, Array], Array]


class Subspace(NamedTuple):
    """Approximate singular vectors U and V with values S, R, the relative error ‖R‖ of the wanted columns, the steps."""

    m: Array
    bound: Array
    u: Array
    values: Array
    v: Array
    residual: Array
    error: Array
    stale: Array
    steps: Array


class _Correction(NamedTuple):
    """An iterate X of the conjugate gradient method, its residual, its direction, and the squared norms of the residual."""

    m: Array
    v: Array
    shift: Array
    scale: Array
    target: Array
    x: Array
    residual: Array
    direction: Array
    squares: Array


def follow(backend: Backend, m: Array, v: Array, bound: Array, wanted: Wanted, tol: float) -> Subspace:
    """The singular vectors near the columns of v, the mask ``wanted(values, bound)`` of which to within tol ‖m‖.

    Members where that fails are stale.
    """
    v, usable = _orthonormal(backend, v)
    start = _rayleigh_ritz(backend, m, bound, v, wanted)
    start = start._replace(stale=~usable)

    def step(last: Subspace) -> tuple[Subspace, Array]:
        x, solved = _correction(backend, last, wanted, tol)
        q = backend.xp.linalg.qr(last.v + x)[0]
        new = _rayleigh_ritz(backend, last.m, last.bound, q, wanted)
        ratio = backend.xp.minimum(new.error / safe_divisor(backend, last.error), backend.ones(x))
        # Where the equation is not solved, as without a gap between singular values, no step is better than the last one.
        hopeless = ~solved & ~(new.error * ratio ** (_STEPS - 1 - last.steps) <= tol)
        stale = last.stale | hopeless | ~((new.error <= tol) | (ratio < _PROGRESS))
        new = new._replace(stale=stale, steps=last.steps + 1)
        return new, _is_open(new, tol)

    last: Subspace = backend.masked_cond(
        _is_open(start, tol), lambda *x: backend.loop(step, Subspace(*x), _STEPS), lambda *x: Subspace(*x), *start
    )
    return last._replace(stale=last.stale | ~(last.error <= tol))


def rest_is_below(backend: Backend, m: Array, u: Array, values: Array, v: Array, bound: Array) -> Array:
    """Whether ‖m - u diag(values) vᴴ‖ is below the bound, in the spectral norm."""
    rest = m - (u * values[..., None, :]) @ adjoint(v)
    gram = backend.hermitian_product(adjoint(rest), rest)
    factor = backend.cholesky(broadcast_scalar(bound**2) * eye(backend, gram) - gram)
    return backend.xp.isfinite(factor).all((-1, -2))


def _is_open(x: Subspace, tol: float) -> Array:
    return ~(x.error <= tol) & ~x.stale


def _orthonormal(backend: Backend, v: Array) -> tuple[Array, Array]:
    """v with columns that are orthonormal to working precision, and whether they were nearly so before."""
    gap = adjoint(v) @ v - eye(backend, v)
    return v - v @ gap / 2, backend.norm(gap) <= backend.eps(v) ** 0.5


def _rayleigh_ritz(backend: Backend, m: Array, bound: Array, v: Array, wanted: Wanted) -> Subspace:
    """The best singular vectors in the span of v."""
    u, values, wh = backend.svd(m @ v)
    v = v @ adjoint(wh)
    residual = adjoint(m) @ u - v * values[..., None, :]
    kept = backend.astype(wanted(values, bound), backend.dtype_name(values))
    error = backend.norm(residual * kept[..., None, :]) / safe_divisor(backend, backend.norm(m))
    none = 0 * bound
    return Subspace(m, bound, u, values, v, residual, error, none > 0, none)


def _correction(backend: Backend, last: Subspace, wanted: Wanted, tol: float) -> tuple[Array, Array]:
    """The step of Newton's method by products in single precision, and whether it has the accuracy that is of use."""
    xp, values, kind = backend.xp, last.values, backend.dtype_name(last.m)
    right = (last.residual - last.v @ (adjoint(last.v) @ last.residual)) * values[..., None, :]
    right, e = scale_to_unit(backend, right)
    target = backend.ldexp(_ACCURACY * tol * backend.norm(last.m), -e)
    shift, scale = _shifts(backend, values, wanted(values, last.bound))
    start = (last.m, last.v, shift[..., None, :], scale, target, xp.zeros_like(right), right, right)
    start = tuple(backend.astype(x, _SINGLE.get(backend.dtype_name(x), backend.dtype_name(x))) for x in start)
    first = _Correction(*start, _squares(backend, start[-1]))
    final: _Correction = backend.loop(lambda c: _cg_step(backend, c), first, _PRODUCTS)
    return backend.ldexp(backend.astype(final.x, kind), broadcast_scalar(e)), _size(backend, final) <= final.target


def _shifts(backend: Backend, values: Array, kept: Array) -> Arrays:
    """D, and 1/S² of the wanted columns, which weights the squares of the residuals of the equation."""
    xp, squares = backend.xp, values**2
    least = backend.eps(values) * squares[..., :1]
    above_rest = xp.maximum(1.2 * squares[..., -1:], least)
    shift = xp.maximum(squares, xp.where(kept, least, above_rest))
    scale = xp.where(kept & (values > 0), 1 / safe_divisor(backend, squares), 0 * squares)
    return safe_divisor(backend, shift), scale


def _cg_step(backend: Backend, c: _Correction) -> tuple[_Correction, Array]:
    xp, p = backend.xp, c.direction
    w = adjoint(c.m) @ (c.m @ p)
    ap = c.shift * p - (w - c.v @ (adjoint(c.v) @ w))
    curvature = xp.sum((p.conj() * ap).real, axis=-2)
    alpha = xp.where(curvature > 0, c.squares / safe_divisor(backend, curvature), 0 * curvature)[..., None, :]
    x, residual = c.x + alpha * p, c.residual - alpha * ap
    squares = _squares(backend, residual)
    beta = squares / safe_divisor(backend, c.squares)
    new = c._replace(x=x, residual=residual, direction=residual + beta[..., None, :] * p, squares=squares)
    return new, _size(backend, new) > c.target


def _size(backend: Backend, c: _Correction) -> Array:
    """The norm of the residual of the wanted columns, in units of R."""
    return backend.xp.sqrt(backend.xp.sum(c.squares * c.scale, axis=-1))


def _squares(backend: Backend, x: Array) -> Array:
    return backend.xp.sum((x.conj() * x).real, axis=-2)
