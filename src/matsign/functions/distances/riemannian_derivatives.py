"""The gradients G and H of d², as an operation that can be differentiated to any order; `riemannian_methods` has the formulas."""

from __future__ import annotations

from typing import NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.functions.distances.riemannian_methods import Pair, Spectrum, in_units, or_identity, spectrum, units
from matsign.functions.powers.power_derivatives import frechet_derivative, power_inside
from matsign.functions.powers.square_roots import SQRTM_PAIR
from matsign.linalg.equilibration import rescale
from matsign.linalg.scalar_powers import LOGARITHM
from matsign.linalg.stacks import adjoint, broadcast_scalar, hermitian


def gradients(backend: Backend, arrays: Arrays) -> Arrays:
    """(G, H)."""
    return apply(backend, _GRADIENTS, *arrays)


def gradients_in_units(backend: Backend, p: Pair, s: Spectrum) -> Arrays:
    """G and H for the scaled A and B of a pair."""
    logs = (s.logs + p.shift(backend)[:, None])[:, None, :]
    return -2 * (s.v * logs) @ adjoint(s.v), 2 * (s.w * logs) @ adjoint(s.w)


def _solve_gradients(backend: Backend, a: Array, b: Array) -> Solution:
    p = in_units(backend, a, b)
    good = p.definite(backend, 0.0)
    p, kind = or_identity(backend, p, good[0] & good[1]), backend.dtype_name(a)
    pairs = zip(gradients_in_units(backend, p, spectrum(backend, p)), (p.ea, p.eb), strict=True)
    out = (backend.ldexp(rescale(backend, g, p.u, p.u), broadcast_scalar(-e)) for g, e in pairs)
    return solution(backend, tuple(backend.astype(hermitian(g), kind) for g in out))


class _Whitened(NamedTuple):
    """A^{-1/2}, Y and log Y."""

    root: Array
    y: Array
    log: Array

    def inward(self, x: Array) -> Array:
        return self.root @ x @ self.root


def _whiten(backend: Backend, a: Array, b: Array) -> _Whitened:
    _, root = apply(backend, SQRTM_PAIR.operation, hermitian(a), rtol=None, method="auto")
    y = root @ b @ root
    # The value of an exactly Hermitian matrix, and the derivative of the product.
    fixed = backend.stop_gradient(y)
    y = hermitian(fixed) + (y - fixed)
    return _Whitened(root, y, power_inside(backend, y, power=LOGARITHM, rtol=None))


def _symmetric(x: Array, y: Array) -> Array:
    return (x @ y + y @ x) / 2


def _half_tangent(backend: Backend, f: _Whitened, da: Array, db: Array) -> Array:
    """dP."""
    e = f.inward(da)
    inside = frechet_derivative(backend, f.y, f.inward(db) - _symmetric(e, f.y), power=LOGARITHM, rtol=None)
    return f.inward(inside - _symmetric(e, f.log))


def _half_cotangent(backend: Backend, f: _Whitened, bar: Array) -> Arrays:
    """The adjoint of `_half_tangent`."""
    z = f.inward(bar)
    bar_y = frechet_derivative(backend, f.y, z, power=LOGARITHM, rtol=None)
    return f.inward(-_symmetric(bar_y, f.y) - _symmetric(z, f.log)), f.inward(bar_y)


def _scale(backend: Backend, arrays: Arrays) -> tuple[Array, Array, Array]:
    """A and B in units of rows and columns, and the exponents of these."""
    a, b = arrays
    u = units(backend, *(backend.stop_gradient(x) for x in arrays))
    return hermitian(rescale(backend, a, u, u)), hermitian(rescale(backend, b, u, u)), u


def _gradients_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    a, b, u = _scale(backend, arrays)
    da, db = (hermitian(rescale(backend, x, u, u)) for x in tangents)
    steps = (
        _half_tangent(backend, _whiten(backend, a, b), da, db),
        _half_tangent(backend, _whiten(backend, b, a), db, da),
    )
    return tuple(-2 * rescale(backend, x, u, u) for x in steps)


def _gradients_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    a, b, u = _scale(backend, arrays)
    bar_g, bar_h = (-2 * hermitian(rescale(backend, x, u, u)) for x in cotangents)
    of_a, of_b = _half_cotangent(backend, _whiten(backend, a, b), bar_g)
    from_b, from_a = _half_cotangent(backend, _whiten(backend, b, a), bar_h)
    return tuple(rescale(backend, hermitian(x), u, u) for x in (of_a + from_a, of_b + from_b))


_GRADIENTS = Operation(
    "gradients of the squared Riemannian distance",
    shapes_of("(n,n),(n,n)"),
    shapes_of("(n,n),(n,n)"),
    solve=_solve_gradients,
    tangent=_gradients_tangent,
    cotangent=_gradients_cotangent,
)
