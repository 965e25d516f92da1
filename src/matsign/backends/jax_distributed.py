"""A stack of matrices whose rows or columns are distributed over devices, and its products.

The code here runs on each device (under `jax.shard_map`, or in the program that XLA partitions) with the block of that device. A
`Distributed` has the shape of the whole matrices and their operators, so that solvers written for arrays accept it; no operation
of it ever makes a block larger than those of its arguments, except for matrices that `Grid.small` allows each device to hold.

A product of two distributed matrices passes the blocks of one factor around the ring of devices: after p - 1 exchanges each
device has multiplied by all of them, and has held two at a time.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as xp
from jax import lax as _lax

from matsign._typing import Array

lax: Any = _lax  # some of its functions have no types
ROWS, COLUMNS = -2, -1


@dataclass(frozen=True)
class Grid:
    """The mesh axes over which matrices are distributed, and their number of devices.

    Every device holds a whole matrix of at most `small` entries. `axes` are those of the rows or columns, `every` these and the
    axes of the batch.
    """

    axes: tuple[str, ...]
    every: tuple[str, ...]
    devices: int
    small: float

    def axis(self, n: int, m: int) -> int | None:
        """The distributed axis of n × m matrices: the longer one that the devices divide, or None if they are small."""
        if n * m <= self.small:
            return None
        long, short = (ROWS, COLUMNS) if n >= m else (COLUMNS, ROWS)
        for axis in (long, short):
            if (n, m)[axis] % self.devices == 0:
                return axis
        raise ValueError(
            f"a matrix of shape ({n}, {m}) cannot be distributed over {self.devices} devices (mesh axes "
            f"{', '.join(self.axes)}): their number must divide the number of rows or of columns; shard over fewer axes"
        )

    @property
    def index(self) -> Array:
        return lax.axis_index(self.axes)

    def sum(self, x: Array) -> Array:
        return lax.psum(x, self.axes)

    def largest(self, x: Array) -> Array:
        return lax.pmax(x, self.axes)

    def anywhere(self, mask: Array) -> Array:
        """Whether the mask holds a true entry on any device; all devices must take the same branches."""
        return lax.pmax(mask.any().astype(xp.int32), self.every) > 0

    def pass_on(self, x: Any, by: int) -> Any:
        """x of the device `by` places before this one on the ring."""
        ring = [(j, (j + by) % self.devices) for j in range(self.devices)]
        return lax.ppermute(x, self.axes, ring)


@functools.partial(jax.tree_util.register_dataclass, data_fields=["block"], meta_fields=["axis", "grid"])
@dataclass(frozen=True, eq=False)
class Distributed:
    """Matrices (..., n, m): `block` holds this device's rows (axis -2) or columns (axis -1), or everything (axis None)."""

    block: Array
    axis: int | None
    grid: Grid

    __array_ufunc__ = None  # a NumPy number on the left leaves the operation to this class

    @property
    def shape(self) -> tuple[int, ...]:
        shape = list(self.block.shape)
        if self.axis is not None:
            shape[self.axis] *= self.grid.devices
        return tuple(shape)

    @property
    def ndim(self) -> int:
        return self.block.ndim

    @property
    def dtype(self) -> Any:
        return self.block.dtype

    def __len__(self) -> int:
        return int(self.block.shape[0])

    def _like(self, block: Array) -> Distributed:
        return Distributed(block, self.axis, self.grid)

    @property
    def real(self) -> Distributed:
        return self._like(self.block.real)

    @property
    def imag(self) -> Distributed:
        return self._like(self.block.imag)

    @property
    def mT(self) -> Distributed:
        return Distributed(self.block.mT, {None: None, ROWS: COLUMNS, COLUMNS: ROWS}[self.axis], self.grid)

    def conj(self) -> Distributed:
        return self._like(self.block.conj()) if xp.iscomplexobj(self.block) else self

    def astype(self, kind: Any) -> Distributed:
        return self._like(self.block.astype(kind))

    def __getitem__(self, key: Any) -> Distributed:
        """Indices of leading axes only."""
        block = self.block[key]
        assert block.shape[-2:] == self.block.shape[-2:], "rows and columns of distributed matrices have no indices"
        return self._like(block)

    def all(self, axis: tuple[int, int]) -> Array:
        assert axis == (-1, -2), axis
        false = (~self.block).any(axis).astype(xp.int32)
        return (false if self.axis is None else self.grid.largest(false)) == 0

    def any(self, axis: tuple[int, int]) -> Array:
        return ~self._like(~self.block).all(axis)

    def sum(self) -> Array:
        """The sum of all entries of each member."""
        total = xp.sum(self.block, axis=(-1, -2))
        return total if self.axis is None else self.grid.sum(total)

    def largest(self) -> Array:
        """The largest entry of each member."""
        top = xp.max(self.block, axis=(-1, -2))
        return top if self.axis is None else self.grid.largest(top)

    def distribute(self, axis: int | None) -> Distributed:
        """The same matrices distributed along another axis: by one exchange of all devices with all."""
        if axis == self.axis:
            return self
        if self.axis is None:
            assert axis is not None
            return Distributed(
                _part(self.block, self.grid.index, self.shape[axis] // self.grid.devices, axis), axis, self.grid
            )
        d, axes = self.ndim, self.grid.axes
        if axis is None:
            assert self.shape[-1] * self.shape[-2] <= self.grid.small, "the matrix is too large for one device"
            return Distributed(lax.all_gather(self.block, axes, axis=d + self.axis, tiled=True), None, self.grid)
        block = lax.all_to_all(self.block, axes, split_axis=d + axis, concat_axis=d + self.axis, tiled=True)
        return Distributed(block, axis, self.grid)

    def __matmul__(self, other: Any) -> Distributed:
        return _product(self, other) if isinstance(other, Distributed) else NotImplemented

    def __neg__(self) -> Distributed:
        return self._like(-self.block)

    def __invert__(self) -> Distributed:
        return self._like(~self.block)


def entrywise(f: Callable[..., Array], *args: Any) -> Distributed:
    """f of matrices and numbers, entry by entry; numbers for each member come with two axes of size 1."""
    matrices = [x for x in args if isinstance(x, Distributed)]
    axes = {x.axis for x in matrices}
    axis = next(iter(axes)) if len(axes) == 1 else ROWS if ROWS in axes else COLUMNS
    for x in args:
        if not isinstance(x, Distributed) and any(k != 1 for k in xp.shape(x)[-2:]):
            raise TypeError(f"an array of shape {xp.shape(x)} beside matrices distributed over devices")
    blocks = (x.distribute(axis).block if isinstance(x, Distributed) else x for x in args)
    return Distributed(f(*blocks), axis, matrices[0].grid)


def _operators() -> None:
    """The arithmetic operators and comparisons of `Distributed`, entry by entry."""
    for name in ("add", "sub", "mul", "truediv", "pow", "eq", "ne", "lt", "le", "gt", "ge", "and_", "or_"):
        f = getattr(operator, name)
        plain = name.strip("_")
        setattr(Distributed, f"__{plain}__", lambda x, y, f=f: entrywise(f, x, y))
        if plain in ("add", "sub", "mul", "truediv", "and", "or"):
            setattr(Distributed, f"__r{plain}__", lambda x, y, f=f: entrywise(f, y, x))


_operators()


def identity(n: int, m: int, like: Distributed) -> Distributed:
    """Ones on the diagonal of an n × m matrix without leading axes."""
    grid, axis = like.grid, like.grid.axis(n, m)
    rows, columns = xp.arange(n), xp.arange(m)
    if axis == ROWS:
        rows = xp.arange(n // grid.devices) + grid.index * (n // grid.devices)
    elif axis == COLUMNS:
        columns = xp.arange(m // grid.devices) + grid.index * (m // grid.devices)
    return Distributed((rows[:, None] == columns).astype(like.dtype), axis, grid)


def trace(x: Distributed) -> Array:
    """The trace of square matrices."""
    if x.axis is None:
        return xp.trace(x.block, axis1=-2, axis2=-1)
    other = COLUMNS if x.axis == ROWS else ROWS
    square = _part(x.block, x.grid.index, x.block.shape[x.axis], other)
    return x.grid.sum(xp.trace(square, axis1=-2, axis2=-1))


def _part(x: Array, k: Any, size: int, axis: int) -> Array:
    """The k-th block of this size along an axis."""
    return lax.dynamic_slice_in_dim(x, k * size, size, x.ndim + axis)


def _product(x: Distributed, y: Distributed) -> Distributed:
    grid = x.grid
    # Without it XLA merges parts of products with the same matrix, and holds their blocks for longer.
    blocks = lax.optimization_barrier((x.block, y.block))
    x, y = x._like(blocks[0]), y._like(blocks[1])
    if y.axis is None and x.axis != COLUMNS:
        return Distributed(x.block @ y.block, x.axis, grid)
    if x.axis is None and y.axis == COLUMNS:
        return Distributed(x.block @ y.block, COLUMNS, grid)
    if x.axis == COLUMNS and y.axis == COLUMNS:
        return _accumulate_columns(x, y)
    if x.axis == ROWS:
        return _accumulate_rows(x, y) if y.axis == ROWS else _place_columns(x, y)
    return _sum_of_products(x.distribute(COLUMNS), y.distribute(ROWS))


def _around(grid: Grid, first: Callable[..., Array], step: Callable[..., Array], moving: Array) -> Array:
    """``result = step(result, moving, source)`` for the blocks of all devices, after ``first(moving, source)`` for its own."""

    def body(s: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        result, moving = carry
        moving = grid.pass_on(moving, -1)
        return step(result, moving, (grid.index + s) % grid.devices), moving

    result = first(moving, grid.index)
    return lax.fori_loop(1, grid.devices, body, (result, moving))[0] if grid.devices > 1 else result


def _accumulate_rows(x: Distributed, y: Distributed) -> Distributed:
    """Rows times rows: the blocks of y move."""

    def term(moving: Array, source: Array) -> Array:
        return _part(x.block, source, moving.shape[ROWS], COLUMNS) @ moving

    return Distributed(_around(x.grid, term, lambda sum, *moving: sum + term(*moving), y.block), ROWS, x.grid)


def _accumulate_columns(x: Distributed, y: Distributed) -> Distributed:
    """Columns times columns: the blocks of x move."""

    def term(moving: Array, source: Array) -> Array:
        return moving @ _part(y.block, source, moving.shape[COLUMNS], ROWS)

    return Distributed(_around(x.grid, term, lambda sum, *moving: sum + term(*moving), x.block), COLUMNS, x.grid)


def _place_columns(x: Distributed, y: Distributed) -> Distributed:
    """Rows times columns: the blocks of y move, and each gives other columns of the product."""

    def place(result: Array, moving: Array, source: Array) -> Array:
        start = source * moving.shape[COLUMNS]
        return lax.dynamic_update_slice_in_dim(result, x.block @ moving, start, result.ndim - 1)

    def first(moving: Array, source: Array) -> Array:
        # All places get this block until they get their own.
        return xp.concatenate([x.block @ moving] * x.grid.devices, axis=-1)

    return Distributed(_around(x.grid, first, place, y.block), ROWS, x.grid)


def _sum_of_products(x: Distributed, y: Distributed) -> Distributed:
    """Columns times rows: a sum over the devices. A small product is summed at once; of a large one, partial sums move."""
    grid, n, m = x.grid, x.shape[-2], y.shape[-1]
    axis = grid.axis(n, m)
    if axis is None:
        return Distributed(grid.sum(x.block @ y.block), None, grid)
    size = (n, m)[axis] // grid.devices

    def term(target: Array) -> Array:
        if axis == ROWS:
            return _part(x.block, target, size, ROWS) @ y.block
        return x.block @ _part(y.block, target, size, COLUMNS)

    def body(s: Any, result: Array) -> Array:
        return grid.pass_on(result, 1) + term((grid.index - s - 1) % grid.devices)

    result = term((grid.index - 1) % grid.devices)
    return Distributed(lax.fori_loop(1, grid.devices, body, result) if grid.devices > 1 else result, axis, grid)
