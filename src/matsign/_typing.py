"""Types of arrays.

Inside the library an array may be of any library, and type checkers treat it as `Any`. Public functions take `ArrayLike[T]` and
return `T`, the type of the arrays that they get: of PyTorch, JAX, Dask or xarray, or of NumPy if no argument is one of these.
A dtype and a shape are not part of it, because those of results may differ from those of the arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeVar

import numpy as np

Array: TypeAlias = Any
Arrays: TypeAlias = tuple[Any, ...]  # entries may be None
NDArray: TypeAlias = np.ndarray[tuple[Any, ...], np.dtype[Any]]

T_co = TypeVar("T_co", covariant=True)


class ArrayOf(Protocol[T_co]):
    """An array whose operations return a `T_co`, of any library.

    `cumsum` states it, because its type has no dtype and no shape in NumPy, and is a `torch.Tensor` for a
    `torch.nn.Parameter`.
    """

    @property
    def shape(self) -> Any: ...

    def cumsum(self, axis: Any, /) -> T_co: ...


class StateSpace(Protocol):
    """A model x' = A x + B u, y = C x + D u, such as a `scipy.signal.StateSpace` or a `control.StateSpace`."""

    A: Any
    B: Any
    C: Any
    D: Any

    @property
    def dt(self) -> Any: ...


if TYPE_CHECKING:
    from typing import Generic as Generic

    import typing_extensions

    T = typing_extensions.TypeVar("T", default=NDArray)
    Result = typing_extensions.TypeVar("Result", default=NDArray)
else:
    T = TypeVar("T")
    Result = TypeVar("Result")  # what a function returns: a T, or a named tuple of some

    class _NoBase:
        """`Generic` of the named tuples, for type checkers only: PyTorch 2.6 takes no class with two bases as a tree."""

        def __getitem__(self, parameter):
            return self

        def __mro_entries__(self, bases):
            return ()

    Generic = _NoBase()

Model = TypeVar("Model", bound=StateSpace)

# Numbers and nested lists become arrays of the library of the others, or of NumPy.
ArrayLike: TypeAlias = ArrayOf[T] | complex | Sequence[list[Any] | tuple[Any, ...] | NDArray]
# Not `ArrayLike[T] | None`: mypy 2.4 finds no T in it for the argument of `certify`.
OptionalArrayLike: TypeAlias = ArrayOf[T] | complex | Sequence[list[Any] | tuple[Any, ...] | NDArray] | None
# A vector stands for a matrix: a column, a row or the diagonal of a weight.
VectorLike: TypeAlias = ArrayOf[T] | complex | Sequence[list[Any] | tuple[Any, ...] | NDArray] | Sequence[complex]
OptionalVectorLike: TypeAlias = (
    ArrayOf[T] | complex | Sequence[list[Any] | tuple[Any, ...] | NDArray] | Sequence[complex] | None
)
# A number, or one for each member of a batch.
NumberLike: TypeAlias = ArrayOf[T] | float | Sequence[float] | Sequence[Sequence[float]]
