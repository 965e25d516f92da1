"""Operations: how a function is solved on stacks, and the linear equations for its derivatives.

An `Operation` holds the mathematics; a `BoundOperation` is an operation with its options. To automatic differentiation a bound
operation is one function (`Backend.bind`): its inner steps are not recorded, and its derivatives are its `tangent` and its
`cotangent`. These are written in products and other operations, so that they can be differentiated to any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, cast

import numpy as np

from matsign._typing import Array, Arrays
from matsign.backends import Backend, numpy_single
from matsign.core.failures import WITH_BEST_ITERATE, Failure
from matsign.core.members import (
    CHUNK,
    Solution,
    concatenate,
    cotangent_like,
    fill,
    has_no_entries,
    map_chunks,
    mask_nonfinite,
    nan_failed,
    nothing_failed,
    result_dtype,
    results_of_chunks,
    solution,
)
from matsign.core.spectrum_error import SpectrumError


def _as_stack(result: Solution) -> Solution:
    """The solution for one matrix, as a stack of one."""
    value, failure, iterations, detail = result
    return Solution(tuple([x[None] for x in value]), failure[None], iterations[None], detail[None])


def _entries(arrays: Arrays) -> int:
    """The entries of the largest member."""
    return max(math.prod(x.shape[1:]) for x in arrays)


@dataclass(frozen=True, eq=False)
class Operation:
    """The mathematics of a function, free of any array library.

    ``solve(backend, *arrays, **options)`` sees stacks (B, n, m), of vectors (B, n), of one dtype, with B and all sizes at least
    1, entries finite, and None for an optional array that was not given; shapes are letters, one tuple for each array.

    ``tangent(backend, value, arrays, tangents, **options)`` is the tangent of the value, and
    ``cotangent(backend, value, arrays, cotangents, **options)`` its adjoint in the inner product Re tr(xᴴy). Both get and return
    tuples, and may depend on shapes but not branch on values.

    The `numbers` of a function, one real number per member, are passed to all of these by name: as a float, or as a stack (B,)
    if they are arrays, whose tangents and cotangents then follow those of the matrices (None for a float). The solver checks
    the entries of such a stack.

    A `linear` operation is linear in the array at the position `linear_array`, and its transpose is the same function of the
    other arrays' transposes, where vectors and numbers stay as they are.
    If ``fixed(**options)``, the solver under a trace is a fixed sequence of products; the solver of an `unrolled` operation has
    loops, which torch.compile unrolls to such a sequence. If ``unstacked(**options)``, the solver also accepts a single matrix
    without the axis of a stack (`backends.numpy_single`). `adjoint` states that f(Mᴴ) = f(M)ᴴ. `kinds` tells which results are
    "real" or "complex" for any arrays; the default is the dtype of the arrays ("same").

    A size of zero is a sum without terms. If a result still has entries, the operation gets one row or column of zeros
    instead, with `neutral` (default 0) on the diagonal of square matrices of that letter or, for a number as the key, of the
    array at that position. If no result has entries,
    ``empty_result(backend, *arrays, **options)`` tells whether there is a solution. ``sizes(known, **options)`` are the sizes
    of the letters that occur only in the results. Where the solver chooses a size, `largest` names the letter of a size that it
    does not exceed. ``check(**options)`` raises for options that do not fit together. If the
    option named by `decides` is given, ``decide(backend, arrays, options)`` returns the options with others, which depend on the
    values of the arrays, in its place.

    On a CPU a stack is solved in chunks that fit the cache; `members` is the number of large members that a chunk may hold
    instead, where the calls of the library take longer than reading from memory.

    `guesses` are the positions of arrays that only save time: entries of them that are not finite become 0.

    ``by_products(backend, array, **options)`` is the solver for matrices with rows or columns on different devices. It uses
    products alone, and takes no branch on an entry.
    """

    name: str
    shapes: tuple[tuple[str, ...], ...]
    results: tuple[tuple[str, ...], ...]
    solve: Callable[..., Solution]
    tangent: Callable[..., Arrays] | None = None
    cotangent: Callable[..., Arrays] | None = None
    linear: bool = False
    linear_array: int = -1
    adjoint: bool = False
    fixed: Callable[..., bool] = lambda **options: False
    unrolled: bool = False
    unstacked: Callable[..., bool] = lambda **options: False
    kinds: tuple[str, ...] = ()
    wrap: Callable[..., Any] = lambda backend, *xs: xs
    neutral: dict[str | int, float] = field(default_factory=dict)
    empty_result: Callable[..., Solution] | None = None
    sizes: Callable[..., dict[str, int]] = lambda known, **options: {}
    check: Callable[..., object] = lambda **options: None
    decides: str = ""
    decide: Callable[..., dict[str, Any]] = lambda backend, arrays, options: options
    largest: dict[str, str] = field(default_factory=dict)
    by_products: Callable[..., Solution] | None = None
    numbers: tuple[str, ...] = ()
    guesses: tuple[int, ...] = ()
    members: int = 1

    @property
    def letters(self) -> tuple[tuple[str, ...], ...]:
        """The letters of all arrays; those of numbers are empty."""
        return (*self.shapes, *(() for _ in self.numbers))


def shapes_of(side: str) -> tuple[tuple[str, ...], ...]:
    """The letters of one side of a signature such as "(n,m),(m),()"."""
    parts = (part.strip("()") for part in side.split("),("))
    return tuple(tuple(part.split(",")) if part else () for part in parts)


@dataclass(frozen=True)
class BoundOperation:
    """An operation with its options: maps stacks to one flat tuple of the value, failure, iterations and detail.

    `given` tells which arrays are passed, numbers after matrices; the others are None, or floats among the options. With
    `batch`, a failure raises an error that names the members of a batch of this shape.
    """

    operation: Operation
    given: tuple[bool, ...]
    options: tuple[tuple[str, Any], ...] = ()
    batch: tuple[int, ...] | None = None
    requires_finite = True  # a value that is not finite has failed

    @property
    def fixed(self) -> bool:
        return self.operation.fixed(**dict(self.options))

    @property
    def first_axes(self) -> int:
        """The number of axes of the first array that belong to a member."""
        return len(self.operation.shapes[0])

    @property
    def unrolls(self) -> bool:
        """Whether torch.compile can trace the solver."""
        return self.fixed or self.operation.unrolled

    def result_shapes(self, arrays: Arrays) -> list[tuple[tuple[int, ...], str]] | None:
        """(shape, kind) of each array of the value, or None if the solver chooses a size or an array is empty."""
        operation, sizes = self.operation, self._sizes(arrays)
        if 0 in sizes.values() or any(letter not in sizes for shape in operation.results for letter in shape):
            return None
        kinds = operation.kinds or ("same",) * len(operation.results)
        shapes = [(arrays[0].shape[0], *(sizes[n] for n in shape)) for shape in operation.results]
        return list(zip(shapes, kinds, strict=True))

    def with_leading_axis(self, count: int) -> BoundOperation:
        """The same for a batch with one more leading axis."""
        return self if self.batch is None else replace(self, batch=(count, *self.batch))

    def __call__(self, backend: Backend, *arrays: Array) -> Arrays:
        flat = self.evaluate(backend, *arrays)
        if self.raises(backend, flat):
            self.raise_failures(backend, flat)
        return flat

    def evaluate(self, backend: Backend, *arrays: Array) -> Arrays:
        """The flat tuple; never raises for a failure."""
        with backend.full_precision(arrays[0]):
            result = self._solve(backend, arrays)
        return result.flat()

    def raises(self, backend: Backend, flat: Arrays) -> bool:
        """Whether a member has failed and failures are to be raised."""
        failure = Solution.of(flat).failure
        return self.batch is not None and not nothing_failed(backend, failure) and not backend.is_traced(failure)

    def tangent(self, backend: Backend, value: Arrays, arrays: Arrays, tangents: Arrays) -> Arrays:
        """The tangent of the value, for the given arrays."""
        if has_no_entries(arrays):
            if not self.has_entries(arrays):
                return tuple(backend.xp.zeros_like(x) for x in value)
            full = self.fill_empty(backend, arrays), self.fill_empty(backend, tangents, neutral=False)
            return self._trim(arrays, self.tangent(backend, self.fill_empty_value(backend, value, arrays), *full))
        matrices, keywords = self.split(arrays)
        with backend.full_precision(arrays[0]):
            return self._derivative_rule("tangent")(backend, value, matrices, self.with_none(tangents), **keywords)

    def cotangent(self, backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        """The adjoint of `tangent`, for the given arrays."""
        if has_no_entries(arrays):
            if not self.has_entries(arrays):
                return tuple(backend.xp.zeros_like(x) for x in arrays)
            full = (self.fill_empty_value(backend, x, arrays) for x in (value, cotangents))
            result = self.cotangent(backend, next(full), self.fill_empty(backend, arrays), next(full))
            return tuple(x[(slice(None), *map(slice, y.shape[1:]))] for x, y in zip(result, arrays, strict=True))
        matrices, keywords = self.split(arrays)
        with backend.full_precision(arrays[0]):
            result = self._derivative_rule("cotangent")(backend, value, matrices, cotangents, **keywords)
        return tuple(
            cotangent_like(backend, x, y) for x, y in zip((x for x in result if x is not None), arrays, strict=True)
        )

    def cotangent_by_chunks(self, backend: Backend, value: Arrays, arrays: Arrays, cotangents: Arrays) -> Arrays:
        """The same in chunks that fit the cache, on threads: where no derivative of it is taken."""
        ends = len(value), len(value) + len(arrays)

        def piece(*stacks: Array) -> Arrays:
            return self.cotangent(backend, stacks[: ends[0]], stacks[ends[0] : ends[1]], stacks[ends[1] :])

        results = results_of_chunks(backend, piece, (*value, *arrays, *cotangents), CHUNK)
        return results[0] if len(results) == 1 else concatenate(backend, results)

    def _derivative_rule(self, kind: str) -> Callable[..., Arrays]:
        rule = getattr(self.operation, kind)
        if rule is None:
            raise NotImplementedError(f"{self.operation.name} has no derivative")
        return cast("Callable[..., Arrays]", rule)

    def with_none(self, arrays: Arrays) -> Arrays:
        """The arrays with None in place of those that were not given."""
        if len(arrays) == len(self.given):
            return arrays
        remaining = iter(arrays)
        return tuple(next(remaining) if given else None for given in self.given)

    def split(self, arrays: Arrays) -> tuple[Arrays, dict[str, Any]]:
        """The matrices, and a dictionary of the options and the numbers."""
        return split_numbers(self.operation, self.with_none(arrays), dict(self.options))

    def _solve(self, backend: Backend, arrays: Arrays) -> Solution:
        if has_no_entries(arrays):
            if not self.has_entries(arrays):
                return self._empty_result(backend, arrays)
            result = self._solve(backend, self.fill_empty(backend, arrays))
            return result._replace(value=self._trim(arrays, result.value))
        if self.operation.guesses:
            arrays = self._finite_guesses(backend, arrays)
        bad, arrays = mask_nonfinite(backend, arrays)
        options = dict(self.options)

        def solve(*stacks: Array) -> Solution:
            matrices, known = split_numbers(self.operation, stacks, options)
            return self.operation.solve(backend, *matrices, **known)

        # The error for a failed iteration carries the best iterate; without an error the value is NaN.
        best_iterates = () if self.batch is None else WITH_BEST_ITERATE
        with_none = self.with_none(arrays)
        if len(arrays[0]) == 1:
            if backend.name == "numpy" and self.operation.unstacked(**options):
                result = _as_stack(numpy_single.call(self.operation.solve, *with_none, **options))
            else:
                result = solve(*with_none)
            return nan_failed(backend, result, bad, best_iterates)
        room = CHUNK << 7 if self.unrolls else max(CHUNK, min(self.operation.members * _entries(arrays), CHUNK << 3))
        return nan_failed(backend, map_chunks(backend, solve, with_none, room), bad, best_iterates)

    def _finite_guesses(self, backend: Backend, arrays: Arrays) -> Arrays:
        """The given arrays, with 0 in place of the entries of guesses that are not finite."""
        places = [place for place, given in enumerate(self.given) if given]
        return tuple(
            backend.xp.where(backend.xp.isfinite(x), x, 0 * backend.xp.ones_like(x))
            if place in self.operation.guesses and not backend.known_finite(x)
            else x
            for x, place in zip(arrays, places, strict=True)
        )

    def _empty_result(self, backend: Backend, arrays: Arrays) -> Solution:
        """The result for an empty batch or empty matrices, which has no entries."""
        if len(arrays[0]) and self.operation.empty_result is not None:
            bad, arrays = mask_nonfinite(backend, arrays)
            matrices, options = self.split(arrays)
            return nan_failed(backend, self.operation.empty_result(backend, *matrices, **options), bad)
        sizes = self._sizes(arrays)
        kinds = self.operation.kinds or ("same",) * len(self.operation.results)
        shapes = (tuple(sizes.get(letter, 0) for letter in shape) for shape in self.operation.results)
        empty = (
            backend.astype(backend.zeros((len(arrays[0]), *shape), like), result_dtype(backend, like, kind))
            for shape, kind in zip(shapes, kinds, strict=True)
            for like in (arrays[0].real if kind == "real" else arrays[0],)
        )
        return solution(backend, tuple(empty))

    def has_entries(self, arrays: Arrays) -> bool:
        """Whether the value for these arrays has entries."""
        sizes = self._sizes(arrays)
        return 0 not in arrays[0].shape[: arrays[0].ndim - self.first_axes] and any(
            all(sizes.get(x, 1) for x in shape) for shape in self.operation.results
        )

    def fill_empty(self, backend: Backend, arrays: Arrays, *, neutral: bool = True) -> Arrays:
        """The arrays with one neutral row or column where they have none."""
        places = (place for place, given in enumerate(self.given) if given)
        return tuple(
            fill(backend, x, self._diagonal(place) if neutral else 0.0) if self.operation.letters[place] else x
            for x, place in zip(arrays, places, strict=True)
        )

    def _diagonal(self, place: int) -> float:
        """The diagonal of the array at this place where it has no entries."""
        letters, neutral = self.operation.letters[place], self.operation.neutral
        is_square = len(letters) > 1 and letters[-1] == letters[-2]
        return neutral.get(place, neutral.get(letters[-1], 0.0) if is_square else 0.0)

    def fill_empty_value(self, backend: Backend, value: Arrays, arrays: Arrays) -> Arrays:
        """The value for these arrays, filled as that of the filled arrays."""
        empty = self._empty_letters(arrays)
        return tuple(
            fill(backend, x, 0.0) if empty & set(shape) else x
            for x, shape in zip(value, self.operation.results, strict=True)
        )

    def _trim(self, arrays: Arrays, value: Arrays) -> Arrays:
        """The value for these arrays, from the value for the filled arrays."""
        sizes = self._sizes(arrays)
        cuts = ((slice(None), *(slice(sizes.get(letter)) for letter in shape)) for shape in self.operation.results)
        return tuple(x[cut] for x, cut in zip(value, cuts, strict=True))

    def _empty_letters(self, arrays: Arrays) -> set[str]:
        return {letter for letter, size in self._sizes(arrays).items() if size == 0}

    def _sizes(self, arrays: Arrays) -> dict[str, int]:
        """The size of each letter."""
        known: dict[str, int] = {}
        for x, shape in zip(self.with_none(arrays), self.operation.letters, strict=True):
            if x is not None:
                known |= dict(zip(shape, x.shape[x.ndim - len(shape) :], strict=True))
        return known | self.operation.sizes(known, **dict(self.options))

    def raise_failures(self, backend: Backend, flat: Arrays) -> NoReturn:
        """Raise the error of an operation that `raises`."""
        assert self.batch is not None
        result = Solution.of(flat)
        failures = np.asarray(result.failure.tolist()).ravel()
        details = np.asarray(result.detail.tolist()).reshape((-1, 2))
        failed = np.flatnonzero(failures)
        members = [tuple(int(i) for i in np.unravel_index(k, self.batch)) if self.batch else () for k in failed]
        reasons = [Failure(int(failures[k])) for k in failed]
        numbers = [complex(*details[k]) for k in failed]
        value = self.operation.wrap(backend, *unstack(backend, result.value, self.batch, self.operation.results))
        raise SpectrumError.of(self.operation.name, members, reasons, numbers, value)


def split_numbers(operation: Operation, arrays: Arrays, options: dict[str, Any]) -> tuple[Arrays, dict[str, Any]]:
    """The matrices among all arrays of an operation, and the options with its numbers."""
    if not operation.numbers:
        return arrays, options
    count = len(operation.shapes)
    numbers = {name: x for name, x in zip(operation.numbers, arrays[count:], strict=False) if x is not None}
    return arrays[:count], options | numbers


def apply(backend: Backend, operation: Operation, *arrays: Array, **options: Any) -> Arrays:
    """The value of an operation inside another one; failed members are NaN."""
    bound = BoundOperation(operation, tuple(x is not None for x in arrays), tuple(sorted(options.items())))
    return backend.bind(bound, *(x for x in arrays if x is not None))[: len(operation.results)]


def unstack(
    backend: Backend, value: Arrays, batch: tuple[int, ...], shapes: tuple[tuple[str, ...], ...]
) -> list[Array]:
    """Stacks with the leading axes of the batch; the other axes are as many as each shape has letters."""
    return [
        backend.resolve_conj(x.reshape((*batch, *x.shape[x.ndim - len(shape) :])))
        for x, shape in zip(value, shapes, strict=False)
    ]
