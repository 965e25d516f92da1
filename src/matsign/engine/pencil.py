"""Matrix pencils on the CPU: QZ for Riccati equations, and what stands in the way of their solution. NumPy stacks in and out.

The extended pencil of a regulator problem (Van Dooren 1981) holds its coefficients as they are: neither r nor e is inverted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy

from matsign.backends import lapack
from matsign.engine.failures import Failure

Array = np.ndarray[Any, Any]


def riccati(
    discrete: bool, a: Array, b: Array, q: Array, r: Array, e: Array | None, s: Array | None
) -> tuple[Array, Array]:
    """(x, whether there is one) of a stack, from the stable deflating subspace of the extended pencil by ordered QZ."""
    out, found = np.full_like(q, np.nan), np.zeros(len(a), bool)
    for k in range(len(a)):
        e_k, s_k = (None if x is None else x[k] for x in (e, s))
        try:
            with lapack.quiet():
                x = _deflate(*_pencil(a[k], b[k], q[k], r[k], e_k, s_k, discrete), e_k, discrete)
        except (np.linalg.LinAlgError, ValueError):  # no ordering, or a basis that cannot be inverted
            continue
        if np.isfinite(x).all():
            out[k], found[k] = (x + x.conj().T) / 2, True
    return out, found


def _pencil(
    a: Array, b: Array, q: Array, r: Array, e: Array | None, s: Array | None, discrete: bool
) -> tuple[Array, Array]:
    """The extended pencil with its inputs projected out: (m, l) of size 2n with m v = λ l v."""
    n, m = b.shape
    e = np.eye(n, dtype=a.dtype) if e is None else e
    s = np.zeros((n, m), a.dtype) if s is None else s
    ah, eh, zero = a.conj().T, e.conj().T, np.zeros_like(a)
    if discrete:
        left = np.block([[a, zero, b], [-q, eh, -s], [s.conj().T, np.zeros((m, n)), r]])
        right = np.block([[e, zero], [zero, ah], [np.zeros((m, n)), -b.conj().T]])
    else:
        left = np.block([[a, zero, b], [-q, -ah, -s], [s.conj().T, b.conj().T, r]])
        right = np.block([[e, zero], [zero, eh], [np.zeros((m, 2 * n))]])
    basis = np.linalg.qr(left[:, 2 * n :], mode="complete")[0][:, m:].conj().T
    return basis @ left[:, : 2 * n], basis @ right


def _deflate(left: Array, right: Array, e: Array | None, discrete: bool) -> Array:
    n = len(left) // 2
    kind = "complex" if np.iscomplexobj(left) else "real"
    *_, z = scipy.linalg.ordqz(left, right, sort="iuc" if discrete else "lhp", output=kind)
    top, bottom = z[:n, :n], z[n:, :n]
    top = top if e is None else e @ top
    return np.linalg.solve(top.conj().T, bottom.conj().T).conj().T


def obstacle(
    discrete: bool, a: Array, b: Array, q: Array, r: Array, e: Array | None, s: Array | None, closed: Array, near: Array
) -> Array:
    """Why there is no stabilising solution, as a `Failure`; 0 where `near` says that x solves the equation, and its closed loop
    is stable but for eigenvalues on the boundary.
    """
    out = np.zeros(len(a), np.int32)
    for k in range(len(a)):
        e_k = np.eye(a.shape[-1], dtype=a.dtype) if e is None else e[k]
        if _flat(np.vstack([r[k], b[k]]).conj().T if discrete else r[k]):
            out[k] = Failure.SINGULAR_R
        elif _flat(e_k):
            out[k] = Failure.SINGULAR_E
        elif _stuck(a[k], b[k], e_k, discrete):
            out[k] = Failure.NOT_STABILISABLE
        elif near[k] and _semi_stable(closed[k], e_k, discrete):
            out[k] = Failure.NONE
        elif _unseen(a[k], b[k], q[k], r[k], e_k, None if s is None else s[k], discrete):
            out[k] = Failure.NOT_DETECTABLE
        elif _pairs_on_boundary(a[k], b[k], q[k], r[k], e_k, None if s is None else s[k], discrete):
            out[k] = Failure.NOT_STABILISING
        else:
            out[k] = Failure.NOT_CONVERGED
    return out


def _pairs_on_boundary(a: Array, b: Array, q: Array, r: Array, e: Array, s: Array | None, discrete: bool) -> bool:
    """Whether the pencil has eigenvalues on the boundary of stability, so that fewer than n are stable."""
    left, right = _pencil(a, b, q, r, e, s, discrete)
    values = _eigenvalues(left, right)
    size = max(float(np.abs(values).max(initial=0)), 1e-300)
    return bool((np.abs(_beyond(values, discrete, size)) < np.finfo(a.dtype).eps ** 0.5).any())


def _beyond(values: Array, discrete: bool, size: float) -> Array:
    """How far eigenvalues lie beyond the boundary of stability; negative inside."""
    return np.abs(values) - 1 if discrete else values.real / size


def _eigenvalues(a: Array, e: Array) -> Array:
    values = scipy.linalg.eigvals(a, e)
    return values[np.isfinite(values)]


def _flat(m: Array) -> bool:
    """Whether the rows of a wide matrix depend on each other, to working precision and whatever their units."""
    sizes = np.linalg.norm(m, axis=1, keepdims=True)
    if not sizes.all():
        return True
    m = m / sizes
    values = np.linalg.svd(m, compute_uv=False)
    return bool(values[-1] <= 4 * len(m) * np.finfo(m.dtype).eps * values[0])


def _stuck(a: Array, b: Array, e: Array, discrete: bool) -> bool:
    """Whether b leaves alone an eigenvalue of (a, e) that is not stable (Hautus 1969)."""
    values = _eigenvalues(a, e)
    size = max(float(np.abs(values).max(initial=0)), 1e-300)
    eps = float(np.finfo(a.dtype).eps)
    unstable = values[_beyond(values, discrete, size) > -(eps**0.5)]
    return any(_flat(np.hstack([a - x * e, b])) for x in unstable)


def _unseen(a: Array, b: Array, q: Array, r: Array, e: Array, s: Array | None, discrete: bool) -> bool:
    """Whether the cost misses an eigenvalue on the boundary of stability."""
    if s is not None:
        gain = np.linalg.lstsq(r, s.conj().T, rcond=None)[0]
        a, q = a - b @ gain, q - s @ gain
    values = _eigenvalues(a, e)
    size = max(float(np.abs(values).max(initial=0)), 1e-300)
    eps = float(np.finfo(a.dtype).eps)
    edge = values[np.abs(_beyond(values, discrete, size)) < eps**0.5]
    return any(_flat(np.vstack([a - x * e, q]).conj().T) for x in edge)


def _semi_stable(closed: Array, e: Array, discrete: bool) -> bool:
    """No eigenvalue beyond the boundary by more than a double one on it moves when it is computed."""
    if not np.isfinite(closed).all():
        return False
    values = _eigenvalues(closed, e)
    size = max(float(np.abs(values).max(initial=0)), 1e-300)
    return bool(_beyond(values, discrete, size).max(initial=-1) < 100 * np.finfo(closed.dtype).eps ** 0.5)


def on_boundary(
    discrete: bool, a: Array, b: Array, q: Array, r: Array, e: Array | None, s: Array | None, closed: Array
) -> Array:
    """Whether a change of the data by rounding puts an eigenvalue of the closed loop on the boundary of stability.

    Such an eigenvalue is double in the pencil of twice the size: the pencil, and not the closed loop, is what must be
    singular there.
    """
    out = np.zeros(len(a), bool)
    for k in range(len(a)):
        e_k = np.eye(a.shape[-1], dtype=a.dtype) if e is None else e[k]
        values = _eigenvalues(closed[k], e_k)
        size = max(float(np.abs(values).max(initial=0)), 1e-300)
        beyond = np.abs(_beyond(values, discrete, size))
        suspects = values[beyond < np.finfo(a.dtype).eps ** 0.25]
        left, right = _pencil(a[k], b[k], q[k], r[k], e_k, None if s is None else s[k], discrete)
        for x in suspects[np.argsort(beyond[beyond < np.finfo(a.dtype).eps ** 0.25])][:3]:
            edge = x / abs(x) if discrete else 1j * x.imag
            singular = np.linalg.svd(left - edge * right, compute_uv=False)
            out[k] |= bool(singular[-1] <= 4 * len(left) * np.finfo(a.dtype).eps * singular[0])
    return out
