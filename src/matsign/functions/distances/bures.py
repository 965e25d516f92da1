"""The Bures distance and the fidelity of two positive semidefinite matrices of any rank.

`semidefinite_pairs` has the formulas and the derivatives.
"""

from __future__ import annotations

from typing import Any

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.functions.distances import semidefinite_pairs as pairs
from matsign.functions.distances.semidefinite_values import Numbers, compute
from matsign.functions.distances.underflow import with_underflow
from matsign.linalg.stacks import broadcast_scalar, eye, safe_divisor


def finish(backend: Backend, value: Array, p: Numbers, a: Array, b: Array, rtol: float | None) -> Solution:
    """The solution, with a failure where a matrix is indefinite or the value overflows."""
    value = backend.astype(value, backend.dtype_name(a.real))
    result = solution(backend, (value,))
    for x, f, reason in ((a, p.a, Failure.INDEFINITE_A), (b, p.b, Failure.INDEFINITE_B)):
        result = pairs.indefinite(backend, x, f, rtol, reason, result)
    failure = overflow_failure(backend, broadcast_scalar(value), result.failure)
    return result._replace(failure=failure)


def _clipped_share(backend: Backend, p: pairs.Pair) -> Array:
    """The size of the negative eigenvalues that count as zero, relative to the largest one."""
    least = backend.xp.minimum(p.a.least, p.b.least)
    return backend.xp.maximum(-least, 0 * least)


def residual_of_number(
    backend: Backend, value: Array, exact: Array, rounding: Array, scale: Array, p: pairs.Pair, share: Array
) -> Residual:
    """`share` is the exact number, or its root, relative to the largest one: it does not underflow."""
    kind = backend.dtype_name(value)
    exact, clipped = backend.astype(exact, kind), backend.astype(_clipped_share(backend, p), kind)
    gap = abs(value - exact)
    measured = Residual(gap / safe_divisor(backend, scale), (gap + rounding,), measures=(clipped,), zero=(scale,))
    return with_underflow(backend, measured, value, share > 100 * p.w.shape[-1] * backend.eps(value))


# The Bures distance.


def _bures(backend: Backend, a: Array, b: Array, *, squared: bool, rtol: float | None) -> Solution:
    p = compute(backend, a, b, rtol)
    return finish(backend, p.distance**2 if squared else p.distance, p, a, b, rtol)


def _bures_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, squared: bool, rtol: float | None
) -> Arrays:
    step = pairs.squared_tangent(backend, arrays, tangents, rtol)
    return (step if squared else step * pairs.inverse_of_twice(backend, value[0], *arrays),)


def _bures_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, squared: bool, rtol: float | None
) -> Arrays:
    (bar,) = cotangents
    if not squared:
        bar = bar * pairs.inverse_of_twice(backend, value[0], *arrays)
    return tuple(broadcast_scalar(bar) * g for g in pairs.gradients(backend, arrays, rtol))


def _bures_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, *, squared: bool, rtol: float | None
) -> Residual:
    p, scale = pairs.compare(backend, b, a, rtol), pairs.size(backend, a, b)
    share = p.distance / safe_divisor(backend, scale)
    noise, fine = pairs.rounding_of_squared(backend, a, b, rtol), 2 * backend.eps(a) * scale
    if squared:
        noise = noise + 2 * p.distance * fine
        return residual_of_number(backend, value[0], p.distance**2, noise, scale**2, p, share)
    noise = pairs.error_of_root(backend, value[0], noise, pairs.inverse_of_twice(backend, value[0], a, b)) + fine
    return residual_of_number(backend, value[0], p.distance, noise, scale, p, share)


