"""How spectral projectors are computed: by the sign of M - at I, or by the eigenvectors of the lowest eigenvalues.

With an overlap S = L Lᴴ the eigenvalues are those of the pencil (M, S), that is of K = L⁻¹ M L⁻ᴴ. The projector Π for K gives

    D = L⁻ᴴ Π L⁻¹,      D S D = D,      S D M = M D S.

For Hermitian M this is the sum of c cᴴ over the eigenvectors M c = λ S c on that side, cᴴ S c = 1.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, as_details, overflow_failure, solution
from matsign.core.options import short_repr
from matsign.core.tolerances import rank_tolerance
from matsign.functions.sign.methods import PROJECTORS, sign
from matsign.linalg.balancing import entry_sizes
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    is_hermitian,
    is_nearly_hermitian,
    scale_to_unit,
)

Line = Any  # None for the imaginary axis, or a stack (B,) of the real parts of lines


def check_line(*, at: Any = None, lowest: Any, half_plane: str | None, method: str, **_: Any) -> None:
    """Raise for options that do not fit together."""
    if lowest is None:
        return
    if at is not None:
        raise ValueError("spectral_projector: lowest finds the line by itself; give either at or lowest")
    if half_plane == "right":
        raise ValueError('spectral_projector: the lowest eigenvalues are those of half_plane="left", got "right"')
    if method not in ("auto", "eigh"):
        raise ValueError(f'spectral_projector: lowest needs method="eigh" or "auto", got {method!r}')
    if isinstance(lowest, bool) or not isinstance(lowest, int):
        raise ValueError(f"spectral_projector: lowest must be a whole number, got {short_repr(lowest)}")


def check_count(known: dict[str, int], *, lowest: int | None, **_: Any) -> dict[str, int]:
    """Raise a ValueError for a number of eigenvalues that M does not have; no size depends on it."""
    n = known["n"]
    if lowest is not None and not 0 <= lowest <= n:
        raise ValueError(f"spectral_projector: lowest must be a whole number from 0 to {n}, got {lowest!r}")
    return {}


def side(lowest: int | None, half_plane: str | None) -> str:
    """The half plane that is meant: the left one for the lowest eigenvalues, else by default the right one."""
    return half_plane or ("right" if lowest is None else "left")


def solve_projector(
    backend: Backend,
    m: Array,
    overlap: Array | None,
    *,
    lowest: int | None,
    half_plane: str | None,
    at: Line = None,
    **options: Any,
) -> Solution:
    def project(m: Array, at: Line) -> Solution:
        if lowest is not None:
            return _lowest(backend, m, lowest, options["rtol"])
        return _beside_line(backend, m, at, side(lowest, half_plane), **options)

    if overlap is None:
        return project(m, at)
    pencil = Pencil.of(backend, m, hermitian(overlap), at)
    t, indefinite = orthonormal_basis(backend, pencil.overlap)
    result = project(orthonormalise(backend, t, pencil.m), pencil.at)
    d = adjoint(t) @ result.value[0] @ t
    d = backend.xp.where(broadcast_scalar(is_hermitian(m)), hermitian(d), d)
    d = pencil.outward(backend, d)
    result = result._replace(
        value=(d,),
        failure=overflow_failure(backend, d, result.failure),
        detail=backend.ldexp(result.detail, pencil.k[:, None]),
    )
    return mark_overlap(backend, result, pencil.overlap, indefinite)


def _beside_line(backend: Backend, m: Array, at: Line, half_plane: str, **options: Any) -> Solution:
    if at is None:
        return sign(backend, m, of=PROJECTORS[half_plane], **options)
    at = at * backend.ones(m)
    known = backend.xp.isfinite(at)
    line = backend.xp.where(known, at, backend.xp.zeros_like(at))
    result = sign(backend, shift_to_axis(backend, m, line), of=PROJECTORS[half_plane], **options)
    failure = result.failure
    for of_sign, of_line in ((Failure.AXIS, Failure.ON_LINE), (Failure.UNDECIDED_ZERO, Failure.NEAR_LINE)):
        failure = of_line.where(backend, failure == int(of_sign), failure)
    failure = Failure.NOT_A_LINE.where(backend, ~known, failure)
    named = (failure == int(Failure.ON_LINE)) | (failure == int(Failure.NEAR_LINE)) | ~known
    detail = backend.xp.where(named[:, None], as_details(backend, m, at), result.detail)
    return result._replace(failure=failure, detail=detail)


def shift_to_axis(backend: Backend, m: Array, at: Line) -> Array:
    """M - at I, or half of it where that overflows: the projector does not depend on the scale."""
    if at is None:
        return m
    line = broadcast_scalar(at) * eye(backend, m)
    shifted = m - line
    finite = broadcast_scalar(backend.xp.isfinite(shifted).all((-1, -2)))
    return backend.xp.where(finite, shifted, m / 2 - line / 2)


def _lowest(backend: Backend, m: Array, count: int, rtol: float | None) -> Solution:
    """By eigenvectors; fails for members whose eigenvalues on both sides are equal to working precision."""
    n, wrong = m.shape[-1], ~is_nearly_hermitian(backend, m)
    check_count({"n": n}, lowest=count)
    m, e = scale_to_unit(backend, m)
    values, vectors = backend.eigh(hermitian(m))
    occupied = vectors[:, :, :count]
    result = solution(backend, (hermitian(occupied @ adjoint(occupied)),))
    if count in (0, n):
        return result._replace(failure=Failure.LEVELS.where(backend, wrong, result.failure))
    # For the line in the middle of a wider gap, the sign in the derivative counts no eigenvalue as zero.
    width = 4 * rank_tolerance(backend, m, rtol) * backend.xp.maximum(-values[:, 0], values[:, -1])
    below, above = (backend.ldexp(values[:, k], e)[:, None] for k in (count - 1, count))
    failed = ~(values[:, count] - values[:, count - 1] > width)
    failure = Failure.DEGENERATE.where(backend, failed, result.failure)
    return result._replace(
        failure=Failure.LEVELS.where(backend, wrong, failure), detail=backend.xp.concat((below, above), axis=-1)
    )


def middle_of_gap(backend: Backend, m: Array, count: int) -> Array:
    """A number (B,) above `count` of the eigenvalues of Hermitian m and below the others."""
    n = m.shape[-1]
    m, e = scale_to_unit(backend, m)
    values, _ = backend.eigh(hermitian(m))
    lower = values[:, count - 1] if count else values[:, 0] - 1
    upper = values[:, count] if count < n else values[:, -1] + 1
    return backend.ldexp((lower + upper) / 2, e)


class Pencil(NamedTuple):
    """M, S and the line in units in which the diagonal of S and the largest entry of M are near 1.

    They are 2^(-eᵢ-eⱼ-k) Mᵢⱼ, 2^(-eᵢ-eⱼ) Sᵢⱼ and 2^-k at. Powers of 2 cause no rounding, so that the accuracy does not depend on
    the norms of the functions of the basis.
    """

    m: Array
    overlap: Array
    at: Line
    pairs: Array  # eᵢ + eⱼ
    k: Array

    @classmethod
    def of(cls, backend: Backend, m: Array, overlap: Array, at: Line) -> Pencil:
        xp = backend.xp
        e = backend.exponent(xp.abs(xp.linalg.diagonal(backend.stop_gradient(overlap)).real)) // 2
        pairs = e[:, :, None] + e[:, None, :]
        sizes = entry_sizes(backend, backend.stop_gradient(m))
        exponents = backend.exponent(sizes) - pairs
        k = xp.max(xp.where(sizes > 0, exponents, xp.min(exponents, axis=(-1, -2), keepdims=True)), axis=(-1, -2))
        return cls(
            backend.ldexp(m, -pairs - broadcast_scalar(k)),
            backend.ldexp(overlap, -pairs),
            None if at is None else backend.ldexp(at * backend.ones(m), -k),
            pairs,
            k,
        )

    def outward(self, backend: Backend, d: Array) -> Array:
        """D in the caller's units, from D in these."""
        return backend.ldexp(d, -self.pairs)

    def change(self, backend: Backend, x: Array, *, with_size: bool = False) -> Array:
        """A change of S in these units, from one in the caller's; of M `with_size`. The map is its own adjoint."""
        return backend.ldexp(x, -self.pairs - broadcast_scalar(self.k) if with_size else -self.pairs)

    def inward(self, backend: Backend, d: Array) -> Array:
        """D in these units, from D in the caller's."""
        return backend.ldexp(d, self.pairs)


