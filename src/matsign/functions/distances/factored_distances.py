"""The Bures distance and the fidelity of semidefinite matrices given by factors; `factored_pairs` has the formulas."""

from __future__ import annotations

from matsign._typing import Array, ArrayLike, Arrays, T
from matsign.backends import Backend
from matsign.core.members import Solution, overflow_failure, solution
from matsign.core.public import Residual, public_function
from matsign.functions.distances import factored_pairs as factored
from matsign.functions.distances import semidefinite_pairs as pairs
from matsign.functions.distances.underflow import with_underflow
from matsign.linalg.stacks import broadcast_scalar, safe_divisor, scale_to_unit


def finish(backend: Backend, value: Array, like: Array) -> Solution:
    """The solution, with a failure where the value overflows."""
    result = solution(backend, (backend.astype(value, backend.dtype_name(like.real)),))
    failure = overflow_failure(backend, broadcast_scalar(result.value[0]), result.failure)
    return result._replace(failure=failure)


def residual_of_number(backend: Backend, value: Array, exact: Array, noise: Array, scale: Array, e: Array) -> Residual:
    """For a value beside 2^e times these numbers."""
    gap = abs(backend.ldexp(value, -e) - backend.astype(exact, backend.dtype_name(value)))
    correction, zero = (backend.ldexp(x, e) for x in (gap + noise, scale))
    measured = Residual(gap / safe_divisor(backend, scale), (correction,), zero=(zero,))
    return with_underflow(backend, measured, value, exact > noise)


# The Bures distance.


def _bures(backend: Backend, f: Array, g: Array, *, squared: bool) -> Solution:
    b = factored.compare(backend, f, g).distance
    return finish(backend, b**2 if squared else b, f)


def _bures_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, squared: bool) -> Arrays:
    step = factored.squared_tangent(backend, arrays, tangents)
    return (step if squared else step * factored.inverse_of_twice(backend, value[0], *arrays),)


def _bures_cotangent(backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, squared: bool) -> Arrays:
    (bar,) = cotangents
    if not squared:
        bar = bar * factored.inverse_of_twice(backend, value[0], *arrays)
    return tuple(broadcast_scalar(bar) * x for x in factored.squared_gradients(backend, *arrays))


def _bures_residual(backend: Backend, value: tuple[Array], f: Array, g: Array, *, squared: bool) -> Residual:
    f, g, e = scale_to_unit(backend, f, g)
    b, scale = factored.compare(backend, g, f).distance, factored.size(backend, f, g)
    noise, fine = (
        factored.rounding(backend, factored.squared_gradients(backend, f, g), f, g),
        2 * backend.eps(f) * scale,
    )
    if squared:
        noise = noise + 2 * backend.astype(b, backend.dtype_name(fine)) * fine
        return residual_of_number(backend, value[0], b**2, noise, scale**2, 2 * e)
    scaled = backend.ldexp(value[0], -e)
    noise = pairs.error_of_root(backend, scaled, noise, factored.inverse_of_twice(backend, scaled, f, g))
    return residual_of_number(backend, value[0], b, noise + fine, scale, e)


def bures_distance_of_factors(F: ArrayLike[T], G: ArrayLike[T], *, squared: bool = False, errors: str = "raise") -> T:
    """Compute the Bures distance of two positive semidefinite matrices given by factors.

    The distance of A = F Fᴴ and B = G Gᴴ, the smallest ‖F - G W‖ over all unitary W, with columns of zeros for equal
    sizes [1]_. For few columns this takes no n × n matrix.

    Parameters
    ----------
    F : array_like (..., n, k)
        Factors of dtype float32, float64, complex64 or complex128.
    G : array_like (..., n, m)
        Factors of the other matrices.
    squared : bool, default False
        Return the square, which is differentiable also where A = B.
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
        If the result overflows, or a member holds NaN or infinity; and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If F or G is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    bures_distance : The same for A and B.
    frechet_distance_of_samples : Of samples, with their means.

    Notes
    -----
    Centred samples, which are the rows of X, are a factor of their covariance: ``F = X.T / sqrt(len(X) - 1)``. In this
    form nothing cancels, and nothing is squared: for near matrices d has an error of about eps ‖F‖, for singular and for
    nonsingular ones.

    The gradient of d² in F is 2 (F - G Uᴴ) with U = msign(FᴴG), which is 0 where F = G and finite at any rank. The
    gradient of d is returned as 0 where d is 0. Derivatives exist to any order where FᴴG has full rank. If both
    factors have more columns than rows, the derivatives are computed from A and B. A member of a batch gives the same
    bits as in a call by itself. Under ``jax.jit`` no error can be raised: a member without an answer is NaN.

    The backward error of `certify` is the difference from the distance of G from F, relative to the root of tr A + tr B
    (squared: to tr A + tr B). The forward error adds the effect of rounding of F and G.

    References
    ----------
    .. [1] R. Bhatia, T. Jain and Y. Lim, "On the Bures-Wasserstein distance between positive definite matrices", Expo.
       Math. 37(2), 2019, pp. 165-191, doi:10.1016/j.exmath.2018.01.002.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import bures_distance_of_factors
    >>> F, G = np.zeros((1000, 1)), np.zeros((1000, 2))
    >>> F[0, 0], G[0, 0], G[7, 1] = 2.0, 1.0, 3.0
    >>> round(float(bures_distance_of_factors(F, G, squared=True)), 12)  # (2 - 1)² + (0 - 3)²
    10.0
    """
    return BURES_DISTANCE_OF_FACTORS(F, G, squared=squared, errors=errors)


