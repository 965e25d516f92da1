"""References for the tour: the same quantities by other methods, with NumPy and SciPy alone."""

from __future__ import annotations

import numpy as np
import scipy.linalg

from matsign._typing import NDArray as Array


def block(a: Array, c: Array, d: Array, b: Array) -> Array:
    """[[a, c], [d, b]]."""
    return np.block([[a, c], [d, b]])


def antidiagonal(a: Array, b: Array) -> Array:
    """[[0, a], [b, 0]], also for blocks that are not square."""
    return block(np.zeros((len(a), len(a))), a, b, np.zeros((len(b), len(b))))


def by_singular_vectors(m: Array) -> tuple[Array, Array, Array]:
    """U Vᴴ, (MᴴM)^{1/2} and (MMᴴ)^{1/2} from the singular vectors for nonzero singular values."""
    u, s, vh = np.linalg.svd(m, full_matrices=False)
    r = int(np.linalg.matrix_rank(m))
    u, s, vh = u[:, :r], s[:r], vh[:r]
    return u @ vh, (vh.conj().T * s) @ vh, (u * s) @ u.conj().T


def by_eigenvectors(m: Array) -> Array:
    """V sign(Re Λ) V⁻¹."""
    values, vectors = np.linalg.eigh(m) if np.array_equal(m, m.conj().T) else np.linalg.eig(m)
    sign = np.linalg.solve(vectors.T, (vectors * np.sign(values.real)).T).T
    return sign if np.iscomplexobj(m) else np.real(sign)


def power(m: Array, exponent: float) -> Array:
    """M to a real power by its eigenvectors, principal branch."""
    values, vectors = np.linalg.eigh(m) if np.array_equal(m, m.conj().T) else np.linalg.eig(m)
    value = np.linalg.solve(vectors.T, (vectors * values**exponent).T).T
    return value if np.iscomplexobj(m) else np.real(value)


def coupled_root(a: Array, b: Array) -> Array:
    """A (BA)^{-1/2}; for a real, positive definite pair by Cholesky factors, as BA has the square of their condition.

    A = K Kᵀ, B = L Lᵀ, LᵀK = U S Vᵀ give K V S⁻¹ Vᵀ Kᵀ (the balancing of Laub, Heath, Paige & Ward 1987).
    """
    if np.iscomplexobj(a):
        return a @ power(b @ a, -0.5)
    k, low = np.linalg.cholesky(a), np.linalg.cholesky(b)
    _, s, vh = np.linalg.svd(low.T @ k)
    half = k @ vh.T
    return np.asarray((half / s) @ half.T)


def geometric_mean(a: Array, b: Array) -> Array:
    """A # B = K U S Uᵀ Kᵀ with A = K Kᵀ, B = L Lᵀ, K⁻¹L = U S Vᵀ."""
    k, low = np.linalg.cholesky(a), np.linalg.cholesky(b)
    u, s, _ = np.linalg.svd(np.linalg.solve(k, low))
    half = k @ u
    return np.asarray((half * s) @ half.T)


def riccati(a: Array, b: Array, c: Array, d: Array) -> Array:
    """X with X D X + X B - A X - C = 0 from an ordered Schur form, refined by two Newton steps with SciPy's Sylvester solver.

    Without the steps the Schur form loses digits if the equation is badly scaled.
    """
    n, m = c.shape
    _, basis, _ = scipy.linalg.schur(block(a, c, d, b), sort="rhp")
    x = np.linalg.solve(basis[n:, :m].T, basis[:n, :m].T).T
    for _ in range(2):
        gap = x @ d @ x + x @ b - a @ x - c
        x = x - scipy.linalg.solve_sylvester(x @ d - a, b + d @ x, gap)
    return np.asarray(x)
