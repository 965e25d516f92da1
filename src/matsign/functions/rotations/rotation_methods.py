"""How the nearest orthogonal matrix or rotation is computed: by singular vectors, with a choice where several are nearest.

Stacks of 3 × 3 matrices have a faster way where their rotations are unique (`rotation_closed_form`).
"""

from __future__ import annotations

from matsign._typing import Array
from matsign.backends import Backend
from matsign.functions.rotations.rotation_closed_form import nearest_in_closed_form
from matsign.linalg.stacks import adjoint, broadcast_scalar, eye

# Completions whose distances from the identity differ by less than this, relative, count as equally near to it.
_EQUALLY_NEAR = 1e-6

# A larger `rtol` may count values as zero that the closed formula takes as they are.
_SMALL_RTOL = 1e-6


def nearest_rotations(backend: Backend, m: Array, zero: float) -> Array:
    """The rotations nearest to these matrices of entries up to 1, in double precision."""
    if backend.name != "numpy" or m.shape[-1] != 3 or zero > _SMALL_RTOL:
        return nearest_by_svd(backend, m, zero, rotation=True)
    r, right = nearest_in_closed_form(m)
    if not right.all():
        r[~right] = nearest_by_svd(backend, m[~right], zero, rotation=True)
    return r


def nearest_by_svd(backend: Backend, m: Array, zero: float, *, rotation: bool) -> Array:
    """The unitary matrices nearest to these, with `rotation` of determinant 1, which is for real ones.

    Singular values of at most `zero` times the largest one are zero. Where they leave a choice, it is the one nearest to I.
    """
    u, values, vh = backend.svd(m)
    d = _determinant(backend, u @ vh) if rotation else backend.ones(m)
    null = backend.astype(values <= zero * values[:, :1], backend.dtype_name(m))
    choices = 2 if rotation else 1
    if m.shape[-1] < choices:
        return _reflect(backend, u, d) @ vh
    return backend.rare_cond(
        null[:, -choices].real > 0,
        lambda u, null, vh, d: _complete(backend, u, null, vh, d, rotation=rotation),
        lambda u, null, vh, d: _reflect(backend, u, d) @ vh,
        *(u, null, vh, d),
    )


def _determinant(backend: Backend, q: Array) -> Array:
    """The determinant of an orthogonal matrix, 1 or -1."""
    return backend.xp.sign(backend.xp.linalg.det(q))


def _reflect(backend: Backend, u: Array, d: Array) -> Array:
    """U diag(1, …, 1, d)."""
    return u * backend.xp.concat([backend.xp.ones_like(u[:, 0, 1:]), d[:, None]], axis=-1)[:, None, :]


def _complete(backend: Backend, u: Array, null: Array, vh: Array, d: Array, *, rotation: bool) -> Array:
    """The matrix nearest to I among those nearest to U S Vᴴ, where `null` has 1 for the zeros of S and else 0.

    They are U Ω Vᴴ with Ω = diag(I, Ω₀), for rotations det Ω = d, and tr(U Ω Vᴴ) = tr((UᴴV)ᴴ Ω): Ω₀ is the matrix of this kind
    that is nearest to the block of UᴴV. Where several are, as for opposite vectors, a matrix K near I with different eigenvalues
    decides.
    """
    kept = eye(backend, u) * (2 - 2 * null)[:, None, :]  # more than the singular values of UᴴV, and so never reflected

    def turn(target: Array, d: Array) -> tuple[Array, Array]:
        """Ω, and by how much less Re tr((UᴴV)ᴴ Ω) the second best Ω has, halved."""
        left, values, right = backend.svd(target)
        if not rotation:
            return left @ right, values[:, -1]
        sign = d * _determinant(backend, left @ right)
        return _reflect(backend, left, sign) @ right, values[:, -2] + sign * values[:, -1]

    def block(x: Array) -> Array:
        return kept + null[:, :, None] * x * null[:, None, :]

    k = eye(backend, u) * (1 - backend.xp.cumsum(backend.xp.ones_like(u[:, :1, :]), axis=-1) / (4 * u.shape[-1]))
    omega, margin = turn(block(adjoint(u) @ adjoint(vh)), d)
    decided, _ = turn(block(adjoint(u) @ k @ adjoint(vh)), d)
    omega = backend.xp.where(broadcast_scalar(margin < _EQUALLY_NEAR), decided, omega)
    return u @ omega @ vh
