"""DataArrays of xarray: the last two axes are those of a matrix, all others are axes of the batch, which broadcast by name.

The function is called once, on the arrays inside (NumPy's or Dask's), by `xarray.apply_ufunc`. The result has the names and the
coordinates of the arguments.
"""

from __future__ import annotations

from typing import Any

import xarray as xr

from matsign._typing import Array
from matsign.backends.adapters import BatchCall, leaves, with_leaves


def apply(call: BatchCall) -> Any:
    """The result of a call, with DataArrays in place of plain arrays."""
    arrays = call.arrays
    dims = {k: _matrix_dims(call, k) for k in arrays}
    _check_names(call, dims)
    examples: list[Any] = []

    def call_inside(*plain: Array) -> Any:
        inside = dict(zip(arrays, plain, strict=True))
        examples.append(call.function(*(inside.get(k, x) for k, x in enumerate(call.arguments))))
        values = leaves(examples[0])
        return tuple(values) if len(values) > 1 else values[0]

    values = xr.apply_ufunc(
        call_inside,
        *arrays.values(),
        input_core_dims=list(dims.values()),
        output_core_dims=[_result_dims(call, dims, shape) for shape in call.results],
        dask="allowed",
    )
    return with_leaves(examples[0], iter(values if len(call.results) > 1 else [values]))


def _matrix_dims(call: BatchCall, place: int) -> tuple[Any, ...]:
    """The names of the axes of the matrix in an argument; made up for an array without names."""
    x, letters = call.arguments[place], call.letters[place]
    count = len(letters)
    if isinstance(x, (xr.DataArray, xr.Variable)):
        if len(set(x.dims)) < x.ndim:
            raise ValueError(
                f"{call.name}: {call.names[place]} has axes of the same name, {x.dims}; rename one of them"
            )
        if x.ndim < count:
            raise ValueError(f"{call.name}: {call.names[place]} is a {type(x).__name__} without axes; expected {count}")
        return tuple(x.dims[x.ndim - count :])
    call.check_library(place, "xarray")
    if x.ndim != count:
        raise ValueError(
            f"{call.name}: {call.names[place]} has shape {tuple(x.shape)} and no names for its axes; beside DataArrays, expected "
            f"a {'matrix' if count else 'number'} or a DataArray"
        )
    return tuple(f"{call.names[place]}_axis{k}" for k in range(count))


def _check_names(call: BatchCall, dims: dict[int, tuple[Any, ...]]) -> None:
    """Raise if axes of one name differ, or count the members in one argument and are of the matrix in another."""
    labelled = {call.names[k]: x for k, x in call.arrays.items() if isinstance(x, (xr.DataArray, xr.Variable))}
    matrix = {axis: call.names[k] for k, names in dims.items() if call.names[k] in labelled for axis in names}
    for k, names in dims.items():
        leading = getattr(call.arguments[k], "dims", ())[: -len(names) or None]
        for axis in matrix.keys() & set(leading):
            raise ValueError(
                f"{call.name}: the axis {axis!r} is one of the matrix in {matrix[axis]}, and one of the batch in "
                f"{call.names[k]}; rename one of them"
            )
    try:
        xr.align(*(x for x in labelled.values() if isinstance(x, xr.DataArray)), join="exact", copy=False)
    except ValueError as error:
        raise ValueError(f"{call.name}: the axes of {', '.join(labelled)} do not go together: {error}") from None


def _result_dims(call: BatchCall, dims: dict[int, tuple[Any, ...]], letters: tuple[str, ...]) -> tuple[Any, ...]:
    """The names of the axes of a result: those of the first argument with these letters, or else of each letter.

    A letter has the name of the first axis that it stands for in a DataArray, or itself if there is none. The second axis of two
    with the same name gets a suffix. The axis of poles and of Hankel singular values is "mode".
    """
    labelled = {k: names for k, names in dims.items() if hasattr(call.arguments[k], "dims")}
    taken = {name for k in labelled for name in call.arguments[k].dims}
    if len(letters) == 1:
        return (_new_name("mode", taken),)
    for k, names in labelled.items():
        if call.letters[k] == letters:
            return names
    name_of: dict[str, Any] = {}
    for k, names in labelled.items():
        for letter, name in zip(call.letters[k], names, strict=True):
            name_of.setdefault(letter, name)
    result: list[Any] = []
    for letter in letters:
        name = name_of.get(letter) or _new_name(letter, taken)
        result.append(_new_name(f"{name}2", {*taken, *result}) if name in result else name)
    return tuple(result)


def _new_name(name: str, taken: set[Any]) -> str:
    """The name, with a suffix if an axis of an argument has it."""
    return _new_name(f"{name}2", taken) if name in taken else name
