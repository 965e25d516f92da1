"""The derivative of Fermi-Dirac occupations.

With X = (K - μ)/kT, F = f(X), W = -f'(X) = F - F², q = tr W, P = W/q and the Fréchet derivative L of f, a fixed number N of
electrons moves μ, and dX = (dK - dμ I - X dkT)/kT:

    dμ = tr(P dK) - tr(P X) dkT + kT dN/q,      dF = L(X, dX),      d entropy = -tr(X W dX).

P, a matrix of trace 1, has its digits also where W is tiny, at a kT far below the gap. For K = T M T, T = S^{-1/2} and D = T F T
of an overlap S, dK and dD are as in `projector_derivatives`. In the eigenvectors of X the divided differences of f are, for
eigenvalues x ≤ y,

    (f(x) - f(y)) / (x - y) = -f(x) f(-y) (1 - e^{x-y}) / (y - x),

without cancellation, and those of f (1 - f) are these times f(-x) - f(y).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import Backend
from matsign.core.members import Solution, solution
from matsign.core.operations import Operation, apply, shapes_of
from matsign.functions.powers.frechet_blocks import frechet_operation
from matsign.functions.projectors.fermi_methods import fermi, log_fermi
from matsign.functions.projectors.projector_derivatives import orthonormal, symmetric
from matsign.functions.projectors.projector_methods import Pencil
from matsign.iterations.fermi_doubling import occupation_by_inverses
from matsign.linalg.stacks import (
    adjoint,
    assemble,
    broadcast_scalar,
    eye,
    hermitian,
    inner,
    is_hermitian,
    safe_divisor,
    scale_to_unit,
    trace,
)

# The part above the diagonal blocks is scaled to this size, so that it hardly changes the number of doublings.
_SMALL = 2.0**-4


class _Basis(NamedTuple):
    """T = S^{-1/2}, and K = T M T with the units of the pencil (M, S)."""

    t: Array
    k: Array
    pencil: Pencil

    @classmethod
    def of(cls, backend: Backend, h: Array, overlap: Array) -> _Basis:
        pencil = Pencil.of(backend, h, hermitian(overlap), None)
        return cls(*orthonormal(backend, pencil), pencil)

    def energies(self, backend: Backend, k: Array) -> Array:
        """K in the caller's units; the map is its own adjoint."""
        return backend.ldexp(k, broadcast_scalar(self.pencil.k))

    def between(self, x: Array) -> Array:
        return self.t @ x @ self.t


class _Point(NamedTuple):
    """The basis of an overlap (None without one), X, F, P, q and kT."""

    basis: _Basis | None
    x: Array
    f: Array
    p: Array
    q: Array
    kt: Array

    @classmethod
    def of(cls, backend: Backend, arrays: Arrays, mu: Array, kt: Any) -> _Point:
        h, overlap = arrays
        k, basis = hermitian(h), None
        if overlap is not None:
            basis = _Basis.of(backend, k, overlap)
            k = basis.energies(backend, basis.k)
        kt = kt * backend.ones(h)
        x = hermitian(k - broadcast_scalar(mu) * eye(backend, k)) / broadcast_scalar(kt)
        f, p, q = apply(backend, _OCCUPATION, x)
        return cls(basis, x, f, p, q, kt)

    def energy_change(self, backend: Backend, dh: Array, doverlap: Array | None) -> tuple[Array, Array | None]:
        """dK, and E = T dS T, for changes of the arguments."""
        if self.basis is None:
            return hermitian(dh), None
        change, between = self.basis.pencil.change, self.basis.between
        e = between(change(backend, hermitian(doverlap)))
        dk = between(change(backend, hermitian(dh), with_size=True)) - symmetric(e, self.basis.k)
        return self.basis.energies(backend, dk), e

    def density_change(self, backend: Backend, df: Array, e: Array | None) -> Array:
        if self.basis is None:
            return df
        return self.basis.pencil.outward(backend, self.basis.between(df - symmetric(e, self.f)))

    def density_cotangent(self, backend: Backend, bar: Array) -> Array:
        """The cotangent of F."""
        bar = hermitian(bar)
        return bar if self.basis is None else self.basis.between(self.basis.pencil.outward(backend, bar))

    def argument_cotangents(self, backend: Backend, bar_k: Array, bar_f: Array) -> tuple[Array, Array | None]:
        """The cotangents of H and S from those of K and F."""
        if self.basis is None:
            return hermitian(bar_k), None
        bar_k = self.basis.energies(backend, bar_k)
        bar_e = -symmetric(bar_k, self.basis.k) - symmetric(bar_f, self.f)
        bar_m, bar_s = (hermitian(self.basis.between(x)) for x in (bar_k, bar_e))
        change = self.basis.pencil.change
        return change(backend, bar_m, with_size=True), change(backend, bar_s)

    def slope(self, backend: Backend, e: Array) -> Array:
        """L(X, E)."""
        return apply(backend, _OCCUPATION_CHANGE, self.x, e)[0]

    def mean(self, backend: Backend) -> Array:
        """tr(P X)."""
        return inner(backend, self.p, self.x)