def bures_distance(
    A: ArrayLike[T], B: ArrayLike[T], *, squared: bool = False, rtol: float | None = None, errors: str = "raise"
) -> T:
    """Compute the Bures distance of two positive semidefinite matrices.

    d² = tr A + tr B - 2 tr (A^{1/2} B A^{1/2})^{1/2}: the 2-Wasserstein distance of the Gaussians N(0, A) and N(0, B)
    [1]_, and for density matrices the Bures distance of quantum states.

    Parameters
    ----------
    A : array_like (..., n, n)
        Hermitian positive semidefinite matrices of any rank, of dtype float32, float64, complex64 or complex128.
    B : array_like (..., n, n)
        Matrices of the same kind and size.
    squared : bool, default False
        Return d², which is differentiable also where A = B.
    rtol : float, optional
        An eigenvalue of at most ``rtol`` times the largest one counts as zero; negative ones are refused below -10
        times that. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    d : array (...)
        The distances, or their squares; real.

    Raises
    ------
    SpectrumError
        If A or B has a negative eigenvalue, beyond rounding; if the result overflows, or a member holds NaN or infinity;
        and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or a
        NumPy array is not Hermitian.
    TypeError
        If A or B is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    frechet_distance : With the means of the Gaussians, as the FID of image models.
    fidelity : The similarity of density matrices.
    coupled_root : ``coupled_root(B, A)[0]`` is the optimal map from N(0, A) to N(0, B).

    Notes
    -----
    With factors A = K Kᴴ and B = L Lᴴ, d is the smallest ‖K - L W‖ over all unitary W. In this form nothing cancels: for
    near matrices d has an error of about eps ‖K‖, where the formula with traces has the root of eps. Large matrices with
    a distance that is not small take the traces and a sum of singular values, which needs no vectors. The factors are
    those of eigenvectors or of Cholesky, in double precision.

    The gradient of d² is I - T, where T is the optimal map with T A T = B: it is 0 where A = B is nonsingular. Where A is
    singular, it is that along directions that keep the rank of A, and the identity on the null space of A, which is exact
    where B is zero there, too: it is finite at any rank. The gradient of d is returned as 0 where d is 0. Second
    derivatives exist where A and B are nonsingular. A member of a batch gives the same bits as in a call by itself. Under
    ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the difference from a second computation, relative to the root of tr A + tr B
    (squared: to tr A + tr B). The forward error adds the effect of rounding of A and B. It also measures ``clipped``, the
    size of the negative eigenvalues that counted as zero, relative to the largest one.

    References
    ----------
    .. [1] R. Bhatia, T. Jain and Y. Lim, "On the Bures-Wasserstein distance between positive definite matrices", Expo.
       Math. 37(2), 2019, pp. 165-191, doi:10.1016/j.exmath.2018.01.002.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import bures_distance
    >>> A, B = np.diag([4.0, 0.0]), np.diag([1.0, 9.0])  # (2 - 1)² + (0 - 3)²
    >>> round(float(bures_distance(A, B, squared=True)), 12), round(float(bures_distance(A, B)), 6)
    (10.0, 3.162278)
    """
    return BURES_DISTANCE(A, B, squared=squared, rtol=rtol, errors=errors)


CHECKED: dict[str, Any] = {"kinds": ("real",), "measures": ("clipped",), "hermitian": ("A", "B")}

BURES_DISTANCE = public_function(
    bures_distance,
    "(n,n),(n,n)->()",
    solve=_bures,
    residual=_bures_residual,
    tangent=_bures_tangent,
    cotangent=_bures_cotangent,
    **CHECKED,
)


# The fidelity.


def _fidelity(backend: Backend, a: Array, b: Array, *, squared: bool, rtol: float | None) -> Solution:
    p = compute(backend, a, b, rtol)
    return finish(backend, p.root**2 if squared else p.root, p, a, b, rtol)


def _slope(backend: Backend, value: Array, squared: bool) -> Array:
    """The derivative of the value by f."""
    return 2 * backend.xp.sqrt(value) if squared else backend.xp.ones_like(value)


def _fidelity_tangent(
    backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, squared: bool, rtol: float | None
) -> Arrays:
    return (_slope(backend, value[0], squared) * pairs.root_tangent(backend, arrays, tangents, rtol),)


