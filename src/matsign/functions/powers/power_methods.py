"""How real powers and logarithms of a stack are computed: Hermitian members by eigenvectors, others by Schur vectors.

Members are scaled by 2^-k first, f(2^k A) = 2^{kt} f(A) or log A + k log 2 I, and general ones are balanced.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from functools import partial
from typing import NamedTuple

from matsign._typing import Array
from matsign.backends import Backend
from matsign.backends.constants import constant_when_compiled
from matsign.core import scaling
from matsign.core.failures import Failure
from matsign.core.members import Solution, no_details, nothing_failed, overflow_failure, solution
from matsign.core.tolerances import rank_tolerance
from matsign.direct import schur_powers
from matsign.functions.powers.large_powers import clip_exponent, integer_power
from matsign.iterations.inverse_scaling import inverse_scaling
from matsign.linalg.jacobi_rotations import eigenvectors, spectral_product
from matsign.linalg.scalar_powers import Exponent, exponent
from matsign.linalg.stacks import (
    adjoint,
    broadcast_scalar,
    eye,
    hermitian,
    is_hermitian,
    is_nearly_hermitian,
    scale_to_unit,
)

METHODS = ("auto", "newton", "eigh", "schur")

# Numbers between eps and 1 have powers with exponents up to this size in the range of their dtype.
_LARGE = 4


def matrix_function(backend: Backend, a: Array, *, power: Exponent, rtol: float | None, method: str) -> Solution:
    """f(a) of a stack; zero eigenvalues stay zero in powers."""
    rtol = rank_tolerance(backend, a, rtol)
    factors, part = factors_of(power)
    if factors != 1:
        result = matrix_function(backend, a, power=part, rtol=rtol, method=method)
        value = integer_power(backend, result.value[0], factors) if factors else eye(backend, a) + 0 * a
        return result._replace(value=(value,), failure=overflow_failure(backend, value, result.failure))

    def by_eigh(a: Array) -> Solution:
        return _by_eigh(backend, a, power, rtol)

    def general(a: Array) -> Solution:
        return _general(backend, a, power, rtol, method)

    if power.is_integer and power.value == 1:
        result = solution(backend, (a,))
    elif method == "auto":
        result = backend.masked_cond(is_hermitian(a), by_eigh, general, a)
    else:
        result = by_eigh(a) if method == "eigh" else general(a)
    if method == "eigh":
        no = ~is_nearly_hermitian(backend, a)
        result = result._replace(failure=Failure.NOT_HERMITIAN.where(backend, no, result.failure))
    (value,) = result.value
    return result._replace(failure=overflow_failure(backend, value, result.failure))


@constant_when_compiled
@functools.lru_cache(maxsize=1024)
def factors_of(power: Exponent) -> tuple[int, Exponent]:
    """(m, part) with f(A) = (A^part)^m: an integer power by products, and of a large one an integer power of a smaller one."""
    if power.is_logarithm:
        return 1, power
    t = Fraction(power.high or 0.0) + Fraction(power.low)
    if power.is_integer and (t >= 0 or t < -1):
        return abs(int(t)), exponent(1 if t >= 0 else -1)
    halvings = max(0, math.ceil(abs(t) / _LARGE) - 1).bit_length()
    return 2**halvings, exponent(t, 2**halvings)


class Units(NamedTuple):
    """A matrix is 2^k D a D⁻¹ for the balanced a of size 1, D = diag(2^e); e is None without balancing."""

    k: Array
    e: Array | None

    def outward(self, backend: Backend, f: Array, power: Exponent) -> Array:
        """The function of the given matrix from that of the balanced one."""
        if power.is_logarithm:
            f = f if self.e is None else backend.ldexp(f, self._shift(1))
            return f + broadcast_scalar(backend.astype(self.k, backend.dtype_name(f.real)) * math.log(2)) * eye(
                backend, f
            )
        return self._scale(backend, f, power, 1)

    def outward_of_numbers(self, backend: Backend, f: Array, power: Exponent) -> Array:
        """The same for real numbers (B, n), functions of the eigenvalues."""
        if power.is_logarithm:
            return f + backend.astype(self.k, backend.dtype_name(f))[:, None] * math.log(2)
        whole, factor = _power_of_two(backend, self.k, power, f)
        return backend.ldexp(f * factor[:, None], whole[:, None])

    def inward(self, backend: Backend, f: Array, power: Exponent) -> Array:
        """The inverse of `outward`."""
        if power.is_logarithm:
            f = f - broadcast_scalar(backend.astype(self.k, backend.dtype_name(f.real)) * math.log(2)) * eye(backend, f)
            return f if self.e is None else backend.ldexp(f, self._shift(-1))
        return self._scale(backend, f, power, -1)

    def balance_direction(self, backend: Backend, direction: Array, sign: int) -> Array:
        """A change of the matrix or of its function in balanced units (sign -1), or back (1), without the factor 2^k."""
        return direction if self.e is None else backend.ldexp(direction, self._shift(sign))

    def outward_detail(self, backend: Backend, result: Solution) -> Array:
        """The detail of a result: an eigenvalue in the caller's units, or for other failures a relative number."""
        is_eigenvalue = (result.failure == int(Failure.NEGATIVE)) | (result.failure == int(Failure.NEAR_NEGATIVE))
        return backend.ldexp(result.detail, backend.xp.where(is_eigenvalue, self.k, 0 * self.k)[:, None])

    def outward_derivative(self, backend: Backend, change: Array, power: Exponent) -> Array:
        """L(A, E) from L(a, D⁻¹ E D)."""
        whole, factor = (0 * self.k, None) if power.is_logarithm else _power_of_two(backend, self.k, power, change.real)
        change = change if factor is None else change * broadcast_scalar(factor)
        return backend.ldexp(change, scaling.add_exponents(self._shift(1), broadcast_scalar(whole - self.k)))

    def _shift(self, sign: int) -> Array | None:
        return None if self.e is None else sign * (self.e[:, :, None] - self.e[:, None, :])

    def factor(self, backend: Backend, power: Exponent, like: Array) -> tuple[Array, Array]:
        """2^{k t} as (n, a number in [1, 2)): 2^n times the number."""
        return _power_of_two(backend, self.k, power, like)

    def _scale(self, backend: Backend, f: Array, power: Exponent, sign: int) -> Array:
        whole, factor = _power_of_two(backend, sign * self.k, power, f.real)
        return backend.ldexp(
            f * broadcast_scalar(factor), scaling.add_exponents(self._shift(sign), broadcast_scalar(whole))
        )