def orthonormal_basis(backend: Backend, overlap: Array) -> tuple[Array, Array]:
    """T = L⁻¹ of S = L Lᴴ, and the members where S is singular to working precision or indefinite, which get T = I."""
    low = backend.cholesky(overlap)
    t = backend.inv(low)
    indefinite = ~((backend.norm(low) * backend.norm(t)) ** 2 * backend.eps(low) < 1)
    return backend.xp.where(broadcast_scalar(indefinite), eye(backend, t), t), indefinite


def orthonormalise(backend: Backend, t: Array, m: Array) -> Array:
    """T M Tᴴ, Hermitian if M is."""
    k = t @ m @ adjoint(t)
    return backend.xp.where(broadcast_scalar(is_hermitian(m)), hermitian(k), k)


def mark_overlap(backend: Backend, result: Solution, overlap: Array, indefinite: Array) -> Solution:
    def smallest(overlap: Array, detail: Array) -> Array:
        finite = backend.xp.where(backend.xp.isfinite(overlap), overlap, backend.xp.zeros_like(overlap))
        return as_details(backend, overlap, backend.eigh(finite)[0][:, 0])

    detail = backend.rare_cond(indefinite, smallest, lambda overlap, detail: detail, overlap, result.detail)
    return result._replace(failure=Failure.OVERLAP.where(backend, indefinite, result.failure), detail=detail)
