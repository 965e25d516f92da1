"""Adapters: calls on arrays that consist of other arrays, in chunks (Dask), with names for their axes (xarray, pandas) or spread
over processes (DTensors of PyTorch).

For such arguments the path of a call ends before any check of entries: the call is given as a `BatchCall` to the adapter, which
calls the function again, on the arrays inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from numbers import Number
from typing import Any, Protocol

from matsign.backends import library_of
from matsign.backends.constants import constant_when_compiled


@dataclass(frozen=True)
class BoundFunction:
    """A public function with its options, or what a transformation such as `certify` makes of it. It can be pickled.

    The last arguments are passed by these `keywords`.
    """

    function: Callable[..., Any]
    options: dict[str, Any]
    transform: Callable[..., Any] | None = None
    keywords: tuple[str, ...] = ()

    def __call__(self, *arguments: Any) -> Any:
        f = self.function if self.transform is None else self.transform(self.function)
        count = len(arguments) - len(self.keywords)
        return f(*arguments[:count], **dict(zip(self.keywords, arguments[count:], strict=True)), **self.options)


@dataclass(frozen=True)
class BatchCall:
    """A call of a function on batches of matrices.

    Each argument has batch axes, which broadcast, and then the axes of `letters`, none for a number; an omitted one is None. Each
    array of the result, in the order of `leaves`, has the batch axes and then the axes of `results`. `largest` names, for a size
    that the solver chooses, the letter of a size that it does not exceed. A function that can be computed by products alone has
    `by_products`, for a matrix of which each process has some rows or columns.
    """

    name: str
    function: BoundFunction
    names: tuple[str, ...]
    letters: tuple[tuple[str, ...], ...]
    arguments: tuple[Any, ...]
    results: tuple[tuple[str, ...], ...]
    largest: dict[str, str]
    by_products: Callable[..., Any] | None = None
    roles: tuple[str, ...] = ()  # what a vector stands for in each place: a "column", a "row", a "diagonal" or nothing

    @property
    def arrays(self) -> dict[int, Any]:
        """The arguments that are arrays, by position: all but those omitted, and numbers."""
        return {k: x for k, x in enumerate(self.arguments) if x is not None and not isinstance(x, Number)}

    def check_library(self, place: int, library: str) -> None:
        """Raise a TypeError for a tensor of PyTorch or an array of JAX beside arrays of `library`."""
        other = library_of(self.arguments[place])
        if other in ("torch", "jax"):
            raise TypeError(
                f"{self.name}: all arrays must come from one library; {self.names[place]} is {other}, others are {library}"
            )


class Adapter(Protocol):
    """A module that calls functions on arrays of one kind."""

    def apply(self, call: BatchCall) -> Any:
        """The result of the call: what its function returns, with arrays of this kind in place of plain ones."""


def adapter_of(arrays: Iterable[Any]) -> Adapter | None:
    """The adapter for a call with these arguments; None if all of them are plain arrays."""
    name = adapter_name(arrays)
    adapter: Any = None
    if name == "xarray":
        from matsign.backends import xarray as adapter
    elif name == "dask":
        from matsign.backends import dask as adapter
    elif name == "torch":
        from matsign.backends import torch_dtensor as adapter
    elif name == "pandas":
        from matsign.backends import pandas as adapter
    return adapter


def adapter_name(arrays: Iterable[Any]) -> str | None:
    """The library of the adapter: "xarray" if one of these is a DataArray, which may hold a Dask array, else "dask", "torch"
    for a DTensor, or "pandas" for a frame or a series, or None.
    """
    found = [_name_for_type(type(x)) for x in arrays]
    return next((name for name in _NAMES if name in found), None)


_NAMES = ("xarray", "dask", "torch", "pandas")
_MARKS = ("chunks", "placements", "iloc")  # each has one of these attributes


@constant_when_compiled
def _name_for_type(cls: type) -> str | None:
    if cls not in _adapter_of_type:
        is_array = hasattr(cls, "ndim") and any(hasattr(cls, mark) for mark in _MARKS)
        roots = [base.__module__.partition(".")[0] for base in cls.__mro__ if is_array]
        _adapter_of_type[cls] = next((name for name in roots if name in _NAMES), None)
    return _adapter_of_type[cls]


_adapter_of_type: dict[type, str | None] = {}


def leaves(value: Any) -> list[Any]:
    """The arrays in nested tuples and dictionaries."""
    if isinstance(value, dict):
        value = tuple(value.values())
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


def with_leaves(value: Any, new: Iterator[Any]) -> Any:
    """The same tuples and dictionaries with other arrays."""
    if isinstance(value, dict):
        return {name: with_leaves(part, new) for name, part in value.items()}
    if not isinstance(value, tuple):
        return next(new)
    parts = [with_leaves(part, new) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
