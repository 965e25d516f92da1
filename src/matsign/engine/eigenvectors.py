"""Sylvester equations by eigenvectors: fixed shapes and whole batches for every spectrum, which a trace needs.

With a = V L V⁻¹ and b = W M W⁻¹ the equation is a division, y_ij = f_ij / (l_i + m_j). What ill-conditioned eigenvectors spoil,
refinement with a and b themselves repairs. Defective matrices have no such V and W; but matrices near them have, with condition
numbers near 1/√eps, and these solve well enough for the refinement to converge to the solution for a and b.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from matsign.backends import Backend
from matsign.engine import refine
from matsign.engine.linear import adjoint, column, norm, scattered
from matsign.engine.refine import Refined

Array = Any


class Vectors(NamedTuple):
    """Eigenvectors of a and b with their inverses, and the sums of eigenvalues."""

    v: Array
    v_inverse: Array
    w: Array
    w_inverse: Array
    sums: Array


def sylvester(be: Backend, a: Array, b: Array, q: Array, *, disturbed: bool) -> Refined:
    """x by the eigenvectors of a and b with two refinements, or by those of matrices beside them with four."""
    e = _vectors(be, *((_beside(be, a), _beside(be, b)) if disturbed else (a, b)))
    return refine.sylvester(
        be,
        lambda y: _solve(be, e, y),
        lambda y: _adjoint_solve(be, e, y),
        *(a, b, q),
        times=4 if disturbed else 2,
    )


def _vectors(be: Backend, a: Array, b: Array) -> Vectors:
    left, v = be.eig(a)
    right, w = be.eig(b)
    return Vectors(v, be.inv(v), w, be.inv(w), left[:, :, None] + right[:, None, :])


def _beside(be: Backend, a: Array) -> Array:
    """a changed by √eps ‖a‖ at random."""
    n = a.shape[-1]
    return a + column(math.sqrt(be.eps(a)) / n * norm(be, a)) * scattered(be, n, n, a)


def _solve(be: Backend, e: Vectors, q: Array) -> Array:
    """x with a x + x b = q, once; real if q is."""
    f = e.v_inverse @ be.astype(q, be.kind(e.v)) @ e.w
    x = e.v @ (f / e.sums) @ e.w_inverse
    return x if be.is_complex(q) else be.real(x)


def _adjoint_solve(be: Backend, e: Vectors, q: Array) -> Array:
    """x with aᴴ x + x bᴴ = q, once."""
    f = adjoint(e.v) @ be.astype(q, be.kind(e.v)) @ adjoint(e.w_inverse)
    x = adjoint(e.v_inverse) @ (f / e.sums.conj()) @ adjoint(e.w)
    return x if be.is_complex(q) else be.real(x)
