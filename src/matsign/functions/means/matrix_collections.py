"""Collections of k matrices as members (k, n, n) of a stack, with weights, for their means."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from matsign._typing import Array
from matsign.backends import Backend
from matsign.core.failures import Failure
from matsign.core.members import Solution, solution
from matsign.linalg.stacks import adjoint, hermitian, rounding_probe, safe_divisor, scale_to_unit


def check_collection(name: str, stack: Any) -> None:
    """Raise a ValueError for a list of matrices of different shapes, and for no matrices."""
    if isinstance(stack, (list, tuple)):
        shapes = list(dict.fromkeys(np.shape(x) for x in stack if not isinstance(x, (list, tuple))))
        if len(shapes) > 1:
            raise ValueError(
                f"{name}: stack holds arrays of different shapes, {shapes[0]} and {shapes[1]}; a mean needs matrices of one "
                "size. Collections of different lengths need a call each, or weights of 0 for identity matrices that fill up"
            )
    shape = getattr(stack, "shape", None) or np.shape(stack) if not isinstance(stack, (list, tuple)) else (len(stack),)
    axis = -3 if len(shape) >= 3 else 0
    if len(shape) and shape[axis] == 0:
        raise ValueError(f"{name}: stack holds no matrices; a mean needs at least one")


class Weights(NamedTuple):
    """Weights (B, k) of sum 1, those of the caller in units 2^e, and the sum of these."""

    w: Array
    given: Array
    total: Array
    e: Array


def normalised_weights(backend: Backend, weights: Array | None, stack: Array) -> Weights:
    """The weights divided by their sum; equal ones for None. Beside complex matrices they come as complex numbers."""
    ones = backend.xp.ones_like(stack.real[:, :, 0, 0])
    given, e = scale_to_unit(backend, (ones if weights is None else weights.real)[:, :, None])
    given = given[:, :, 0]
    total = backend.xp.sum(given, axis=-1)
    return Weights(given / safe_divisor(backend, total)[:, None], given, total, e)


def flat(x: Array) -> Array:
    """(B, k, n, n) as one stack of B k matrices."""
    return x.reshape((x.shape[0] * x.shape[1], *x.shape[2:]))


def as_collections(x: Array, like: Array) -> Array:
    """One stack as the collections of which `like` consists."""
    return x.reshape((*like.shape[:2], *x.shape[1:]))


def weighted_sum(backend: Backend, w: Array, x: Array) -> Array:
    """Σ wᵢ xᵢ, as a product, so that a member has the same bits in every batch."""
    b, k, n, m = x.shape
    w = backend.astype(w, backend.dtype_name(x))
    return (w[:, None, :] @ x.reshape((b, k, n * m))).reshape((b, n, m))


def schur_product_in(v: Array, kernel: Array, x: Array) -> Array:
    """Vᵢ (kernelᵢ ∘ Vᵢᴴ x Vᵢ) Vᵢᴴ for a matrix x (B, n, n), or one for each i."""
    x = x if x.ndim == 4 else x[:, None]
    return v @ (kernel * (adjoint(v) @ x @ v)) @ adjoint(v)


def inner_products(backend: Backend, x: Array, y: Array) -> Array:
    """Re tr(xᵢᴴ y), (B, k), for a collection x and one matrix y."""
    return backend.xp.sum((x.conj() * y[:, None]).real, axis=(-2, -1))


def cotangent_of_weights(backend: Backend, weights: Weights, bar: Array, kind: str) -> Array:
    """The cotangent of the weights of the caller, of this dtype, for that of the weights of sum 1."""
    bar = bar - backend.xp.sum(weights.w * bar, axis=-1, keepdims=True)
    bar = backend.ldexp(bar / weights.total[:, None], -weights.e[:, None])
    return backend.astype(bar, kind)


def tangent_of_weights(backend: Backend, weights: Weights, dw: Array) -> Array:
    """The tangent of the weights of sum 1."""
    dw = backend.ldexp(dw.real / weights.total[:, None], -weights.e[:, None])
    return dw - weights.w * backend.xp.sum(dw, axis=-1, keepdims=True)


def refuse_weights(backend: Backend, weights: Array | None, result: Solution) -> Solution:
    """The solution with the failure WEIGHTS where a weight is negative or NaN, or all are 0."""
    if weights is None:
        return result
    least, top = backend.xp.min(weights.real, axis=-1), backend.xp.max(weights.real, axis=-1)
    valid = (least >= 0) & (top > 0) & (top < math.inf)
    detail = backend.xp.where(top < math.inf, least, top)
    if backend.is_complex(weights):
        imaginary = backend.xp.max(backend.xp.abs(weights.imag), axis=-1)
        valid, detail = valid & (imaginary == 0), detail + 1j * imaginary
    return refuse(backend, result, Failure.WEIGHTS, ~valid, detail)


def refuse(backend: Backend, result: Solution, reason: Failure, mask: Array, detail: Array) -> Solution:
    """The solution with this failure for the members of the mask, in place of any other."""
    mark = solution(backend, result.value, reason, mask, detail=detail)
    failed = mark.failure > 0
    return result._replace(
        failure=backend.xp.where(failed, mark.failure, result.failure),
        detail=backend.xp.where(failed[:, None], mark.detail, result.detail),
    )


def first_index(backend: Backend, mask: Array) -> Array:
    """The index of the first True of each row, as a float."""
    place = backend.astype(backend.asarray(np.arange(mask.shape[-1]), mask), "float32")
    return backend.xp.min(backend.xp.where(mask, place, float(mask.shape[-1]) + 0 * place), axis=-1)


def of_first(backend: Backend, which: Array, x: Array) -> Array:
    """The entry of each row of x (B, k) at an index of `first_index`, and 0 beyond the end."""
    places = backend.astype(backend.asarray(np.arange(x.shape[-1]), x), "float32")
    return backend.xp.sum(backend.xp.where(places == which[:, None], x, backend.xp.zeros_like(x)), axis=-1)


def spread_units(x: Array, u: Array) -> Array:
    """Exponents u (B, n) of the rows and columns as those of the entries of x, a stack of matrices or collections."""
    e = u[:, :, None] + u[:, None, :]
    return e if x.ndim == 3 else e[:, None]


def diagonal_units(backend: Backend, a: Array) -> Array:
    """Exponents u (B, n) for which 2^-2uᵢ aᵢᵢ is in [1/4, 1), of a matrix with a positive diagonal."""
    return (backend.exponent(abs(backend.xp.linalg.diagonal(a).real)) + 1) // 2


def rounding_of_collection(backend: Backend, stack: Array, a: Array) -> Array:
    """Fixed random rounding errors in the dtype of `stack` of the Hermitian matrices `a`, of signs that do not add up."""
    scale = backend.eps(stack) / backend.eps(a)
    probe = hermitian(as_collections(rounding_probe(backend, flat(a), scale * backend.norm(flat(a))), a))
    signs = backend.asarray(np.sign(np.sin(1.0 + np.arange(a.shape[1]) ** 2)), a.real)
    return probe * backend.astype(signs, backend.dtype_name(a))[None, :, None, None]
