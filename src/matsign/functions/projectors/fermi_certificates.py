"""Backward errors and corrections of Fermi-Dirac occupations, by a second way: the doubling of `fermi_doubling`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.public import Residual
from matsign.functions.projectors.fermi_derivatives import fermi_tangent
from matsign.functions.projectors.fermi_methods import Filling, occupy_by_eigenvectors, uses_eigenvectors
from matsign.functions.projectors.projector_methods import Pencil, orthonormal_basis, orthonormalise
from matsign.iterations.fermi_doubling import occupation_by_products
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    rounding_probe,
    safe_divisor,
    trace,
)


def fermi_residual(
    backend: Backend,
    value: Arrays,
    h: Array,
    overlap: Array | None,
    *,
    kT: Any,
    mu: Any = None,
    electrons: Any = None,
    method: str = "auto",
) -> Residual:
    """F = f(X), and tr F = electrons; the corrections are those of both residuals and of rounding of the arguments."""
    one, exactly = backend.ones(h), uses_eigenvectors(backend, h, method)
    basis = _Basis.of(backend, hermitian(h), overlap)
    f = basis.inward(value[0])
    x = (basis.k - broadcast_scalar(value[1]) * eye(backend, f)) / broadcast_scalar(kT * one)
    again, entropy = _by_other_method(backend, hermitian(x), value[2], exactly)

    def changes(*tangents: Array | None) -> Arrays:
        return fermi_tangent(backend, value, (h, overlap), tangents, kT=kT * one, mu=mu, electrons=electrons)

    # Of different signs, as x = (ε - μ)/kT does not change if both numbers grow alike.
    relative = -2 * backend.eps(h) * kT * one, backend.eps(h) * value[1], None
    rounding = changes(*_rounding(backend, h, overlap), *relative)
    slope = backend.norm(basis.inward(rounding[0])) / backend.eps(h)
    gap, size = again - f, backend.norm(f) + backend.norm(again)
    scale = safe_divisor(backend, size + slope)
    if exactly:  # products know nothing about occupations below rounding
        scale = backend.xp.maximum(scale, backend.xp.ones_like(scale))
    backward = backend.norm(gap) / scale
    if exactly:
        rounded = 64 * f.shape[-1] * backend.eps(h) * (1 + slope)
        gap = backend.xp.where(broadcast_scalar(backend.norm(gap) > rounded), gap, 4 * backend.eps(h) * f)
    corrections = [abs(rounding[0]) + abs(basis.outward(gap)), *(backend.xp.abs(c) for c in rounding[1:])]
    if electrons is not None:
        count = trace(backend, f).real
        missing = _missing(backend, electrons * one - count, f.shape[-1] * basis.growth, exactly)
        spread = backend.xp.maximum(count - backend.norm(f) ** 2, 0 * count)  # dN / d(μ/kT), and μ has a rounding error
        missing = missing + backend.eps(h) * (backend.xp.abs(value[1]) + backend.norm(basis.k)) * spread / (kT * one)
        off = backend.xp.abs(electrons * one - count) + backend.eps(h) * count  # known to rounding only
        number = off / safe_divisor(backend, electrons * one + count + slope)
        backward = backend.xp.maximum(backward, number)
        none = (0 * h, None if overlap is None else 0 * overlap, None, None)
        corrections = [c + abs(more) for c, more in zip(corrections, changes(*none, missing), strict=True)]
        # Rounding of the energies, of which one random change may move the relevant ones too little.
        corrections[1] = corrections[1] + 4 * backend.eps(h) * (backend.norm(basis.k) + kT * one)
    corrections[1] = corrections[1] + backend.eps(h) * backend.xp.abs(value[1])
    corrections[2] = corrections[2] + backend.xp.abs(entropy - value[2])
    zero = (one[:, None, None], basis.k, one[:, None, None])  # a μ of 0 is one far below the energies
    return Residual(backward, tuple(corrections), zero=zero)


class _Basis(NamedTuple):
    """K, the maps of D to F in an orthonormal basis and back, and how much rounding errors of D grow in F."""

    k: Array
    inward: Callable[[Array], Array]
    outward: Callable[[Array], Array]
    growth: Any

    @classmethod
    def of(cls, backend: Backend, h: Array, overlap: Array | None) -> _Basis:
        if overlap is None:
            return cls(h, lambda d: d, lambda f: f, 1.0)
        pencil = Pencil.of(backend, h, hermitian(overlap), None)
        (t, _), low = orthonormal_basis(backend, pencil.overlap), backend.cholesky(pencil.overlap)
        k = backend.ldexp(orthonormalise(backend, t, pencil.m), broadcast_scalar(pencil.k))
        return cls(
            k,
            lambda d: hermitian(adjoint(low) @ pencil.inward(backend, d) @ low),
            lambda f: pencil.outward(backend, adjoint(t) @ f @ t),
            backend.norm(low) * backend.norm(t),
        )


def _rounding(backend: Backend, h: Array, overlap: Array | None) -> tuple[Array, Array | None]:
    """Changes of H and S as by rounding, in the units of the basis."""

    def probe(x: Array) -> Array:
        return hermitian(rounding_probe(backend, x, backend.norm(x)))

    if overlap is None:
        return probe(h), None
    pencil = Pencil.of(backend, hermitian(h), hermitian(overlap), None)
    dh = backend.ldexp(probe(pencil.m), pencil.pairs + broadcast_scalar(pencil.k))
    return dh, backend.ldexp(probe(pencil.overlap), pencil.pairs)


def _missing(backend: Backend, gap: Array, growth: Any, exactly: bool) -> Array:
    """The error of the number of electrons that μ answers for.

    Rounding of tr F says nothing about a μ that was found by the energies. Products determine μ only to that rounding.
    """
    size, rounded = backend.xp.abs(gap), 4 * backend.eps(gap) * growth
    return backend.xp.where(size > rounded, size, 0 * size if exactly else rounded + 0 * size)


def _by_other_method(backend: Backend, x: Array, entropy: Array, exactly: bool) -> tuple[Array, Array]:
    """f(X), and the entropy by eigenvectors: that by products has larger rounding errors, and says nothing about these."""
    if exactly:
        return occupation_by_products(backend, x)[0], entropy * (1 + backend.eps(x))
    one = backend.ones(x)
    density, _, entropy = occupy_by_eigenvectors(backend, x, Filling(one, 0 * one, None)).value
    return density, entropy
