"""Real powers, the logarithm and their Fréchet derivatives by Schur vectors on the CPU: NumPy stacks in, NumPy stacks out.

A zero eigenvalue that is semisimple stays zero in every power (t < 0: the inverse on the range). The derivative L(A, E) is the
corner of the function of [[A, E], [0, A]], which is triangular in Schur vectors of A.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy

from matsign._typing import NDArray as Array
from matsign.backends import lapack, load
from matsign.core.failures import Failure
from matsign.direct.schur_functions import defect_radius, near_negative_eigenvalue, smallest_singular_value
from matsign.direct.triangular_powers import function_of_triangular, integer_power
from matsign.linalg.null_space import keep_zero_rows, split_null_space
from matsign.linalg.scalar_powers import Exponent, scalar_function

# The part above the diagonal blocks is scaled to this size, so that it decides nothing in the computation of its derivative.
_SMALL = 2.0**-64
# Eigenvalues that are tested for rounding to put them on the negative axis.
_CANDIDATES = 8
# The largest angle to the negative axis of an eigenvalue that rounding has moved below it.
_ANGLE = 1 / 8


class _Form(NamedTuple):
    """a = z t zᴴ with an upper triangular t, and the logarithms of its diagonal; all real for real positive eigenvalues."""

    t: Array
    z: Array
    logarithms: Array


class _Failed(Exception):
    """A member has no answer: why, and the number for the message."""

    def __init__(self, failure: Failure, detail: complex = 0.0) -> None:
        super().__init__(failure)
        self.failure, self.detail = failure, detail


def matrix_function(stack: Array, *, power: Exponent, rtol: float) -> tuple[Array, Array, Array]:
    """(f(a), failure, detail) for each member a of moderate size."""
    out = np.full_like(stack, np.nan)
    failure, detail = np.zeros(len(stack), np.int32), np.zeros((len(stack), 2), stack.real.dtype)
    for k, a in enumerate(stack):
        try:
            with np.errstate(all="ignore"):
                out[k] = _as_given(_function(_Member(a, power, rtol)), a)
        except _Failed as error:
            failure[k], detail[k] = error.failure, (error.detail.real, error.detail.imag)
    return out, failure, detail


def frechet(stack: Array, directions: Array, *, power: Exponent, rtol: float) -> Array:
    """L(a, e) for each member a and direction e; NaN where f(a) fails."""
    out = np.full_like(directions, np.nan)
    for k, (a, e) in enumerate(zip(stack, directions, strict=True)):
        try:
            with np.errstate(all="ignore"):
                out[k] = _as_given(_derivative(_Member(a, power, rtol), e), e)
        except _Failed:
            continue
    return out


def _as_given(x: Array, like: Array) -> Array:
    return x.astype(like.dtype) if np.iscomplexobj(like) else x.real.astype(like.dtype)


class _Member:
    """A matrix in double precision with its function; single precision is computed in double."""

    def __init__(self, a: Array, power: Exponent, rtol: float) -> None:
        self.noise = len(a) * float(np.finfo(a.dtype).eps)
        self.a = a.astype(complex if np.iscomplexobj(a) else float)
        self.power, self.rtol = power, rtol


def _function(member: _Member) -> Array:
    a, power = member.a, member.power
    if not np.isfinite(a).all():
        raise _Failed(Failure.NOT_CONVERGED)
    if not _may_be_singular(a, member.rtol):
        return _regular(member, a)
    zero = _Zero.split(member)
    if zero is None:
        return _regular(member, a)
    value = zero.from_shifted(_regular(member, zero.shifted), _shift_value(zero, power))
    return keep_zero_rows(load("numpy"), value, a)


def _regular(member: _Member, a: Array) -> Array:
    power = member.power
    if power.is_integer:
        return integer_power(a, round(power.value))
    form = _schur(a, member.noise)
    return _outward(form, function_of_triangular(form.t, form.logarithms, power))


def _derivative(member: _Member, e: Array) -> Array:
    a, power = member.a, member.power
    if not (np.isfinite(a).all() and np.isfinite(e).all()):
        raise _Failed(Failure.NOT_CONVERGED)
    zero = None if not _may_be_singular(a, member.rtol) else _Zero.split(member)
    if zero is None:
        return _regular_derivative(member, a, e)
    rest = np.eye(len(a)) - zero.projector
    value = zero.from_shifted(_regular(member, zero.shifted), _shift_value(zero, power))
    inner = rest @ _regular_derivative(member, zero.shifted, rest @ e @ rest) @ rest
    slope = zero.inverse @ value
    return inner + slope @ e @ zero.projector + zero.projector @ e @ slope


def _regular_derivative(member: _Member, a: Array, e: Array) -> Array:
    power, n = member.power, len(a)
    if power.is_integer:
        form = _Form(a, np.eye(n), np.zeros(n))
    else:
        form = _schur(a, member.noise)
    size = np.linalg.norm(e) / _SMALL
    corner = form.z.conj().T @ (e / (size or 1.0)) @ form.z
    blocks = np.asfortranarray(np.block([[form.t, corner], [np.zeros_like(form.t), form.t]]))
    if power.is_integer:
        result = integer_power(blocks, round(power.value))
    else:
        result = function_of_triangular(blocks, np.concatenate([form.logarithms, form.logarithms]), power)
    return size * (form.z @ result[:n, n:] @ form.z.conj().T)


def _outward(form: _Form, f: Array) -> Array:
    return lapack.product(lapack.product(form.z, f), form.z.conj().T)


def _schur(a: Array, noise: float) -> _Form:
    """A Schur form with a triangular t; raises where an eigenvalue has no logarithm, or a real matrix no real function."""
    t, z, eigenvalues, _ = lapack.schur(a)
    if not np.isfinite(t).all():
        raise _Failed(Failure.NOT_CONVERGED)
    is_real = not np.iscomplexobj(a)
    if is_real and (eigenvalues.imag != 0).any():
        t, z = scipy.linalg.rsf2csf(t, z, check_finite=False)
    values = np.diagonal(t).copy()
    if (values == 0).any():
        raise _Failed(Failure.SINGULAR)
    if is_real:
        eigenvalue = near_negative_eigenvalue(a, eigenvalues, noise)
        if eigenvalue is not None:
            raise _Failed(Failure.NEGATIVE if eigenvalue.imag == 0 else Failure.NEAR_NEGATIVE, eigenvalue)
        return _Form(np.asfortranarray(t), z, np.log(values))
    logarithms = np.log(values)
    logarithms[_below_cut(a, values, noise)] += 2j * np.pi
    return _Form(np.asfortranarray(t), z, logarithms)


def _below_cut(a: Array, values: Array, noise: float) -> Array:
    """Which eigenvalues rounding may have moved from the negative real axis below it: their argument is π and not -π."""
    tiny = noise * float(np.linalg.norm(a))
    # An eigenvalue farther from the axis than this is below it, or rounding has left it no digit.
    below = (values.real < 0) & (values.imag < 0) & (values.imag >= _ANGLE * values.real)
    out = below & (values.imag >= -tiny)
    unsure = np.flatnonzero(below & ~out & (values.imag >= defect_radius(len(a), noise / len(a)) * values.real))
    for k in unsure[np.argsort(-values[unsure].imag)[:_CANDIDATES]]:
        out[k] = smallest_singular_value(a - values[k].real * np.eye(len(a))) <= tiny
    return out


def _may_be_singular(a: Array, rtol: float) -> bool:
    """Whether a singular value may be at most rtol times the largest one."""
    return not float(np.linalg.norm(a)) * float(np.linalg.norm(lapack.inv(a))) * rtol < 1


class _Zero(NamedTuple):
    """A semisimple zero eigenvalue: its spectral projector, a with the zero moved to `shift`, the inverse off the projector."""

    projector: Array
    shifted: Array
    shift: float
    inverse: Array

    @classmethod
    def split(cls, member: _Member) -> _Zero | None:
        """None if a has full rank, or if dropping its small singular values would move its eigenvalues."""
        a = member.a
        split = split_null_space(load("numpy"), a[None], member.rtol)
        corner, across, moved, shift, p, count, dropped, defective = (x[0] for x in split)
        if not count:
            return None
        if member.power.is_logarithm:
            raise _Failed(Failure.SINGULAR)
        if defective:
            raise _Failed(Failure.DEFECTIVE_ZERO)
        rest, shift = np.eye(len(a)) - p, float(shift)
        inverse = rest @ (lapack.inv(moved) - p / shift) @ rest
        coupling = inverse @ across
        projector, inverse = p - coupling, inverse + inverse @ coupling
        amplification = np.linalg.norm(a) * np.hypot(np.linalg.norm(coupling), 1.0) * np.linalg.norm(inverse)
        if not dropped * amplification < 0.1:
            if np.linalg.matrix_rank(a, tol=0.0) == len(a):
                return None
            raise _Failed(Failure.UNCLEAR_ZERO, 1 / amplification)
        return cls(projector, corner + across + shift * projector, shift, inverse)

    def from_shifted(self, f: Array, shift_value: float) -> Array:
        """f(a), zero on the null space, from that of the shifted matrix."""
        rest = np.eye(len(f)) - self.projector
        return rest @ (f - shift_value * self.projector) @ rest


def _shift_value(zero: _Zero, power: Exponent) -> float:
    return float(scalar_function(load("numpy"), np.log(np.float64(zero.shift)), power))