def _power_of_two(backend: Backend, k: Array, power: Exponent, like: Array) -> tuple[Array, Array]:
    """2^{k t} as 2^n times a number in [1, 2): (n, number)."""
    xp, k = backend.xp, backend.astype(k, backend.dtype_name(like))
    exact = (power.high or 0.0) * k
    whole = xp.floor(exact)
    factor = xp.exp(math.log(2) * ((exact - whole) + power.low * k))
    return xp.astype(clip_exponent(backend, whole), xp.int32), factor


def balance_units(backend: Backend, a: Array) -> tuple[Units, Array]:
    e, a, k = scaling.balance_together(backend, a)
    return Units(k, e), a


def scale_units(backend: Backend, a: Array) -> tuple[Units, Array]:
    a, k = scale_to_unit(backend, a)
    return Units(k, None), a


def _general(backend: Backend, a: Array, power: Exponent, rtol: float, method: str) -> Solution:
    units, a = balance_units(backend, a)
    result = (_by_schur if method == "schur" else _by_newton)(backend, a, power, rtol)
    value = units.outward(backend, result.value[0], power)
    return result._replace(value=(value,), detail=units.outward_detail(backend, result))


def _by_schur(backend: Backend, a: Array, power: Exponent, rtol: float) -> Solution:
    value, failure, detail = backend.host_callback(
        partial(schur_powers.matrix_function, power=power, rtol=rtol),
        (a, backend.int_zeros(a), no_details(backend, a)),
        a,
    )
    return solution(backend, (value,))._replace(failure=failure, detail=detail)


