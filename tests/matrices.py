"""Matrices with given properties, shared by all tests. NumPy in float64 or complex128 unless a dtype is given."""

import numpy as np

DTYPES = ("float32", "float64", "complex64", "complex128")


def is_complex(dtype):
    return np.dtype(dtype).kind == "c"


def gaussian(rng, *shape, dtype="float64"):
    x = rng.standard_normal(shape)
    if is_complex(dtype):
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def adjoint(x):
    return np.swapaxes(x, -1, -2).conj()


def unitary(rng, n, dtype="float64"):
    return np.linalg.qr(gaussian(rng, n, n, dtype=dtype))[0]


def graded(n, condition):
    """n numbers from 1 down to 1 / condition, in equal ratios."""
    return np.geomspace(1.0, 1.0 / condition, n)


def with_singular_values(rng, n, m, values, dtype="float64"):
    k = min(n, m)
    return (unitary(rng, n, dtype)[:, :k] * values) @ unitary(rng, m, dtype)[:k]


def mirrored(rng, n, values, dtype="float64"):
    """A real matrix with these singular values and a negative determinant."""
    m = with_singular_values(rng, n, n, values, dtype)
    return (m if np.linalg.det(m) < 0 else -m if n % 2 else m[::-1]).astype(dtype)


def definite(rng, n, condition=10.0, dtype="float64"):
    """Hermitian positive definite, Hermitian to the last bit."""
    u = unitary(rng, n, dtype)
    x = ((u * graded(n, condition)) @ adjoint(u)).astype(dtype)
    return (x + adjoint(x)) / 2


def similar_hermitian(rng, values):
    """Symmetric to the last bit, with these eigenvalues."""
    u = unitary(rng, len(values))
    h = (u * values) @ u.T
    return (h + h.T) / 2


def similar(rng, core, condition=10.0, dtype=None):
    """V core V⁻¹ with cond(V) = condition: the eigenvalues of `core`, and the nonnormality of V."""
    core = np.atleast_2d(core)
    dtype = dtype or core.dtype
    n = len(core)
    u, s, v = unitary(rng, n, dtype), np.geomspace(1, condition, n), unitary(rng, n, dtype)
    return (u * s) @ (v @ core @ adjoint(v) / s) @ adjoint(u)


def unimodular(rng, n):
    """An integer matrix with an integer inverse, and that inverse: similarities with it are exact."""
    lower, upper = (np.tril(rng.integers(-1, 2, (n, n)), -1) + np.eye(n) for _ in range(2))
    p = lower @ upper.T
    return p, np.linalg.inv(p).round()


def exactly_similar(rng, core):
    """P core P⁻¹ without any rounding, for a `core` of small integers, and the map to apply to its sign."""
    p, inverse = unimodular(rng, len(core))
    return p @ core @ inverse, lambda x: p @ x @ inverse


def jordan(eigenvalue, n):
    return eigenvalue * np.eye(n) + np.eye(n, k=1)


def rotation(real, imag):
    """The real 2 × 2 matrix with eigenvalues real ± i imag."""
    return np.array([[real, -imag], [imag, real]], float)


def block_diagonal(*blocks):
    blocks = [np.atleast_2d(b) for b in blocks]
    n = sum(len(b) for b in blocks)
    out, k = np.zeros((n, n), np.result_type(*blocks)), 0
    for b in blocks:
        out[k : k + len(b), k : k + len(b)] = b
        k += len(b)
    return out


def stable(rng, n, dtype="float64", distance=0.5, condition=10.0):
    """A nonnormal matrix with its spectrum at least `distance` inside the right half plane."""
    values = distance + rng.random(n) + (1j * rng.standard_normal(n) if is_complex(dtype) else 0)
    return similar(rng, np.diag(values), condition, dtype).astype(dtype)


def contraction(rng, n, dtype="float64", radius=0.8, condition=10.0):
    """A nonnormal matrix with its spectrum within `radius` of zero, one eigenvalue at that distance."""
    values = radius * (1 - 0.9 * np.arange(n) / max(n, 1)) * np.where(np.arange(n) % 2, -1, 1)
    if is_complex(dtype):
        values = values * np.exp(2j * np.pi * rng.random(n))
    return similar(rng, np.diag(values), condition, dtype).astype(dtype)


def splitting(rng, n, dtype="float64", condition=10.0):
    """A nonnormal matrix with eigenvalues on both sides of the imaginary axis, none near it."""
    values = (0.5 + rng.random(n)) * np.where(np.arange(n) % 2, -1, 1)
    if is_complex(dtype):
        values = values + 1j * rng.standard_normal(n)
    return similar(rng, np.diag(values), condition, dtype).astype(dtype)


def transfer(s, a, b, c, d=0):
    """The transfer function of a model at s."""
    return c @ np.linalg.solve(s * np.eye(len(a)) - a, b) + d
