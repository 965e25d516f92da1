"""Squared Smith iteration on factors: z with z zᴴ = Σ cᵏ b bᴴ (cᵏ)ᴴ, the sum itself never formed.

One step of doubling appends c z to z and squares c. Orthogonal transformations then compress z to its numerical rank, which
is small if b has few columns (Penzl 1999; Benner & Quintana-Ortí 1999). z resolves what z zᴴ cannot: relative to the largest,
eps in z is eps² in z zᴴ.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.iterations.smith import limits
from matsign.linalg.stacks import adjoint, broadcast_scalar

# From this size on members are computed one at a time, each with as many columns as it needs.
_LARGE = 64


class Factors(NamedTuple):
    """The factors (B, n, n) with zero columns at the end; steps, convergence and growth as for a `SmithSum`."""

    z: tuple[Array, ...]
    steps: Array
    converged: Array
    growth: Array


def smith_factors(backend: Backend, c: Array, starts: tuple[Array, ...], duals: tuple[bool, ...]) -> Factors:
    """A factor for each start b, with cᴴ in place of c where `duals` is true."""
    if backend.is_traced(c) or c.shape[-1] < _LARGE:
        return _batched_factors(backend, c, starts, duals)
    parts = [_member_factors(backend, c[k : k + 1], tuple(b[k : k + 1] for b in starts), duals) for k in range(len(c))]
    z = tuple(backend.xp.concat(members) for members in zip(*(part.z for part in parts), strict=True))
    return Factors(z, *(backend.xp.concat([part[i] for part in parts]) for i in (1, 2, 3)))


def _batched_factors(backend: Backend, c: Array, starts: tuple[Array, ...], duals: tuple[bool, ...]) -> Factors:
    """All members at once, with n columns each."""
    small, large, limit = _limits(backend, c)

    def step(state: Any) -> Any:
        c, z, steps, size, growth = state
        z = tuple(_triangular(backend, _double(backend, c, x, dual)) for x, dual in zip(z, duals, strict=True))
        c = c @ c
        growth = growth + 2.0**steps * size**2
        size = backend.norm(c)
        return (c, z, steps + 1, size, growth), (size > small) & (size < large)

    one = backend.ones(c)
    start = tuple(_triangular(backend, b) for b in starts)
    c, z, steps, size, growth = backend.loop(step, (c, start, 0 * one, backend.norm(c), one), limit)
    z = tuple(
        principal(backend, _triangular(backend, _double(backend, c, x, dual))) for x, dual in zip(z, duals, strict=True)
    )
    return Factors(z, steps + 1, size <= small, growth + 2.0**steps * size**2)


def _member_factors(backend: Backend, c: Array, starts: tuple[Array, ...], duals: tuple[bool, ...]) -> Factors:
    """One member, with as many columns as its numerical rank."""
    small, large, limit = _limits(backend, c)
    one, n = backend.ones(c), c.shape[-1]
    z = tuple(compress(backend, b) for b in starts)
    size, steps, growth = float(backend.norm(c)[0]), 0, 1.0
    while steps < limit and (steps == 0 or small < size < large):
        z = tuple(compress(backend, _double(backend, c, x, dual)) for x, dual in zip(z, duals, strict=True))
        c = c @ c
        growth += 2.0**steps * size * size
        size, steps = float(backend.norm(c)[0]), steps + 1
    z = tuple(compress(backend, _double(backend, c, x, dual)) for x, dual in zip(z, duals, strict=True))
    z = tuple(_pad(backend, principal(backend, x), n) for x in z)
    return Factors(z, (steps + 1) * one, size * one <= small, (growth + 2.0**steps * size * size) * one)


def _limits(backend: Backend, c: Array) -> tuple[float, float, int]:
    """As for the sum; but there is no other method, so that the powers may grow to 1/eps before they vanish."""
    small, _, limit = limits(backend, c)
    return small, 1 / backend.eps(c), limit


def _double(backend: Backend, c: Array, z: Array, dual: bool) -> Array:
    return backend.xp.concat([z, (adjoint(c) if dual else c) @ z], axis=-1)


def compress(backend: Backend, z: Array, rtol: float = 0.0) -> Array:
    """A factor of z zᴴ: triangular if z has more columns than rows, else one column for each singular value above rounding.

    Or above `rtol` times the largest, if that is more.
    """
    return _triangular(backend, z) if z.shape[-1] > z.shape[-2] else _trim(backend, principal(backend, z, rtol))


def _triangular(backend: Backend, z: Array) -> Array:
    """A triangular factor (B, n, n) of z zᴴ."""
    n = z.shape[-2]
    if z.shape[-1] < n:
        return _pad(backend, z, n)
    return adjoint(backend.xp.linalg.qr(adjoint(zero_nonfinite_members(backend, z)))[1])


def principal(backend: Backend, z: Array, rtol: float = 0.0) -> Array:
    """The factor of z zᴴ with orthogonal columns, the longest first, the largest entry of each real and positive."""
    xp, z = backend.xp, zero_nonfinite_members(backend, z)
    n, k = z.shape[-2:]
    q, r = xp.linalg.qr(z) if k < n else (None, z)
    u, values, _ = backend.svd(r)
    z = (u if q is None else q @ u) * values[:, None, :]
    # A column below rounding is noise.
    z = xp.where((values > max(rtol, backend.eps(z)) * values[:, :1])[:, None, :], z, 0 * z)
    return z * phases(backend, z)


def zero_nonfinite_members(backend: Backend, x: Array) -> Array:
    """Members that hold NaN or infinity replaced by zero, before a call of LAPACK."""
    return backend.xp.where(broadcast_scalar(backend.xp.isfinite(x).all((-1, -2))), x, backend.xp.zeros_like(x))


def phases(backend: Backend, z: Array) -> Array:
    """The number of modulus 1 for each column, ``(B, 1, k)``, that makes its largest entry real and positive."""
    xp = backend.xp
    chosen = backend.eye(z.shape[-2], z)[xp.argmax(xp.abs(z), axis=-2)].mT
    entry = xp.sum(chosen * z, axis=-2, keepdims=True)
    size = xp.abs(entry)
    return xp.where(size > 0, entry.conj() / xp.where(size > 0, size, xp.ones_like(size)), xp.ones_like(entry))


def width(backend: Backend, z: Array) -> int:
    """How many columns are not zero in some member; at least one, so that a member without an answer can hold NaN."""
    if 0 in z.shape:
        return int(z.shape[-1])
    used = (backend.xp.isfinite(z) & (z != 0)).reshape((-1, z.shape[-1])).any(0)
    return max([k + 1 for k, any_here in enumerate(used.tolist()) if any_here], default=min(1, z.shape[-1]))


def _trim(backend: Backend, z: Array) -> Array:
    return z[..., : width(backend, z)]


def _pad(backend: Backend, z: Array, n: int) -> Array:
    """z with n columns: zero columns are added or removed at the end."""
    if z.shape[-1] >= n:
        return z[..., :n]
    return backend.xp.concat([z, backend.zeros((len(z), z.shape[-2], n - z.shape[-1]), z)], axis=-1)
