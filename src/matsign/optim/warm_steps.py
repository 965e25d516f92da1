"""msign of matrices that move slowly, to a tolerance, from singular vectors U and V of earlier ones.

With T = Uᴴ M V = D + E, D its diagonal, the unitary factor of T is I + X + X²/2 + Y up to third order, with

    Xᵢⱼ = (T - Tᴴ)ᵢⱼ / (dᵢ + dⱼ),    Yᵢⱼ = -(XE - (XE)ᴴ)ᵢⱼ / (dᵢ + dⱼ).

Division by a small dᵢ + dⱼ fails, so singular vectors of the block of T with the smallest singular values are computed anew.
For more rows than columns, the part of M V outside the range of U is added: O = (I - UUᴴ) M V D⁻¹, and -U OᴴO/2.

A start is near enough if ‖Y‖ is small, as the error is smaller still, and T without the block is positive definite. Then a few
random vectors measure whether U is an isometry and UᴴMV Hermitian: the answer is accepted by what it satisfies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch  # noqa: TID251

from matsign import backends
from matsign.linalg.stacks import random_probe
from matsign.optim.batching import SMALLEST, Layout

Tensor = torch.Tensor

# A step computes the smallest singular values anew, a quarter of all.
_BLOCK = 4
# Singular values below this fraction of the largest one count as zero, the less the nearer they are.
_ZERO = 1e-6
# An answer is accepted if ‖Y‖ is at most half the tolerance for √k singular values, and at most this.
_LARGEST = 0.05
# So many random vectors measure a matrix.
_PROBES = 8
# D^{-1/2} T D^{-1/2} of the leading block has no eigenvalue below this.
_POSITIVE = 0.1


class Signs(NamedTuple):
    """msign of a stack, the start for the next one, and which matrices have it to the tolerance."""

    value: Tensor
    start: Tensor
    certain: Tensor


def singular_vectors(m: Tensor) -> Tensor:
    """[U; V] of a stack of tall matrices."""
    v = _eigenvectors_of_gram(m)
    u = m.to(v.dtype) @ v
    return torch.cat([u / _nonzero(torch.linalg.vector_norm(u, dim=-2))[..., None, :], v], -2).to(m.dtype)


def count_of_starts(layout: Layout, p: Tensor) -> int:
    """How many numbers the starts of a parameter have."""
    return sum(count * (n + m) * min(n, m) for count, n, m in layout.shapes(p.shape))


def _eigenvectors_of_gram(m: Tensor) -> Tensor:
    """Right singular vectors, those of the largest singular value first, in double precision."""
    x = m.to(torch.promote_types(m.dtype, torch.float64))
    return torch.linalg.eigh(x.mH @ x).eigenvectors.flip(-1)


def _nonzero(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def signs_from(m: Tensor, start: Tensor, tol: float) -> Signs:
    """msign of a stack of tall matrices with the norm 1, from singular vectors of an earlier one."""
    rows, k = m.shape[-2:]
    leading = k - -(-k // _BLOCK)
    b, u, v, t = _diagonalise_block(m, start[..., :rows, :], start[..., rows:, :], leading)
    d = torch.diagonal(t, dim1=-2, dim2=-1).real
    smallest = _ZERO * d.amax(-1, keepdim=True)
    sums = torch.maximum(d[..., :, None] + d[..., None, :], smallest[..., None])
    x = (t - t.mH) / sums
    xe = x @ (t - torch.diag_embed(d).to(t.dtype))
    y = (xe.mH - xe) / sums
    new = u + u @ (x + y + x @ x / 2)
    if rows > k:
        outside = (b - u @ t[..., :leading]) / d[..., None, :leading]
        lost = outside.mH @ outside / 2
        new[..., :leading] += outside - u[..., :leading] @ lost
        y = y + torch.nn.functional.pad(lost, (0, k - leading, 0, k - leading))
    near = torch.linalg.matrix_norm(y) <= min(tol * k**0.5 / 2, _LARGEST)
    kept = (d / _nonzero(smallest)).clamp(0, 1).square().to(t.dtype)
    value = (new * kept[..., None, :]) @ v.mH
    certain = near & _is_positive(t[..., :leading, :leading]) & (_error(m, new, v, d) <= tol)
    return Signs(value, torch.cat([new, v], -2), certain)


def _diagonalise_block(m: Tensor, u: Tensor, v: Tensor, leading: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """U and V with the trailing columns replaced by singular vectors of M V without the range of the leading U; and UᴴMV."""
    head, b = u[..., :leading], m @ v
    t = head.mH @ b
    rest = b[..., leading:] - head @ t[..., leading:]
    w = _eigenvectors_of_gram(rest).to(m.dtype)
    tail = rest @ w
    s = torch.linalg.vector_norm(tail, dim=-2)
    tail = tail / _nonzero(s)[..., None, :]
    below = torch.cat([tail.mH @ b[..., :leading], torch.diag_embed(s).to(m.dtype)], -1)
    t = torch.cat([torch.cat([t[..., :leading], t[..., leading:] @ w], -1), below], -2)
    return b[..., :leading], torch.cat([head, tail], -1), torch.cat([v[..., :leading], v[..., leading:] @ w], -1), t


def _is_positive(t: Tensor) -> Tensor:
    """Whether the Hermitian part of a block is safely positive definite, relative to its diagonal."""
    d = torch.diagonal(t, dim1=-2, dim2=-1).real
    root = d.clamp(min=torch.finfo(d.dtype).tiny).rsqrt()
    h = (t + t.mH) / 2 * root[..., :, None] * root[..., None, :]
    shifted = h - _POSITIVE * torch.eye(h.shape[-1], dtype=h.dtype, device=h.device)
    return (d > 0).all(-1) & (torch.linalg.cholesky_ex(shifted).info == 0)


def _error(m: Tensor, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
    """The error of U Vᴴ in singular values above `SMALLEST` of the largest, from products with random vectors.

    It is twice the distance of U from an isometry, or ‖D^{-1/2} (H - Hᴴ) D^{-1/2}‖ / 2 with H = UᴴMV, which is at least ‖X‖.
    """
    p = random_probe(backends.load("torch"), u.shape[-1], _PROBES, u)
    root = torch.maximum(d, SMALLEST * d.amax(-1, keepdim=True)).sqrt()[..., None].to(m.dtype)
    scaled = p / root
    skew = (u.mH @ (m @ (v @ scaled)) - v.mH @ (m.mH @ (u @ scaled))) / (2 * root)
    size = torch.linalg.matrix_norm
    return torch.maximum(size(skew), 2 * size(u.mH @ (u @ p) - p)) / size(p)
