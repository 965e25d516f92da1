"""The H∞ norm of e ẋ = a x + b u, y = c x + d u, or of e x⁺ = a x + b u, y = c x + d u, for a stable pencil a - λ e: the largest
gain σ_max(c (s e - a)⁻¹ b + d) over all s = iω or s = exp(iω), and the ω where it is attained. Without an e, e = I.

`direct.peak_gain` has the method, `peak_derivatives` the differentials.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple, overload

from matsign._typing import Array, ArrayLike, Arrays, NDArray, OptionalArrayLike, StateSpace, T, VectorLike
from matsign.backends import Backend
from matsign.core import scaling
from matsign.core.members import Solution, as_details
from matsign.core.objects import takes_model
from matsign.core.public import Residual
from matsign.direct import peak_gain
from matsign.equations.lyapunov.factors import in_units
from matsign.equations.norms.models import norm_of_model, norm_solution
from matsign.equations.norms.peak_derivatives import peak_cotangent, peak_tangent
from matsign.linalg.stacks import broadcast_scalar, random_probe, relative_norm, safe_divisor


class ScaledModel(NamedTuple):
    """A model (a, b, c, d, e) in units that fit, e perhaps None.

    The entries are near 1. The caller's gains are 2^gain times those of the model, the frequencies 2^rate times.
    """

    arrays: Arrays
    gain: Array
    rate: Array

    def given(self) -> Arrays:
        """The arrays but for a None."""
        return tuple(x for x in self.arrays if x is not None)


def _scale_model(
    backend: Backend, discrete: bool, a: Array, b: Array, c: Array, d: Array | None, e: Array | None
) -> ScaledModel:
    xp, s = backend.xp, in_units(backend, a, b, c, e)
    rate = 0 * s.half if discrete else 2 * s.half
    gain = s.b_scale + s.c_scale - rate
    a = backend.ldexp(s.a, broadcast_scalar(2 * s.half)) if discrete else s.a
    if d is None:
        d = backend.zeros((len(a), c.shape[-2], b.shape[-1]), a)
        return ScaledModel((a, s.b, s.c, d, s.descriptor), gain, rate)
    moving = (b != 0).any((-1, -2)) & (c != 0).any((-1, -2))
    own = scaling.size_of(backend, d)
    direct = xp.where((d != 0).any((-1, -2)), own, gain)
    top = xp.where(moving, xp.maximum(gain, direct), direct)
    c = backend.ldexp(s.c, broadcast_scalar(xp.where(moving, gain - top, 0 * top)))
    return ScaledModel((a, s.b, c, backend.ldexp(d, broadcast_scalar(-top)), s.descriptor), top, rate)


def _solver_of(*, discrete: bool) -> Callable[..., Solution]:
    def solve(
        backend: Backend, a: Array, b: Array, c: Array, d: Array | None = None, e: Array | None = None
    ) -> Solution:
        m = _scale_model(backend, discrete, a, b, c, d, e)
        number, code = backend.ones(a), backend.int_zeros(a)
        gain, frequency, failure, detail, steps = backend.host_callback(
            functools.partial(peak_gain.peak_gain, discrete=discrete), (number, number, code, number, code), *m.given()
        )
        at_infinity = ~backend.xp.isfinite(frequency)
        norm, frequency = backend.ldexp(gain, m.gain), backend.ldexp(frequency, m.rate)
        finite = backend.xp.isfinite(norm) & (backend.xp.isfinite(frequency) | at_infinity)
        return norm_solution(backend, (norm, frequency), finite, failure, steps, as_details(backend, a, detail))

    return solve


def _residual_of(*, discrete: bool) -> Callable[..., Residual]:
    def residual(
        backend: Backend,
        value: Arrays,
        a: Array,
        b: Array,
        c: Array,
        d: Array | None = None,
        e: Array | None = None,
    ) -> Residual:
        m, one = _scale_model(backend, discrete, a, b, c, d, e), backend.ones(a)
        norm, frequency = backend.ldexp(value[0], -m.gain), backend.ldexp(value[1], -m.rate)
        gap, above, size, step = backend.host_callback(
            functools.partial(peak_gain.measure, discrete=discrete), (one,) * 4, norm, frequency, *m.given()
        )
        moved = [_moved_by_rounding(backend, discrete, (norm, frequency), m.arrays, k) for k in range(2)]
        norm_error = gap + above + backend.xp.hypot(*(x for x, _ in moved))
        frequency_error = backend.xp.abs(step) + backend.xp.hypot(*(x for _, x in moved))
        correction = backend.ldexp(norm_error, m.gain), backend.ldexp(frequency_error, m.rate)
        upper = value[0] * (1 + peak_gain.relative_gap(backend.eps(a)))
        upper = backend.xp.where(value[0] + backend.ldexp(above, m.gain) > upper, backend.xp.inf + 0 * upper, upper)
        own = relative_norm(backend, correction[0][:, None, None], value[0][:, None, None])
        return Residual((gap + above) / safe_divisor(backend, size), correction, measures=(upper, own))

    return residual


def _moved_by_rounding(backend: Backend, discrete: bool, value: Arrays, arrays: Arrays, k: int) -> Arrays:
    """The moduli of the changes of norm and frequency under the k-th random perturbation of each entry by rounding."""
    tangents = tuple(
        None if x is None else backend.eps(x) * x * random_probe(backend, 2 * x.shape[-2], x.shape[-1], x)[:, k::2]
        for x in arrays
    )
    return tuple(backend.xp.abs(x) for x in peak_tangent(backend, discrete, value, arrays, tangents))


def _sizes_of_pencil(backend: Backend, discrete: bool, a: Array, e: Array | None) -> tuple[Array, Array]:
    """Exponents of a and e; the same for both in discrete time."""
    if e is None:
        of_a = scaling.size_of(backend, a)
        return (0 * of_a, 0 * of_a) if discrete else (of_a, 0 * of_a)
    if discrete:
        together = scaling.size_of(backend, a, e)
        return together, together
    return scaling.size_of(backend, a), scaling.size_of(backend, e)


def _powers_of(*, discrete: bool) -> Callable[..., scaling.Powers]:
    def powers(
        backend: Backend, a: Array, b: Array, c: Array, d: Array | None, e: Array | None = None
    ) -> scaling.Powers:
        of_a, of_e = _sizes_of_pencil(backend, discrete, a, e)
        of_b, of_c = scaling.size_of(backend, b), scaling.size_of(backend, c)
        top = of_b + of_c - of_a
        top = top if d is None else backend.xp.maximum(top, scaling.size_of(backend, d))
        return scaling.Powers((of_a, of_b, top + of_a - of_b, top, of_e), (top, of_a - of_e))

    return powers


def _tangent_of(*, discrete: bool) -> Callable[..., Arrays]:
    def tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        return peak_tangent(backend, discrete, value, arrays, tangents)

    return scaling.tangent_at_size(_powers_of(discrete=discrete), tangent)


def _cotangent_of(*, discrete: bool) -> Callable[..., Arrays]:
    def cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        return peak_cotangent(backend, discrete, value, arrays, cotangents)

    return scaling.cotangent_at_size(_powers_of(discrete=discrete), cotangent)


_MODEL, _NORM_AND_FREQUENCY = "(n,n),(n,m),(p,n),(p,m)", "(),()"


@overload
def hinf_norm(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> tuple[T, T]: ...
@overload
def hinf_norm(sys: StateSpace, /, *, errors: str = "raise") -> tuple[NDArray, NDArray]: ...
@takes_model("ABCD", discrete=False, other="discrete_hinf_norm")
def hinf_norm(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> tuple[T, T]:
    """Compute the H∞ norm of a linear system in continuous time, and where it is attained.

    For the stable system ẋ = a x + b u, y = c x + d u: the largest gain ‖y‖/‖u‖ over all frequencies and directions of u.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues in the open left half plane; float32, float64, complex64 or
        complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    d : array_like (..., p, m), optional
        Direct terms. Default: 0.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e ẋ = a x + b u. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no norm: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    norm : array (...)
        The norms, real.
    frequency : array (...)
        Angular frequencies at which the gain is the norm: at least 0 for real models, of either sign for complex ones, and
        infinite where the norm is the gain of d alone.

    Raises
    ------
    SpectrumError
        If a is not stable, or stable only by rounding, if e is singular (the message has its reciprocal condition
        number), or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    discrete_hinf_norm : The norm in discrete time.
    h2_norm : The gain for white noise, a mean over all frequencies.
    balanced_truncation : A reduced model, with a bound of the H∞ norm of its error.

    Notes
    -----
    The gain at ω is the largest singular value of G(iω), with G(s) = c (s I - a)⁻¹ b + d. The returned gain is attained at
    the returned frequency, so it is a lower bound of the norm. A Hamiltonian matrix for a level above its rounding errors
    has no imaginary eigenvalue, so no frequency has a larger one [1]_ [2]_. `certify` repeats this check, also for a level
    higher by a relative 4e-10 (7e-5 in single precision), where rounding matters less: ``measures["upper_bound"]`` is
    that level, or infinity if a larger gain is found. The computation runs in double precision on the CPU, in NumPy; it
    costs one or a few eigenvalue problems of size 2n.

    With e, G(s) = c (s e - a)⁻¹ b + d. A point of the imaginary axis becomes infinity, so that e is never inverted.

    The derivative of the norm is Re uᴴ dG v, with the singular vectors u and v of the largest singular value at the
    frequency. It has derivatives of every order where the maximum is unique. If the norm is attained at several
    frequencies, or by several singular values, it has no derivative, and one of the subgradients is returned. The
    derivative of the frequency is then NaN, infinite, or that of one of the frequencies. At a norm of 0 the derivative
    returned is 0. A member of a batch gives the same bits as in a call by itself. Under ``jax.jit`` no error can be
    raised: a member without an answer is NaN.

    The backward error of `certify` is the difference of the norm from the gain at the frequency, over ‖c‖ ‖(iω I - a)⁻¹
    b‖ + ‖d‖. The forward error is the larger one of norm and frequency, infinite for the frequency of a flat peak; a
    frequency of infinity counts as exact. ``measures["norm_error"]`` is that of the norm alone.

    ``hinf_norm(sys)`` takes the matrices of a model ``sys``, a ``scipy.signal.StateSpace`` or a ``control.StateSpace``.
    A vector as b is a column, as c a row.

    References
    ----------
    .. [1] S. Boyd and V. Balakrishnan, "A regularity result for the singular values of a transfer matrix and a
       quadratically convergent algorithm for computing its L∞-norm", Systems Control Lett. 15(1), 1990, pp. 1-7,
       doi:10.1016/0167-6911(90)90037-U.
    .. [2] N. A. Bruinsma and M. Steinbuch, "A fast algorithm to compute the H∞-norm of a transfer function matrix",
       Systems Control Lett. 14(4), 1990, pp. 287-293, doi:10.1016/0167-6911(90)90049-Z.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import hinf_norm
    >>> a, b, c = np.array([[0.0, 1.0], [-1.0, -0.02]]), np.array([[0.0], [1.0]]), np.array([[1.0, 0.0]])
    >>> norm, frequency = hinf_norm(a, b, c)  # an oscillator with one percent of critical damping
    >>> bool(abs(norm - 1 / (0.02 * np.sqrt(1 - 0.01**2))) < 1e-10), bool(abs(frequency - np.sqrt(1 - 2 * 0.01**2)) < 1e-12)
    (True, True)
    """
    return HINF_NORM(a, b, c, d, e, errors=errors)


HINF_NORM = norm_of_model(
    hinf_norm,
    *(_MODEL, _NORM_AND_FREQUENCY),
    discrete=False,
    solve=_solver_of(discrete=False),
    residual=_residual_of(discrete=False),
    measures=("upper_bound", "norm_error"),
    tangent=_tangent_of(discrete=False),
    cotangent=_cotangent_of(discrete=False),
)


@overload
def discrete_hinf_norm(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> tuple[T, T]: ...
@overload
def discrete_hinf_norm(sys: StateSpace, /, *, errors: str = "raise") -> tuple[NDArray, NDArray]: ...
@takes_model("ABCD", discrete=True, other="hinf_norm")
def discrete_hinf_norm(
    a: ArrayLike[T],
    b: VectorLike[T],
    c: VectorLike[T],
    d: OptionalArrayLike[T] = None,
    *,
    e: OptionalArrayLike[T] = None,
    errors: str = "raise",
) -> tuple[T, T]:
    """Compute the H∞ norm of a linear system in discrete time, and where it is attained.

    For the stable system x⁺ = a x + b u, y = c x + d u: the largest gain ‖y‖/‖u‖ over all frequencies and directions of u.

    Parameters
    ----------
    a : array_like (..., n, n)
        System matrices with all eigenvalues inside the unit circle; float32, float64, complex64 or
        complex128.
    b : array_like (..., n, m)
        Input matrices.
    c : array_like (..., p, n)
        Output matrices.
    d : array_like (..., p, m), optional
        Direct terms. Default: 0.
    e : array_like (..., n, n), optional
        Descriptor matrices, invertible, of the model e x⁺ = a x + b u. Default: I.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no norm: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    norm : array (...)
        The norms, real.
    frequency : array (...)
        Angles θ per step for which the gain at exp(iθ) is the norm: from 0 to π for real models, from -π to π for complex
        ones. For a sampling time dt, the angular frequency is θ/dt.

    Raises
    ------
    SpectrumError
        If a is not stable, or stable only by rounding, if e is singular (the message has its reciprocal condition
        number), or if a member holds NaN or infinity, and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If an argument is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    hinf_norm : The norm in continuous time.
    discrete_h2_norm : The gain for white noise, a mean over all frequencies.

    Notes
    -----
    The gain at θ is the largest singular value of G(exp(iθ)), with G(z) = c (z I - a)⁻¹ b + d. A bilinear map that sends
    the point 1 or -1 to infinity gives the Hamiltonian matrix of a model in continuous time. Everything else is as for
    `hinf_norm`.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import discrete_hinf_norm
    >>> a, b, c = np.array([[0.5]]), np.array([[1.0]]), np.array([[1.0]])
    >>> discrete_hinf_norm(a, b, c)  # 1 / (z - 1/2) at z = 1
    (array(2.), array(0.))
    """
    return DISCRETE_HINF_NORM(a, b, c, d, e, errors=errors)


DISCRETE_HINF_NORM = norm_of_model(
    discrete_hinf_norm,
    *(_MODEL, _NORM_AND_FREQUENCY),
    discrete=True,
    solve=_solver_of(discrete=True),
    residual=_residual_of(discrete=True),
    measures=("upper_bound", "norm_error"),
    tangent=_tangent_of(discrete=True),
    cotangent=_cotangent_of(discrete=True),
)