def _fidelity_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, squared: bool, rtol: float | None
) -> Arrays:
    bar = broadcast_scalar(cotangents[0] * _slope(backend, value[0], squared) / 2)
    return tuple(bar * (eye(backend, g) - g) for g in pairs.gradients(backend, arrays, rtol))


def _fidelity_residual(
    backend: Backend, value: tuple[Array], a: Array, b: Array, *, squared: bool, rtol: float | None
) -> Residual:
    p, scale = pairs.compare(backend, b, a, rtol), pairs.size(backend, a, b) ** 2 / 2
    share = p.root / safe_divisor(backend, scale)
    noise = pairs.rounding_of_root(backend, a, b, rtol) + 2 * backend.eps(a) * p.root
    if squared:
        return residual_of_number(backend, value[0], p.root**2, 2 * abs(p.root) * noise, scale**2, p, share)
    return residual_of_number(backend, value[0], p.root, noise, scale, p, share)


def fidelity(
    A: ArrayLike[T], B: ArrayLike[T], *, squared: bool = True, rtol: float | None = None, errors: str = "raise"
) -> T:
    """Compute the fidelity of two density matrices.

    F = (tr (A^{1/2} B A^{1/2})^{1/2})² [1]_, [2]_: for pure states the square of the modulus of their inner product.

    Parameters
    ----------
    A : array_like (..., n, n)
        Hermitian positive semidefinite matrices of any rank, of dtype float32, float64, complex64 or complex128; density
        matrices have trace 1, which is not checked.
    B : array_like (..., n, n)
        Matrices of the same kind and size.
    squared : bool, default True
        With False the root of F is returned, which some authors and QuTiP call the fidelity.
    rtol : float, optional
        An eigenvalue of at most ``rtol`` times the largest one counts as zero; negative ones are refused below -10
        times that. Default: n eps.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    F : array (...)
        The fidelities, real.

    Raises
    ------
    SpectrumError
        If A or B has a negative eigenvalue, beyond rounding; if the result overflows, or a member holds NaN or infinity;
        and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, the arrays lie on different devices, or a
        NumPy array is not Hermitian.
    TypeError
        If A or B is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    bures_distance : The distance √(tr A + tr B - 2 √F).

    Notes
    -----
    The root of F is the sum of the singular values of KᴴL for factors A = K Kᴴ and B = L Lᴴ, and so never complex or
    negative. Its derivative is tr(T dA)/2 + tr(T⁻¹ dB)/2 with T A T = B; for singular matrices that along directions
    that keep their ranks, which is finite. Second derivatives exist where A and B are nonsingular. Batches and
    ``jax.jit`` are as for `bures_distance`.

    The backward error of `certify` is the difference from a second computation, relative to (tr A + tr B)/2, or its
    square. The forward error adds the effect of rounding of A and B. It also measures ``clipped``, the size of the
    negative eigenvalues that counted as zero, relative to the largest one.

    References
    ----------
    .. [1] A. Uhlmann, "The 'transition probability' in the state space of a ∗-algebra", Rep. Math. Phys. 9(2), 1976,
       pp. 273-279, doi:10.1016/0034-4877(76)90060-4.
    .. [2] R. Jozsa, "Fidelity for mixed quantum states", J. Mod. Opt. 41(12), 1994, pp. 2315-2323,
       doi:10.1080/09500349414552171.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import fidelity
    >>> zero, plus = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0.5, 0.5], [0.5, 0.5]])
    >>> round(float(fidelity(zero, plus)), 12)
    0.5
    """
    return FIDELITY(A, B, squared=squared, rtol=rtol, errors=errors)


FIDELITY = public_function(
    fidelity,
    "(n,n),(n,n)->()",
    solve=_fidelity,
    residual=_fidelity_residual,
    tangent=_fidelity_tangent,
    cotangent=_fidelity_cotangent,
    **CHECKED,
)
