"""Calls on arrays that consist of other arrays: checks of the arguments before an adapter (`backends.adapters`) gets the call."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np

from matsign.backends import library_of, load
from matsign.backends.adapters import BatchCall, BoundFunction, adapter_name
from matsign.core.objects import as_matrices, densify
from matsign.core.operations import Operation
from matsign.core.options import Parameters
from matsign.core.validation import check_sizes, why_unsupported


def batch_call(
    function: BoundFunction,
    operation: Operation,
    parameters: Parameters,
    arguments: tuple[Any, ...],
    results: tuple[tuple[str, ...], ...],
) -> BatchCall:
    """The call of a function with arrays and numbers; raises if their kinds or the sizes of the matrices do not fit.

    `results` are the axes of each array of its value.
    """
    count = len(parameters.arrays)
    names, letters = (*parameters.arrays, *parameters.numbers), (*parameters.shapes, *(() for _ in parameters.numbers))
    pairs, by_frames = zip(names, arguments, strict=True), adapter_name(arguments) == "pandas"
    parameters.check_choice(list(arguments[:count]))
    arrays = [_checked_argument(parameters, name, x, name in names[:count], by_frames) for name, x in pairs]
    if not by_frames:  # with frames the function is called at once, and checks their values
        arrays[:count] = _with_matrices(parameters, arrays[:count])
        check_sizes(parameters, [None if isinstance(x, Number) else x for x in arrays[:count]])
    roles = tuple(parameters.vectors.get(name, "") for name in names)
    return BatchCall(parameters.name, function, names, letters, tuple(arrays), results, operation.largest, roles=roles)


def _with_matrices(parameters: Parameters, arrays: list[Any]) -> list[Any]:
    """The arrays, with matrices for vectors that are NumPy arrays; the function gets numbers as they are."""
    matrices = [x if isinstance(x, np.ndarray) or getattr(x, "ndim", 0) > 1 else None for x in arrays]
    pairs = zip(arrays, as_matrices(parameters, load("numpy"), matrices), strict=True)
    return [x if y is None else y for x, y in pairs]


def _checked_argument(parameters: Parameters, name: str, x: Any, is_matrix: bool, by_frames: bool) -> Any:
    """An argument, lists as NumPy arrays; raises a TypeError for one that no library can convert."""
    if x is None and (parameters.may_be_none(name) or not is_matrix):
        return None
    if adapter_name([x]) not in (None, *(() if by_frames else ("pandas",))) or library_of(x) in ("torch", "jax"):
        return x
    x = densify(x)
    reason = why_unsupported(x)
    if reason is not None:
        raise TypeError(f"{parameters.name}: {name} {reason}")
    if isinstance(x, Number) or (not is_matrix and not isinstance(x, (list, tuple, np.ndarray))):
        return x  # one number for all members
    try:
        x = load("numpy").asarray(x)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{parameters.name}: {name} is not a dense array of numbers: {error}") from None
    return x if is_matrix or x.ndim else x[()]
