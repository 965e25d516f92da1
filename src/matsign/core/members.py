"""Members of a stack: masks of failed members, chunks that fit the cache, empty results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from matsign._typing import Array, Arrays
from matsign.backends import CODES, Backend
from matsign.core.failures import Failure
from matsign.linalg.stacks import broadcast_to_rank, rectangular_eye


class Solution(NamedTuple):
    """What a solver returns: its arrays (B, ...) and for each member a `Failure`, the number of steps and a detail for the error.

    The detail is one number: (B, 2), its real and its imaginary part.
    """

    value: Arrays
    failure: Array
    iterations: Array
    detail: Array

    @classmethod
    def of(cls, flat: Arrays) -> Solution:
        """From the flat tuple that a bound operation returns."""
        return cls(flat[:-CODES], *flat[-CODES:])

    def flat(self) -> Arrays:
        return (*self.value, *self[1:])


def solution(
    backend: Backend,
    value: Arrays,
    failure: Failure = Failure.NONE,
    failed: Array | None = None,
    iterations: Array | None = None,
    detail: Array | None = None,
) -> Solution:
    """A `Solution` in which the members of the mask `failed` have this failure; `detail` is one number per member."""
    result = none = backend.int_zeros(value[0])
    if failed is not None and not backend.is_traced(failed) and not backend.any_true(failed):
        detail = None
    elif failed is not None:
        result = backend.xp.where(failed, none + int(failure), none)
    return Solution(
        tuple(value),
        result,
        none if iterations is None else backend.astype(iterations, "int32"),
        no_details(backend, value[0]) if detail is None else as_details(backend, value[0], detail),
    )


def nothing_failed(backend: Backend, failure: Array) -> bool:
    """True if all members are known to have an answer."""
    return not backend.is_traced(failure) and not backend.any_true(failure)


def overflow_failure(backend: Backend, x: Array, failure: Array) -> Array:
    """The failures, with OVERFLOW for members of the answer x that have not failed and are not finite."""
    if not backend.is_traced(x) and backend.known_finite(x):
        return failure
    return Failure.OVERFLOW.where(backend, (failure == 0) & ~backend.xp.isfinite(x).all((-1, -2)), failure)


def no_details(backend: Backend, like: Array) -> Array:
    """The details of a `Solution` without numbers for the error."""
    return backend.zeros((*backend.int_zeros(like).shape, 2), like.real)


def as_details(backend: Backend, like: Array, numbers: Array) -> Array:
    """Real or complex numbers (B,) as the details of a `Solution`."""
    if backend.is_complex(numbers):
        both = (numbers.real[..., None], numbers.imag[..., None])
    else:
        both = (numbers[..., None], backend.zeros((*numbers.shape, 1), numbers))
    return backend.astype(backend.xp.concat(both, axis=-1), backend.dtype_name(like.real))


def mask_nonfinite(backend: Backend, arrays: Arrays) -> tuple[Array | None, Arrays]:
    """The mask of nonfinite members (or None), and the arrays with `_neutral` in their place: LAPACK must not get a NaN."""
    bad = None
    for x in arrays:
        if x is None or x.ndim == 1:
            continue
        if not backend.known_finite(x):
            nonfinite = ~backend.xp.isfinite(x).all(tuple(range(1, x.ndim)))
            bad = nonfinite if bad is None else bad | nonfinite
    if bad is not None:
        arrays = tuple(
            x if x is None or x.ndim == 1 else backend.xp.where(broadcast_to_rank(bad, x), _neutral(backend, x), x)
            for x in arrays
        )
    return bad, arrays


def _neutral(backend: Backend, x: Array) -> Array | float:
    """What replaces nonfinite members: the identity, and vectors of ones."""
    return 1.0 if x.ndim == 2 else rectangular_eye(backend, x)


# Entries in one array of a chunk: an iteration on it stays in the cache of a core, and is long enough for a second
# thread to help. A fixed sequence of products passes over the chunk less often and takes a larger one.
CHUNK = 1 << 15


def map_chunks(backend: Backend, solve: Callable[..., Solution], stacks: Arrays, chunk_entries: int) -> Solution:
    """The solution of the whole stack; on a CPU it is solved in pieces that fit the cache."""
    pieces = results_of_chunks(backend, solve, stacks, chunk_entries)
    if len(pieces) == 1:
        return pieces[0]
    value = concatenate(backend, [piece.value for piece in pieces])
    return Solution(value, *concatenate(backend, [piece[1:] for piece in pieces]))


def results_of_chunks(backend: Backend, f: Callable[..., Any], stacks: Arrays, chunk_entries: int) -> list[Any]:
    """The results of a function for the chunks of these stacks, on the threads that the library leaves to us."""
    count = max(1, chunk_entries // max(math.prod(x.shape[1:]) for x in stacks if x is not None))
    workers = backend.workers(stacks[0])
    if len(stacks[0]) <= count or not workers:
        return [f(*stacks)]

    def piece(i: int) -> Any:
        with backend.full_precision(stacks[0]):
            return f(*(None if x is None else x[i : i + count] for x in stacks))

    starts = range(0, len(stacks[0]), count)
    if workers == 1:
        return list(map(piece, starts))
    with ThreadPoolExecutor(min(workers, len(starts))) as pool:
        return list(pool.map(piece, starts))


def concatenate(backend: Backend, results: Sequence[Arrays]) -> Arrays:
    """The results of chunks as those of the whole stack."""
    return tuple(backend.xp.concat(parts) for parts in zip(*results, strict=True))


def nan_failed(backend: Backend, result: Solution, bad: Array | None, keep: tuple[Failure, ...] = ()) -> Solution:
    """The solution with NaN in every failed member, except for the failures in `keep`."""
    failure = result.failure
    if bad is not None:
        failure = Failure.NONFINITE.where(backend, bad, failure)
    elif nothing_failed(backend, failure):
        return result
    failed = failure > 0
    for reason in () if backend.is_traced(failure) else keep:
        failed = failed & (failure != int(reason))
    value = tuple(
        backend.xp.where(broadcast_to_rank(failed, x), math.nan * backend.xp.ones_like(x), x) for x in result.value
    )
    return result._replace(value=value, failure=failure)


def has_no_entries(arrays: Arrays) -> bool:
    return any([0 in x.shape for x in arrays])


def result_dtype(backend: Backend, like: Array, kind: str) -> str:
    """The dtype of a result of the kind "real", "complex" or "same"."""
    name = backend.dtype_name(like.real if kind == "real" else like)
    return {"float32": "complex64", "float64": "complex128"}.get(name, name) if kind == "complex" else name


def fill(backend: Backend, x: Array, diagonal: float) -> Array:
    """x; if it has no entries, zeros with size 1 in place of 0 and this diagonal."""
    if 0 not in x.shape:
        return x
    zeros = backend.zeros((len(x), *(max(1, k) for k in x.shape[1:])), x)
    return zeros + diagonal * rectangular_eye(backend, zeros) if diagonal else zeros


def cotangent_like(backend: Backend, bar: Array, x: Array) -> Array:
    """The cotangent of x: its real part if x is real."""
    return backend.resolve_conj(bar.real if backend.is_complex(bar) and not backend.is_complex(x) else bar)
