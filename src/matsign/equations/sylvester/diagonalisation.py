"""Sylvester equations by eigenvectors: fixed shapes and whole batches for every spectrum, which a trace needs.

With a = V L V⁻¹ and b = W M W⁻¹ the equation is a division, y_ij = f_ij / (l_i + m_j). What ill-conditioned eigenvectors spoil,
refinement with a and b themselves repairs. Defective matrices have no such V and W; but matrices near them have, with condition
numbers near 1/√eps, and these solve well enough for the refinement to converge to the solution for a and b.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations import refinement
from matsign.iterations.refinement import RefinedSolution
from matsign.linalg.stacks import adjoint, broadcast_scalar, random_probe

# Powers of eps that a and b are changed by: the larger leaves the better eigenvectors, the smaller an equation nearer to one
# that is itself nearly singular.
_CHANGES = (0.5, 0.7)


class Vectors(NamedTuple):
    """Eigenvectors of a and b with their inverses, and the sums of eigenvalues."""

    v: Array
    v_inverse: Array
    w: Array
    w_inverse: Array
    sums: Array


def sylvester(backend: Backend, a: Array, b: Array, q: Array, enough: float) -> RefinedSolution:
    """x by the eigenvectors of a and b; where its error is not below `enough`, by those of matrices beside them."""
    e = _vectors(backend, a, b)
    # An equation is no further from a singular one than a is from sharing an eigenvalue with -b.
    nearest = backend.xp.min(backend.xp.abs(e.sums), axis=(-1, -2))
    found = _by(backend, e, a, b, q, 2)
    for change in _CHANGES:
        found = backend.masked_cond(
            ~(found.error < enough),
            functools.partial(_beside, backend, backend.eps(a) ** change),
            lambda a, b, q, *found: RefinedSolution(*found),
            *(a, b, q, *found),
        )
    return found._replace(separation=backend.xp.minimum(found.separation, nearest))


def _beside(backend: Backend, size: float, a: Array, b: Array, q: Array, *found: Array) -> RefinedSolution:
    """By the eigenvectors of a and b with random changes of this size, if that is better than what was found before."""
    new = _by(backend, _vectors(backend, _perturb(backend, a, size), _perturb(backend, b, size)), a, b, q, 4)
    better = ~(found[1] <= new.error)
    return RefinedSolution(
        *(
            backend.xp.where(better[:, None, None] if x.ndim == 3 else better, x, y)
            for x, y in zip(new, found, strict=True)
        )
    )


def _perturb(backend: Backend, a: Array, size: float) -> Array:
    n = a.shape[-1]
    return a + broadcast_scalar(size / n * backend.norm(a)) * random_probe(backend, n, n, a)


def _by(backend: Backend, e: Vectors, a: Array, b: Array, q: Array, times: int) -> RefinedSolution:
    return refinement.sylvester(
        backend, lambda y: _solve(backend, e, y), lambda y: _adjoint_solve(backend, e, y), a, b, q, times
    )


def _vectors(backend: Backend, a: Array, b: Array) -> Vectors:
    left, v = backend.eig(a)
    right, w = backend.eig(b)
    return Vectors(v, backend.inv(v), w, backend.inv(w), left[:, :, None] + right[:, None, :])


def _solve(backend: Backend, e: Vectors, q: Array) -> Array:
    """x with a x + x b = q, once; real if q is."""
    f = e.v_inverse @ backend.astype(q, backend.dtype_name(e.v)) @ e.w
    x = e.v @ (f / e.sums) @ e.w_inverse
    return x if backend.is_complex(q) else x.real


def _adjoint_solve(backend: Backend, e: Vectors, q: Array) -> Array:
    """x with aᴴ x + x bᴴ = q, once."""
    f = adjoint(e.v) @ backend.astype(q, backend.dtype_name(e.v)) @ adjoint(e.w_inverse)
    x = adjoint(e.v_inverse) @ (f / e.sums.conj()) @ adjoint(e.w)
    return x if backend.is_complex(q) else x.real