BURES_DISTANCE_OF_FACTORS = public_function(
    bures_distance_of_factors,
    "(n,k),(n,m)->()",
    solve=_bures,
    residual=_bures_residual,
    tangent=_bures_tangent,
    cotangent=_bures_cotangent,
    kinds=("real",),
)


# The fidelity.


def _fidelity(backend: Backend, f: Array, g: Array, *, squared: bool) -> Solution:
    root = factored.compare(backend, f, g).root
    return finish(backend, root**2 if squared else root, f)


def _slope(backend: Backend, value: Array, squared: bool) -> Array:
    """The derivative of the value by the root of the fidelity."""
    return 2 * backend.xp.sqrt(value) if squared else backend.xp.ones_like(value)


def _fidelity_tangent(backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays, *, squared: bool) -> Arrays:
    return (_slope(backend, value[0], squared) * factored.root_tangent(backend, arrays, tangents),)


def _fidelity_cotangent(
    backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays, *, squared: bool
) -> Arrays:
    bar = broadcast_scalar(cotangents[0] * _slope(backend, value[0], squared))
    return tuple(bar * x for x in factored.partners(backend, *arrays))


def _fidelity_residual(backend: Backend, value: tuple[Array], f: Array, g: Array, *, squared: bool) -> Residual:
    (f, e), (g, h) = (scale_to_unit(backend, x) for x in (f, g))
    root, scale = factored.compare(backend, g, f).root, backend.norm(f) * backend.norm(g)
    noise = factored.rounding(backend, factored.partners(backend, f, g), f, g) + backend.eps(f) * scale
    if squared:
        noise = 2 * backend.astype(root, backend.dtype_name(noise)) * noise
        return residual_of_number(backend, value[0], root**2, noise, scale**2, 2 * (e + h))
    return residual_of_number(backend, value[0], root, noise, scale, e + h)


def fidelity_of_factors(F: ArrayLike[T], G: ArrayLike[T], *, squared: bool = True, errors: str = "raise") -> T:
    """Compute the fidelity of two density matrices given by factors, such as state vectors.

    The fidelity of A = F Fᴴ and B = G Gᴴ is the square of the sum of the singular values of FᴴG [1]_: for state
    vectors the square of the modulus of ⟨F, G⟩. For few columns this takes no n × n matrix.

    Parameters
    ----------
    F : array_like (..., n, k)
        Factors of dtype float32, float64, complex64 or complex128: the columns are states times the roots of their
        probabilities.
    G : array_like (..., n, m)
        Factors of the other matrices.
    squared : bool, default True
        With False the root of the fidelity is returned, which some authors and QuTiP call the fidelity.
    errors : {"raise", "nan"}, default "raise"
        What to do if a member of the batch has no answer: raise `SpectrumError`, or return NaN for that member and the
        right result for the others.

    Returns
    -------
    fidelity : array (...)
        The fidelities, real.

    Raises
    ------
    SpectrumError
        If the result overflows, or a member holds NaN or infinity; and ``errors="raise"``.
    ValueError
        If a shape does not fit, an option has a value other than those above, or the arrays lie on different devices.
    TypeError
        If F or G is not a dense array of numbers of a supported dtype, or they belong to different libraries.

    See Also
    --------
    fidelity : The same for A and B.
    bures_distance_of_factors : The distance √(tr A + tr B - 2 √fidelity).

    Notes
    -----
    The gradient of the root in F is G Uᴴ with U = msign(FᴴG), which is finite at any rank. Derivatives exist to any order
    where FᴴG has full rank. Batches and ``jax.jit`` are as for `bures_distance_of_factors`. The backward error of
    `certify` is the difference from the fidelity of G and F, relative to ‖F‖²‖G‖² or its root. The forward error adds the
    effect of rounding of F and G.

    References
    ----------
    .. [1] A. Uhlmann, "The 'transition probability' in the state space of a ∗-algebra", Rep. Math. Phys. 9(2), 1976,
       pp. 273-279, doi:10.1016/0034-4877(76)90060-4.

    Examples
    --------
    >>> import numpy as np
    >>> from matsign import fidelity_of_factors
    >>> zero, plus = np.array([[1.0], [0.0]]), np.array([[1.0], [1.0]]) / np.sqrt(2)
    >>> round(float(fidelity_of_factors(zero, plus)), 12)
    0.5
    """
    return FIDELITY_OF_FACTORS(F, G, squared=squared, errors=errors)


FIDELITY_OF_FACTORS = public_function(
    fidelity_of_factors,
    "(n,k),(n,m)->()",
    solve=_fidelity,
    residual=_fidelity_residual,
    tangent=_fidelity_tangent,
    cotangent=_fidelity_cotangent,
    kinds=("real",),
)