def _by_newton(backend: Backend, a: Array, power: Exponent, rtol: float) -> Solution:
    """By square roots for any array library; members that are singular or lose digits by Schur vectors."""
    inverse = backend.inv(a)
    # The rounding errors of a power above 1 grow with the condition number, those of Schur vectors less so.
    least = backend.eps(a) ** (1 / 3) if not power.is_logarithm and power.value > 1 else 0.0
    regular = backend.norm(a) * backend.norm(inverse) * max(rtol, least) < 1
    value, roots, accurate = (
        (inverse, 0 * backend.ones(a), regular) if power.is_integer else inverse_scaling(backend, a, power)
    )
    return backend.rare_cond(
        ~(accurate & regular),
        lambda a, *_: _by_schur(backend, a, power, rtol),
        lambda a, value, roots: solution(backend, (value,), iterations=roots),
        *(a, value, roots),
    )


class _Spectrum(NamedTuple):
    """Eigenvectors of Hermitian matrices of size 1; `size` are the moduli of the eigenvalues, 1 for those that count as zero."""

    values: Array
    vectors: Array
    size: Array
    kept: Array
    negative: Array


def _spectrum(backend: Backend, a: Array, rtol: float) -> _Spectrum:
    values, vectors = eigenvectors(backend, a)
    size = backend.xp.abs(values)
    # Values ascend: no reduction over axes, which takes long for short ones.
    kept = size > rtol * backend.xp.maximum(size[:, :1], size[:, -1:])
    size = backend.xp.where(kept, size, backend.xp.ones_like(size))
    return _Spectrum(values, vectors, size, kept, kept & (values < 0))


def _by_eigh(backend: Backend, a: Array, power: Exponent, rtol: float) -> Solution:
    xp = backend.xp
    units, a = scale_units(backend, a)
    values, vectors, size, kept, negative = _spectrum(backend, a, rtol)
    f = units.outward_of_numbers(backend, xp.log(size) if power.is_logarithm else size**power.value, power)
    f = xp.where(kept, f, xp.zeros_like(f))
    below = negative[:, 0]
    if backend.is_complex(a):
        f = _on_cut(backend, xp.astype(f, a.dtype), power, negative)
    elif power.is_integer:
        f = xp.where(negative, (-1.0) ** (power.value % 2) * f, f)
    if backend.is_complex(a):
        value = (vectors * f[:, None, :]) @ adjoint(vectors)
        value = xp.where(broadcast_scalar(below), value, hermitian(value))
    else:
        value = spectral_product(backend, vectors, f)
    result = solution(backend, (value,))
    failure = result.failure
    if not backend.is_complex(a) and not power.is_integer:
        failure = Failure.NEGATIVE.where(backend, below, failure)
    if power.is_logarithm:
        failure = Failure.SINGULAR.where(backend, ~kept.all(-1), failure)
    if nothing_failed(backend, failure):
        return result
    least = backend.ldexp(values[:, :1], units.k[:, None])
    return result._replace(failure=failure, detail=xp.concat([least, 0 * least], axis=-1))


def _on_cut(backend: Backend, f: Array, power: Exponent, negative: Array) -> Array:
    """The function of negative numbers, whose argument is π, from that of their moduli."""
    if power.is_logarithm:
        return backend.xp.where(negative, f + 1j * math.pi, f)
    turn = math.pi * math.fmod(power.value, 2.0)
    phase = (-1.0) ** (power.value % 2) if power.is_integer else complex(math.cos(turn), math.sin(turn))
    return backend.xp.where(negative, phase * f, f)


def spectrum_logarithms(backend: Backend, a: Array, rtol: float) -> tuple[Array, Array, Array]:
    """(vectors, logarithms of the eigenvalues, which of them are not zero) of Hermitian matrices of size 1."""
    spectrum = _spectrum(backend, a, rtol)
    logarithms = backend.xp.log(spectrum.size)
    if backend.is_complex(a):
        logarithms = backend.xp.astype(logarithms, a.dtype)
        logarithms = backend.xp.where(spectrum.negative, logarithms + 1j * math.pi, logarithms)
    return spectrum.vectors, logarithms, spectrum.kept
