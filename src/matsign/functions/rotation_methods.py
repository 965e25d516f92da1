"""How the nearest rotation is computed: by singular vectors, with a choice where several rotations are nearest."""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye

# Completions whose distances from the identity differ by less than this, relative, count as equally near to it.
_EQUALLY_NEAR = 1e-6


def by_svd(backend: Backend, m: Array, zero: float) -> Array:
    """The rotations nearest to these matrices; singular values of at most `zero` times the largest one are zero."""
    u, values, vh = backend.svd(m)
    d = backend.xp.sign(backend.xp.linalg.det(u @ vh))
    if m.shape[-1] == 1:
        return _reflected(backend, u, d) @ vh
    null = backend.astype(values <= zero * values[:, :1], backend.dtype_name(m))
    return backend.rare_cond(
        null[:, -2] > 0,
        lambda u, null, vh, d: _completed(backend, u, null, vh, d),
        lambda u, null, vh, d: _reflected(backend, u, d) @ vh,
        *(u, null, vh, d),
    )


def _reflected(backend: Backend, u: Array, d: Array) -> Array:
    """U diag(1, …, 1, d)."""
    return u * backend.xp.concat([backend.xp.ones_like(u[:, 0, 1:]), d[:, None]], axis=-1)[:, None, :]


def _completed(backend: Backend, u: Array, null: Array, vh: Array, d: Array) -> Array:
    """The rotation nearest to I among those nearest to U S Vᵀ, where `null` has 1 for the zeros of S, at least two, and else 0.

    They are U Ω Vᵀ with Ω = diag(I, Ω₀) and det Ω = d, and tr(U Ω Vᵀ) = tr(Ωᵀ UᵀV): Ω₀ is the matrix of this determinant that is
    nearest to the block of UᵀV. Where several are, as for opposite vectors, a matrix K near I with different eigenvalues decides.
    """
    kept = eye(backend, u) * (2 - 2 * null)[:, None, :]  # more than the singular values of UᵀV, and so never reflected

    def turn(target: Array, d: Array) -> tuple[Array, Array]:
        """Ω, and by how much less tr(ΩᵀUᵀV) the second best Ω has, halved."""
        left, values, right = backend.svd(target)
        sign = d * backend.xp.sign(backend.xp.linalg.det(left @ right))
        return _reflected(backend, left, sign) @ right, values[:, -2] + sign * values[:, -1]

    def block(x: Array) -> Array:
        return kept + null[:, :, None] * x * null[:, None, :]

    k = eye(backend, u) * (1 - backend.xp.cumsum(backend.xp.ones_like(u[:, :1, :]), axis=-1) / (4 * u.shape[-1]))
    omega, margin = turn(block(adjoint(u) @ adjoint(vh)), d)
    decided, _ = turn(block(adjoint(u) @ k @ adjoint(vh)), d)
    omega = backend.xp.where(broadcast_scalar(margin < _EQUALLY_NEAR), decided, omega)
    return u @ omega @ vh
