"""Sylvester equations a x + x b = q by eigenvectors: batched, with fixed shapes for every spectrum, as traced programs need.

With a = V L V⁻¹ and b = W M W⁻¹ the equation is a division, y_ij = f_ij / (l_i + m_j). Iterative refinement with a and b
corrects the errors of ill-conditioned eigenvectors. For defective matrices, V and W are those of slightly perturbed matrices;
their condition numbers are near 1/√eps, which is good enough for the refinement to converge.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations import refinement
from matsign.iterations.refinement import RefinedSolution
from matsign.linalg.stacks import adjoint, broadcast_scalar, random_probe

# Exponents p of the relative perturbation eps^p of a and b: 0.5 gives better conditioned eigenvectors, 0.7 a smaller change
# of the equation, for nearly singular equations.
_PERTURBATION_POWERS = (0.5, 0.7)


class _Eigenvectors(NamedTuple):
    """Eigenvectors of a and b with their inverses, and the sums of eigenvalues."""

    v: Array
    v_inverse: Array
    w: Array
    w_inverse: Array
    sums: Array


def sylvester(backend: Backend, a: Array, b: Array, q: Array, tolerance: float) -> RefinedSolution:
    """x by the eigenvectors of a and b; where its error is not below `tolerance`, by those of perturbed matrices."""
    e = _eigenvectors(backend, a, b)
    # The separation is at most the smallest |λ(a) + λ(b)|.
    nearest = backend.xp.min(backend.xp.abs(e.sums), axis=(-1, -2))
    best = _refine_with(backend, e, a, b, q, 2)
    for change in _PERTURBATION_POWERS:
        best = backend.masked_cond(
            ~(best.error < tolerance),
            functools.partial(_with_perturbed_eigenvectors, backend, backend.eps(a) ** change),
            lambda a, b, q, *best: RefinedSolution(*best),
            *(a, b, q, *best),
        )
    return best._replace(separation=backend.xp.minimum(best.separation, nearest))


def _with_perturbed_eigenvectors(
    backend: Backend, size: float, a: Array, b: Array, q: Array, *old: Array
) -> RefinedSolution:
    """x by the eigenvectors of a and b perturbed at random by `size`, in members where it is better than `old`."""
    new = _refine_with(
        backend, _eigenvectors(backend, _perturb(backend, a, size), _perturb(backend, b, size)), a, b, q, 4
    )
    better = ~(old[1] <= new.error)
    return RefinedSolution(
        *(
            backend.xp.where(better[:, None, None] if x.ndim == 3 else better, x, y)
            for x, y in zip(new, old, strict=True)
        )
    )


def _perturb(backend: Backend, a: Array, size: float) -> Array:
    n = a.shape[-1]
    return a + broadcast_scalar(size / n * backend.norm(a)) * random_probe(backend, n, n, a)


def _refine_with(backend: Backend, e: _Eigenvectors, a: Array, b: Array, q: Array, times: int) -> RefinedSolution:
    return refinement.sylvester(
        backend, lambda y: _solve(backend, e, y), lambda y: _adjoint_solve(backend, e, y), a, b, q, times
    )


def _eigenvectors(backend: Backend, a: Array, b: Array) -> _Eigenvectors:
    left, v = backend.eig(a)
    right, w = backend.eig(b)
    return _Eigenvectors(v, backend.inv(v), w, backend.inv(w), left[:, :, None] + right[:, None, :])


def _solve(backend: Backend, e: _Eigenvectors, q: Array) -> Array:
    """x with a x + x b = q, without refinement; real if q is."""
    f = e.v_inverse @ backend.astype(q, backend.dtype_name(e.v)) @ e.w
    x = e.v @ (f / e.sums) @ e.w_inverse
    return x if backend.is_complex(q) else x.real


def _adjoint_solve(backend: Backend, e: _Eigenvectors, q: Array) -> Array:
    """x with aᴴ x + x bᴴ = q, without refinement; real if q is."""
    f = adjoint(e.v) @ backend.astype(q, backend.dtype_name(e.v)) @ adjoint(e.w_inverse)
    x = adjoint(e.v_inverse) @ (f / e.sums.conj()) @ adjoint(e.w)
    return x if backend.is_complex(q) else x.real
