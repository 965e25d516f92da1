"""Tests of condition numbers in the 2-norm, by bounds that need products alone."""

from __future__ import annotations

from collections.abc import Callable

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, all_false, broadcast_scalar, safe_divisor, trace


def largest_eigenvalue_bound(backend: Backend, a: Array) -> Array:
    """A bound on the largest eigenvalue of a positive semidefinite matrix, from the means of all and of their squares."""
    xp, k = backend.xp, a.shape[-1]
    mean, size = trace(backend, a).real / k, backend.norm(a)
    return mean + xp.sqrt((k - 1) * xp.maximum(size * size / k - mean * mean, xp.zeros_like(mean)))


def spectral_norm_bound(backend: Backend, x: Array) -> Array:
    """An upper bound on the 2-norm of square matrices, by two products; on most spectra at most 1.6 times too large."""
    size = backend.norm(x)
    x = x / broadcast_scalar(safe_divisor(backend, size))
    gram = adjoint(x) @ x
    return size * backend.xp.sqrt(backend.xp.sqrt(largest_eigenvalue_bound(backend, gram @ gram)))


def is_well_conditioned(
    backend: Backend, condition: Array, limit: float, pair: Callable[..., tuple[Array, Array]], *arrays: Array
) -> Array:
    """Which members have ‖x‖ ‖y‖ limit < 1 in the 2-norm, for (x, y) = pair(*arrays) of size n × n.

    `condition` is ‖x‖ ‖y‖ in the Frobenius norm, at most n times that in the 2-norm: in single precision it exceeds every limit
    for n above some hundreds. The bounds in the 2-norm are computed only where it does not decide.
    """

    def in_spectral_norm(*arrays: Array) -> Array:
        x, y = pair(*arrays)
        return spectral_norm_bound(backend, x) * spectral_norm_bound(backend, y) * limit < 1

    bounded = condition * limit < 1
    undecided = ~bounded & (condition * limit < arrays[0].shape[-1])
    return bounded | backend.masked_cond(
        undecided, in_spectral_norm, lambda *arrays: all_false(backend, arrays[0]), *arrays
    )
