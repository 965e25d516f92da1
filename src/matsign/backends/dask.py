"""Dask arrays: a call becomes one task for each chunk of the batch, which calls NumPy; nothing is computed before that.

Dask maps the function over the chunks (`dask.array.apply_gufunc`). A call on empty batches checks the arguments and tells the
shapes and dtypes of the results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import numpy as np

from matsign._typing import Array, Arrays
from matsign.backends.adapters import BatchCall, BoundFunction, leaves, with_leaves


def apply(call: BatchCall) -> Any:
    """The lazy result of a call: Dask arrays in chunks along the batch axes."""
    arrays = {k: _as_dask(call, k) for k in call.arrays}
    examples = {k: np.empty((0, *_matrix_shape(call, k, x)), x.dtype) for k, x in arrays.items()}
    example = call.function(*(examples.get(k, x) for k, x in enumerate(call.arguments)))
    results = [np.empty((0, *_result_shape(call, k, x)), x.dtype) for k, x in enumerate(leaves(example))]
    batch = _batch(call, arrays)
    if 0 in batch:
        return with_leaves(example, iter([da.zeros(batch + x.shape[1:], dtype=x.dtype) for x in results]))
    fixed = tuple(None if k in arrays else x for k, x in enumerate(call.arguments))
    on_chunk = ChunkFunction(
        *(call.name, call.function, fixed),
        {k: KnownArray(call.names[k], x.dtype, x.shape, len(call.letters[k])) for k, x in arrays.items()},
        tuple((x.shape[1:], x.dtype) for x in results),
    )
    values = da.apply_gufunc(
        on_chunk,
        _signature(call, arrays, len(batch), results),
        *_in_equal_chunks(call, batch, arrays),
        output_sizes={f"out{i}_{k}": size for i, x in enumerate(results) for k, size in enumerate(x.shape[1:])},
        meta=tuple(np.empty((0,) * (len(batch) + x.ndim - 1), x.dtype) for x in results),
    )
    return with_leaves(example, iter(values if len(results) > 1 else [values]))


class KnownArray(NamedTuple):
    """What Dask knows of an argument, which its chunks must have; `axes` counts the axes of a matrix or a number."""

    name: str
    dtype: Any
    shape: tuple[int, ...]
    axes: int

    def check(self, function: str, chunk: Array, batch: tuple[int, ...]) -> None:
        """Raise if a chunk has another dtype or shape; `batch` are the batch axes of the chunks of all arguments."""
        if chunk.dtype != self.dtype:
            raise TypeError(
                f"{function}: a chunk of {self.name} has dtype {chunk.dtype}, and the Dask array has dtype {self.dtype}; give "
                "map_blocks the right dtype"
            )
        leading = len(self.shape) - self.axes
        lengths = batch[len(batch) - leading :]
        shape = (
            tuple(1 if size == 1 else n for size, n in zip(self.shape, lengths, strict=False)) + self.shape[leading:]
        )
        if chunk.shape != shape:
            raise ValueError(
                f"{function}: a chunk of {self.name} has shape {chunk.shape}, and the Dask array has {shape} there; give "
                "from_delayed or map_blocks the right shape"
            )


@dataclass(frozen=True)
class ChunkFunction:
    """A function of the chunks of the arguments. The first arrays are the positions of its members along each batch axis."""

    name: str
    function: BoundFunction
    fixed: tuple[Any, ...]  # the arguments that are not arrays
    places: dict[int, KnownArray]  # where the arrays stand among the arguments
    results: tuple[tuple[tuple[int, ...], Any], ...]  # the shape of a member and the dtype of each result

    @property
    def __name__(self) -> str:
        """The name of the tasks of Dask."""
        return self.name

    def __call__(self, *chunks: Array) -> Array | Arrays:
        count = len(chunks) - len(self.places)
        arrays = dict(zip(self.places, chunks[count:], strict=True))
        for k, known in self.places.items():
            known.check(self.name, arrays[k], tuple(x.size for x in chunks[:count]))
        try:
            result = self.function(*(arrays.get(k, x) for k, x in enumerate(self.fixed)))
        except np.linalg.LinAlgError as error:
            raise _name_members(error, chunks[:count]) from None
        pairs = zip(leaves(result), self.results, strict=True)
        values = tuple(_pad(np.asarray(x, dtype), shape) for x, (shape, dtype) in pairs)
        return values if len(values) > 1 else values[0]


def _name_members(error: Any, positions: Arrays) -> Exception:
    """The error of a chunk with the indices of its members in the whole batch."""
    if not hasattr(error, "with_members"):
        return error
    starts = [x.ravel() for x in positions]
    members = [tuple(int(x[i]) for x, i in zip(starts, member, strict=True)) for member in error.members]
    named: Exception = error.with_members(members)
    return named


def _pad(x: Array, shape: tuple[int, ...]) -> Array:
    """x with zeros up to the last axes `shape`, where the solver has chosen a smaller size."""
    missing = [m - n for m, n in zip(shape, x.shape[x.ndim - len(shape) :], strict=True)]
    if not any(missing):
        return x
    padded = np.pad(x, [(0, 0)] * (x.ndim - len(shape)) + [(0, k) for k in missing])
    padded[np.isnan(x).any((-2, -1))] = np.nan  # members without an answer
    return padded


def _as_dask(call: BatchCall, place: int) -> Any:
    """An argument as a Dask array; raises if it is not one of NumPy arrays in chunks along its batch axes only."""
    x, name = call.arguments[place], f"{call.name}: {call.names[place]}"
    if not isinstance(x, da.Array):
        call.check_library(place, "dask")
        x = da.from_array(np.asarray(x), chunks=-1)
    if type(x._meta) is not np.ndarray:
        raise TypeError(f"{name} holds arrays of type {type(x._meta).__name__}; expected chunks that are NumPy arrays")
    count = len(call.letters[place])
    if x.ndim == 0 and count:
        x = x.reshape((1, 1))
    if any(size != size for size in x.shape):
        raise ValueError(f"{name} has chunks of unknown size; call its compute_chunk_sizes() first")
    if any(len(chunks) > 1 for chunks in x.chunks[x.ndim - count :]):
        raise ValueError(
            f"{name} has several chunks along the axes of its matrices, {x.chunks[x.ndim - count :]}; expected chunks along its "
            f"leading axes only: {call.names[place]}.rechunk({{-2: -1, -1: -1}}), for a DataArray .chunk(axis=-1) for both axes"
        )
    # Dask cannot broadcast an axis of size 1 that also has chunks of size 0.
    split = [axis for axis, chunks in enumerate(x.chunks) if sum(chunks) == 1 and len(chunks) > 1]
    return x.rechunk(dict.fromkeys(split, -1)) if split else x


def _matrix_shape(call: BatchCall, place: int, x: Any) -> tuple[int, ...]:
    shape: tuple[int, ...] = x.shape[x.ndim - len(call.letters[place]) :]
    return shape


def _result_shape(call: BatchCall, place: int, example: Array) -> tuple[int, ...]:
    """The shape of a member of a result; a size that the solver chooses is the largest possible one."""
    sizes = dict(zip(call.results[place], example.shape[1:], strict=True))
    return tuple(sizes[call.largest.get(letter, letter)] for letter in call.results[place])


def _batch(call: BatchCall, arrays: dict[int, Any]) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(x.shape[: x.ndim - len(call.letters[k])] for k, x in arrays.items()))
    except ValueError:
        shapes = ", ".join(f"{call.names[k]} {x.shape}" for k, x in arrays.items())
        raise ValueError(f"{call.name}: the leading axes do not broadcast: {shapes}") from None


def _in_equal_chunks(call: BatchCall, batch: tuple[int, ...], arrays: dict[int, Any]) -> list[Any]:
    """For each batch axis the positions along it, and then the arrays, all in the same chunks along the batch axes."""
    indexed: list[Any] = []
    for k, x in arrays.items():
        count = len(call.letters[k])
        indexed += [x, (*range(len(batch) - x.ndim + count, len(batch)), *(f"{k}_{i}" for i in range(count)))]
    chunks, equal = da.core.unify_chunks(*indexed)
    positions = [
        da.arange(size, chunks=(chunks[axis],))[(slice(None), *[None] * (len(batch) - axis - 1))]
        for axis, size in enumerate(batch)
    ]
    return [*positions, *equal]


def _signature(call: BatchCall, arrays: dict[int, Any], batch_axes: int, results: list[Array]) -> str:
    inputs = ["()"] * batch_axes + [f"({','.join(f'in{k}_{i}' for i in range(len(call.letters[k])))})" for k in arrays]
    outputs = [f"({','.join(f'out{k}_{i}' for i in range(x.ndim - 1))})" for k, x in enumerate(results)]
    return f"{','.join(inputs)}->{','.join(outputs)}"
