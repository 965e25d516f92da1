"""Arrays that have a shape and a dtype but no entries, and the functions of the array API that the solvers call on them.

A `Meter` knows how many bytes of them a device holds at a time: views share the memory of their base, which is free when the last
of them is no longer referenced, as in NumPy and PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

Shape = tuple[int, ...]


class ValueNeededError(TypeError):
    """A solver asked for the value of an array without entries."""


class Meter:
    """The bytes of arrays that a device holds, and the most that it has held; `share` is its fraction of an array of a shape."""

    def __init__(self, share: Callable[[Shape], float] = lambda shape: 1.0) -> None:
        self.live = self.peak = 0.0
        self.share = share

    def add(self, size: float) -> None:
        """Count an array that begins to exist, or with a negative size one that ends to."""
        self.live += size
        self.peak = max(self.peak, self.live)


class _Memory:
    """The memory of one array and its views."""

    def __init__(self, meter: Meter, shape: Shape, itemsize: int) -> None:
        self.meter, self.size = meter, math.prod(shape) * itemsize * meter.share(shape)
        meter.add(self.size)

    def __del__(self) -> None:
        self.meter.add(-self.size)


Observer = Callable[[str, "ShapeArray", "ShapeArray"], None]


class ShapeArray:
    """An array without entries. `product` is told of every matrix product."""

    def __init__(self, shape: Shape, dtype: Any, like: ShapeArray | None, meter: Meter, product: Observer) -> None:
        self.shape, self.dtype, self.meter, self.product = tuple(shape), np.dtype(dtype), meter, product
        self.memory: _Memory = like.memory if like is not None else _Memory(meter, self.shape, self.dtype.itemsize)

    def new(self, shape: Shape, dtype: Any = None) -> ShapeArray:
        """Another array, by default of this dtype."""
        return ShapeArray(shape, self.dtype if dtype is None else dtype, None, self.meter, self.product)

    def view(self, shape: Shape, dtype: Any = None) -> ShapeArray:
        """The same memory with another shape."""
        return ShapeArray(shape, self.dtype if dtype is None else dtype, self, self.meter, self.product)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __bool__(self) -> bool:
        raise ValueNeededError("a branch depends on values")

    @property
    def mT(self) -> ShapeArray:
        return self.view((*self.shape[:-2], self.shape[-1], self.shape[-2]))

    def conj(self) -> ShapeArray:
        return self.new(self.shape) if self.dtype.kind == "c" else self

    @property
    def real(self) -> ShapeArray:
        return self.view(self.shape, _real_dtype(self.dtype))

    imag = real

    def reshape(self, *shape: Any) -> ShapeArray:
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        known = math.prod(n for n in wanted if n != -1)
        return self.view(tuple(self.size // max(known, 1) if n == -1 else n for n in wanted))

    def __getitem__(self, key: Any) -> ShapeArray:
        return self.view(_shape_of_slice(self.shape, key if isinstance(key, tuple) else (key,)))

    def __matmul__(self, other: ShapeArray) -> ShapeArray:
        if self.shape[-1] != other.shape[-2]:
            raise ValueError(f"a product of shapes {self.shape} and {other.shape}")
        self.product("product", self, other)
        batch = np.broadcast_shapes(self.shape[:-2], other.shape[:-2])
        return self.new((*batch, self.shape[-2], other.shape[-1]), np.result_type(self.dtype, other.dtype))

    def _arithmetic(self, *others: Any) -> ShapeArray:
        return elementwise(self, *others)

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = _arithmetic
    __rshift__ = __floordiv__ = __mod__ = __pow__ = __rpow__ = __neg__ = __abs__ = _arithmetic

    def _comparison(self, *others: Any) -> ShapeArray:
        return elementwise(self, *others, dtype=bool)

    __lt__ = __le__ = __gt__ = __ge__ = __and__ = __or__ = __xor__ = __rand__ = __ror__ = __invert__ = _comparison
    __eq__ = __ne__ = _comparison  # type: ignore[assignment]
    __hash__ = None  # type: ignore[assignment]

    def all(self, axis: Any = None) -> ShapeArray:
        return self.new(_shape_of_reduction(self.shape, axis, False), bool)

    any = all

    def sum(self, axis: Any = None) -> ShapeArray:
        return self.new(_shape_of_reduction(self.shape, axis, False))

    def cumsum(self, axis: int) -> ShapeArray:
        return self.new(self.shape)


def elementwise(*arrays: Any, dtype: Any = None) -> ShapeArray:
    """The result of a function of each entry of arrays and numbers, broadcast against each other."""
    known = [x for x in arrays if isinstance(x, ShapeArray)]
    shape = np.broadcast_shapes(*(x.shape for x in known))
    if dtype is None:
        plain = [x for x in arrays if isinstance(x, (int, float, complex))]
        kinds = [x.dtype for x in known if x.dtype.kind != "b"] or [np.dtype(np.int32)]
        dtype = np.result_type(*kinds)
        if dtype.kind in "iu" and any(isinstance(x, float) for x in plain):
            dtype = np.dtype(np.float64)
    return known[0].new(shape, dtype)


def _real_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.empty(0, dtype).real.dtype


def _shape_of_reduction(shape: Shape, axis: Any, keepdims: bool) -> Shape:
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    gone = {k % len(shape) for k in axes}
    return tuple(1 if k in gone else n for k, n in enumerate(shape) if keepdims or k not in gone)


def _shape_of_slice(shape: Shape, key: tuple[Any, ...]) -> Shape:
    """The shape of an array under basic indexing, or under one array of indices of its first axis."""
    if isinstance(key[0], ShapeArray) and key[0].dtype.kind == "i":
        return key[0].shape + shape[1:]
    consumed = sum(k is not None and k is not Ellipsis for k in key)
    if not any(k is Ellipsis for k in key):
        key = (*key, Ellipsis)
    result: list[int] = []
    sizes = iter(shape)
    for k in key:
        if k is None:
            result.append(1)
        elif k is Ellipsis:
            result += [next(sizes) for _ in range(len(shape) - consumed)]
        elif isinstance(k, slice):
            result.append(len(range(*k.indices(next(sizes)))))
        elif isinstance(k, ShapeArray):
            raise ValueNeededError("a size depends on values")
        else:
            next(sizes)
    return tuple(result)


def _where(mask: Any, yes: Any, no: Any) -> ShapeArray:
    if not isinstance(yes, ShapeArray) and not isinstance(no, ShapeArray):
        return elementwise(mask, dtype=np.float64)
    numbers = [x for x in (yes, no) if not isinstance(x, bool)]
    return elementwise(mask, yes, no, dtype=elementwise(*numbers).dtype)


def _concat(arrays: Any, axis: int = 0) -> ShapeArray:
    shape = list(arrays[0].shape)
    shape[axis] = sum(x.shape[axis] for x in arrays)
    return arrays[0].new(tuple(shape), np.result_type(*(x.dtype for x in arrays)))


def _stack(arrays: Any, axis: int = 0) -> ShapeArray:
    shape = list(arrays[0].shape)
    shape.insert(axis % (len(shape) + 1), len(arrays))
    return arrays[0].new(tuple(shape))


def _reduce(x: ShapeArray, axis: Any = None, keepdims: bool = False, **_: Any) -> ShapeArray:
    return x.new(_shape_of_reduction(x.shape, axis, keepdims))


def _argument(x: ShapeArray, axis: Any = None, keepdims: bool = False) -> ShapeArray:
    return x.new(_shape_of_reduction(x.shape, axis, keepdims), np.int64)


def _same(x: ShapeArray, *_: Any, **options: Any) -> ShapeArray:
    return x.new(x.shape, options.get("dtype"))


def _of_entries(*arrays: Any, **_: Any) -> ShapeArray:
    return elementwise(*arrays)


def _test(*arrays: Any) -> ShapeArray:
    return elementwise(*arrays, dtype=bool)


def _modulus(x: ShapeArray) -> ShapeArray:
    return x.new(x.shape, _real_dtype(x.dtype))


def _permute_dims(x: ShapeArray, axes: Shape) -> ShapeArray:
    return x.view(tuple(x.shape[k] for k in axes))


def _moveaxis(x: ShapeArray, source: int, destination: int) -> ShapeArray:
    shape = list(x.shape)
    size = shape.pop(source)
    shape.insert(destination % (len(shape) + 1), size)
    return x.view(tuple(shape))


def _qr(x: ShapeArray, mode: str = "reduced") -> tuple[ShapeArray, ShapeArray]:
    x.product("qr", x, x)
    *batch, n, m = x.shape
    k = n if mode == "complete" else min(n, m)
    return x.new((*batch, n, k)), x.new((*batch, k, m))


def _svdvals(x: ShapeArray) -> ShapeArray:
    x.product("svdvals", x, x)
    return x.new((*x.shape[:-2], min(x.shape[-2:])), _real_dtype(x.dtype))


def _eigvalsh(x: ShapeArray) -> ShapeArray:
    x.product("eigvalsh", x, x)
    return x.new(x.shape[:-1], _real_dtype(x.dtype))


def _det(x: ShapeArray) -> ShapeArray:
    x.product("determinant", x, x)
    return x.new(x.shape[:-2])


def _diagonal(x: ShapeArray) -> ShapeArray:
    return x.view((*x.shape[:-2], min(x.shape[-2:])))


# The part of the array API that solvers use.
namespace = SimpleNamespace(
    **dict.fromkeys(("zeros_like", "ones_like", "full_like", "flip", "cumsum", "cumulative_sum"), _same),
    **dict.fromkeys(
        ("maximum", "minimum", "hypot", "clip", "sqrt", "exp", "exp2", "log", "log1p", "log2"), _of_entries
    ),
    **dict.fromkeys(("round", "floor", "sign", "cos", "sinh", "tanh"), _of_entries),
    **dict.fromkeys(("isfinite", "isnan"), _test),
    **dict.fromkeys(("sum", "max", "min"), _reduce),
    abs=_modulus,
    argmax=_argument,
    where=_where,
    concat=_concat,
    stack=_stack,
    astype=lambda x, dtype: x.new(x.shape, dtype),
    reshape=lambda x, shape: x.reshape(shape),
    permute_dims=_permute_dims,
    moveaxis=_moveaxis,
    broadcast_to=lambda x, shape: x.view(shape),
    finfo=np.finfo,
    int32=np.int32,
    nan=math.nan,
    inf=math.inf,
    linalg=SimpleNamespace(qr=_qr, svdvals=_svdvals, eigvalsh=_eigvalsh, det=_det, diagonal=_diagonal),
)