def fermi_tangent(
    backend: Backend,
    value: Arrays,
    arrays: Arrays,
    tangents: Arrays,
    *,
    kT: Any,
    mu: Any = None,
    electrons: Any = None,
    **_: Any,
) -> Arrays:
    at = _Point.of(backend, arrays, value[1], kT)
    dk, e = at.energy_change(backend, *tangents[:2])
    none = 0 * at.q
    dkt, dmu, dn = (none if x is None else x for x in tangents[2:])
    if electrons is not None:
        dmu = inner(backend, at.p, dk) - at.mean(backend) * dkt
    scaled = (dk - broadcast_scalar(dmu) * eye(backend, dk) - broadcast_scalar(dkt) * at.x) / broadcast_scalar(at.kt)
    df = at.slope(backend, scaled)
    dentropy = -at.q * inner(backend, at.p @ at.x, scaled)
    if electrons is not None:
        df = df + broadcast_scalar(dn) * at.p
        dmu = dmu + at.kt * dn / safe_divisor(backend, at.q)
        dentropy = dentropy + dn * at.mean(backend)
    return at.density_change(backend, df, e), dmu, dentropy


def fermi_cotangent(
    backend: Backend,
    value: Arrays,
    arrays: Arrays,
    cotangents: Arrays,
    *,
    kT: Any,
    mu: Any = None,
    electrons: Any = None,
    **_: Any,
) -> Arrays:
    at = _Point.of(backend, arrays, value[1], kT)
    bar_d, bar_mu, bar_entropy = cotangents
    bar_f = at.density_cotangent(backend, bar_d)
    weighted = hermitian(at.p @ at.x)
    bar_x = at.slope(backend, bar_f) - broadcast_scalar(at.q * bar_entropy) * weighted
    bar_n = inner(backend, at.p, bar_f) + bar_entropy * at.mean(backend)
    bar_n = bar_n + bar_mu * at.kt / safe_divisor(backend, at.q)
    bar_mu = bar_mu - trace(backend, bar_x).real / at.kt
    bar_k, bar_kt = bar_x / broadcast_scalar(at.kt), -inner(backend, bar_x, at.x) / at.kt
    if electrons is not None:
        bar_k, bar_kt = bar_k + broadcast_scalar(bar_mu) * at.p, bar_kt - bar_mu * at.mean(backend)
    given = (not isinstance(kT, float), mu is not None, electrons is not None)
    bars = (bar if is_given else None for bar, is_given in zip((bar_kt, bar_mu, bar_n), given, strict=True))
    return (*at.argument_cotangents(backend, bar_k, bar_f), *bars)


def _solve_occupation(backend: Backend, x: Array) -> Solution:
    """F, P and q."""
    values, v = backend.eigh(hermitian(x))
    p, q = _weights(backend, values)
    f, p = (hermitian((v * z[:, None, :]) @ adjoint(v)) for z in (fermi(backend, values), p))
    return solution(backend, (f, p, q))


def _weights(backend: Backend, values: Array) -> tuple[Array, Array]:
    """w(x) = f(x) f(-x) over its sum, and the sum, by logarithms."""
    xp = backend.xp
    logarithms = log_fermi(backend, values) + log_fermi(backend, -values)
    top = xp.max(logarithms, axis=-1, keepdims=True)
    w = xp.exp(logarithms - top)
    total = xp.sum(w, axis=-1, keepdims=True)
    return w / total, (total * xp.exp(top))[:, 0]


