"""Direct methods in the dtype of the input, with which accuracy is compared."""

import numpy as np
import scipy.linalg as sl

from matrices import adjoint


def sign_by_eigenvectors(m):
    values, v = sl.eig(m)
    return _like((v * np.sign(values.real)) @ sl.inv(v), m)


def sign_by_schur(m):
    """Ordered Schur form [[T₁, T₁₂], [0, T₂]], left half plane first, and a Sylvester equation for the corner."""
    t, z, k = sl.schur(m, output="complex", sort="lhp")
    s = np.eye(len(m), dtype=t.dtype)
    s[:k, :k] *= -1
    s[:k, k:] = 2 * sl.solve_sylvester(t[:k, :k], -t[k:, k:], -t[:k, k:]) if 0 < k < len(m) else s[:k, k:]
    return _like(z @ s @ adjoint(z), m)


def sign_by_eigh(m):
    values, v = sl.eigh(m)
    return (v * np.sign(values)) @ adjoint(v)


def msign_by_svd(m, rtol=None):
    u, s, vh = sl.svd(m, full_matrices=False)
    rtol = max(m.shape) * np.finfo(m.dtype).eps if rtol is None else rtol
    return (u * (s > rtol * s[:1])) @ vh


def nearest_rotation_by_svd(m):
    u, _, vh = sl.svd(m)
    u[:, -1] *= sl.det(u @ vh)
    return u @ vh


def mclip_by_svd(m, lower, upper):
    u, s, vh = sl.svd(m, full_matrices=False)
    return (u * s.clip(lower, upper)) @ vh


def soft_threshold_by_svd(m, t):
    u, s, vh = sl.svd(m, full_matrices=False)
    return (u * (s - t).clip(0)) @ vh


def psd_by_eigh(a):
    values, v = sl.eigh((a + adjoint(a)) / 2)
    return (v * values.clip(0)) @ adjoint(v)


def root_by_eigh(a):
    values, v = sl.eigh(a)
    return (v * np.sqrt(values)) @ adjoint(v)


def inverse_root_by_eigh(a):
    values, v = sl.eigh(a)
    return (v / np.sqrt(values)) @ adjoint(v)


def power_by_scipy(a, t):
    return _like(sl.fractional_matrix_power(a, t), a)


def logarithm_by_scipy(a):
    return _like(sl.logm(a), a)


def root_by_schur(a):
    return _like(sl.sqrtm(a), a)


def sylvester_by_kronecker(a, b, q):
    n, m = q.shape
    k = np.kron(a, np.eye(m, dtype=q.dtype)) + np.kron(np.eye(n, dtype=q.dtype), b.T)
    return sl.solve(k, q.reshape(-1)).reshape(n, m)


def lyapunov_by_kronecker(a, q):
    return sylvester_by_kronecker(a, adjoint(a), q)


def discrete_sylvester_by_kronecker(a, b, q):
    k = np.eye(q.size, dtype=q.dtype) - np.kron(a, b.T)
    return sl.solve(k, q.reshape(-1)).reshape(q.shape)


def generalized_sylvester_by_kronecker(a, b, c, d, q):
    return sl.solve(np.kron(a, b.T) + np.kron(c, d.T), q.reshape(-1)).reshape(q.shape)


def sylvester_pair_by_kronecker(a, b, c, d, e, f):
    n, m = c.shape
    one, other = np.eye(n, dtype=c.dtype), np.eye(m, dtype=c.dtype)
    k = np.block([[np.kron(a, other), -np.kron(one, b.T)], [np.kron(d, other), -np.kron(one, e.T)]])
    z = sl.solve(k, np.vstack([c, f]).reshape(-1)).reshape(2 * n, m)
    return z[:n], z[n:]


def stein_by_kronecker(a, q):
    k = np.eye(q.size, dtype=q.dtype) - np.kron(a, a.conj())
    return sl.solve(k, q.reshape(-1)).reshape(q.shape)


def principal_factor(x):
    """Eigenvectors times roots of the eigenvalues, the longest first, the largest entry of each real and positive."""
    values, v = sl.eigh(x)
    v = v[:, ::-1]
    top = v[np.abs(v).argmax(axis=0), range(len(v))]
    return v * (top.conj() / np.abs(top)) * np.sqrt(np.maximum(values[::-1], 0))


def gramian_by_kronecker(a, b):
    return lyapunov_by_kronecker(a, -b @ adjoint(b))


def discrete_gramian_by_kronecker(a, b):
    return stein_by_kronecker(a, b @ adjoint(b))


def lyapunov_factor_by_kronecker(a, b):
    x = gramian_by_kronecker(a, b)
    return principal_factor((x + adjoint(x)) / 2)


def stein_factor_by_kronecker(a, b):
    x = discrete_gramian_by_kronecker(a, b)
    return principal_factor((x + adjoint(x)) / 2)


def riccati_factor_by_schur(a, b, c):
    """By a stable subspace of the Hamiltonian matrix."""
    h = np.block([[a, -b @ adjoint(b)], [-adjoint(c) @ c, -adjoint(a)]])
    _, u, n = sl.schur(h, output="complex", sort="lhp")
    x = _like(u[n:, :n] @ sl.inv(u[:n, :n]), a)
    return principal_factor((x + adjoint(x)) / 2)


def riccati_by_eigenvectors(a, b, c, d):
    values, v = sl.eig(np.block([[a, c], [d, b]]))
    v = v[:, values.real > 0]
    return _like(v[: len(a)] @ sl.inv(v[len(a) :]), c)


def riccati_by_schur(a, b, c, d):
    _, z, k = sl.schur(np.block([[a, c], [d, b]]), output="complex", sort="rhp")
    return _like(z[: len(a), :k] @ sl.inv(z[len(a) :, :k]), c)


def differential_riccati(a, b, q, r, xf, t):
    """By the exponential of the Hamiltonian matrix, for short times."""
    m = np.block([[-a, b @ sl.solve(r, adjoint(b))], [q, adjoint(a)]])
    z = sl.expm(t * m) @ np.concatenate([np.eye(len(a)), xf])
    return _like(z[len(a) :] @ sl.inv(z[: len(a)]), a)


def _like(x, m):
    return x if np.iscomplexobj(m) else x.real.astype(m.dtype)
