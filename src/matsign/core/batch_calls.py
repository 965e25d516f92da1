"""Calls on arrays that consist of other arrays: checks of the arguments before an adapter (`backends.adapters`) gets the call."""

from __future__ import annotations

from typing import Any

import numpy as np

from matsign.backends import library_of, load
from matsign.backends.adapters import BatchCall, BoundFunction, adapter_of
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
    pairs = zip(names, arguments, strict=True)
    arrays = [_checked_argument(parameters, name, x, name in names[:count]) for name, x in pairs]
    check_sizes(parameters, arrays[:count])
    return BatchCall(parameters.name, function, names, letters, tuple(arrays), results, operation.largest)


def _checked_argument(parameters: Parameters, name: str, x: Any, is_matrix: bool) -> Any:
    """An argument, lists as NumPy arrays; raises a TypeError for one that no library can convert."""
    if x is None and (name in parameters.optional or not is_matrix):
        return None
    if adapter_of([x]) is not None or library_of(x) in ("torch", "jax"):
        return x
    reason = why_unsupported(x)
    if reason is not None:
        raise TypeError(f"{parameters.name}: {name} {reason}")
    if not is_matrix and not isinstance(x, (list, tuple, np.ndarray)):
        return x  # one number for all members
    try:
        x = load("numpy").asarray(x)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{parameters.name}: {name} is not a dense array of numbers: {error}") from None
    return x if is_matrix or x.ndim else x[()]