def _slopes(backend: Backend, values: Array, shift: Array) -> Array:
    """The divided differences of f, times e^-shift for each member."""
    xp = backend.xp
    x, y = values[:, :, None], values[:, None, :]
    low, high = xp.minimum(x, y), xp.maximum(x, y)
    gap = high - low
    share = xp.where(gap > 0, -xp.expm1(-gap) / safe_divisor(backend, gap), xp.ones_like(gap))
    return -xp.exp(log_fermi(backend, low) + log_fermi(backend, -high) - shift[:, None, None]) * share


def _solve_occupation_change(backend: Backend, x: Array, e: Array) -> Solution:
    def by_eigenvectors(x: Array, e: Array) -> Array:
        values, v = backend.eigh(x)
        slopes = _slopes(backend, values, 0 * values[:, 0])
        return v @ (slopes * (adjoint(v) @ e @ v)) @ adjoint(v)

    def by_blocks(x: Array, e: Array) -> Array:
        f, size, n = *_of_blocks(backend, x, e), x.shape[-1]
        return _scaled_back(backend, f[:, :n, n:], size)

    return solution(backend, (backend.masked_cond(is_hermitian(x), by_eigenvectors, by_blocks, x, e),))


def _solve_weights_change(backend: Backend, x: Array, e: Array) -> Solution:
    """The Fréchet derivative of W, over q."""

    def by_eigenvectors(x: Array, e: Array) -> Array:
        values, v = backend.eigh(x)
        logarithms = log_fermi(backend, values) + log_fermi(backend, -values)
        shift = backend.xp.max(logarithms, axis=-1)
        total = backend.xp.sum(backend.xp.exp(logarithms - shift[:, None]), axis=-1)
        slopes = _slopes(backend, values, shift) / total[:, None, None]
        minus, plus = fermi(backend, -values), fermi(backend, values)
        slopes = slopes * (minus[:, :, None] - plus[:, None, :])
        return v @ (slopes * (adjoint(v) @ e @ v)) @ adjoint(v)

    def by_blocks(x: Array, e: Array) -> Array:
        f, size, n = *_of_blocks(backend, x, e), x.shape[-1]
        w = f - f @ f
        q = safe_divisor(backend, trace(backend, w[:, :n, :n]).real)
        return _scaled_back(backend, w[:, :n, n:], size) / broadcast_scalar(q)

    return solution(backend, (backend.masked_cond(is_hermitian(x), by_eigenvectors, by_blocks, x, e),))


def _of_blocks(backend: Backend, x: Array, e: Array) -> tuple[Array, Array]:
    """f([[x, e'], [0, x]]), with e' = e 2^-size of size `_SMALL`."""
    e, size = scale_to_unit(backend, e)
    return occupation_by_inverses(backend, assemble(backend, x, _SMALL * e, 0 * x, x), backend.inv), size


def _scaled_back(backend: Backend, change: Array, size: Array) -> Array:
    return backend.ldexp(change / _SMALL, broadcast_scalar(size))


_OCCUPATION_CHANGE = frechet_operation("change of the occupation", _solve_occupation_change)
_WEIGHTS_CHANGE = frechet_operation("change of the weights", _solve_weights_change)


def _occupation_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
    _, p, q = value
    change, weights = (apply(backend, f, *arrays, *tangents)[0] for f in (_OCCUPATION_CHANGE, _WEIGHTS_CHANGE))
    growth = trace(backend, weights).real
    return change, weights - broadcast_scalar(growth) * p, q * growth


def _occupation_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
    (_, p, q), (bar_f, bar_p, bar_q), x = value, cotangents, adjoint(arrays[0])
    bar_w = bar_p + broadcast_scalar(q * bar_q - inner(backend, p, bar_p)) * eye(backend, p)
    return (apply(backend, _OCCUPATION_CHANGE, x, bar_f)[0] + apply(backend, _WEIGHTS_CHANGE, x, bar_w)[0],)


_OCCUPATION = Operation(
    "occupation",
    *(shapes_of("(n,n)"), (("n", "n"), ("n", "n"), ())),
    solve=_solve_occupation,
    tangent=_occupation_tangent,
    cotangent=_occupation_cotangent,
    kinds=("same", "same", "real"),
)
