"""Matrices of which each process holds some rows or columns, with sums and products.

A product over a sharded axis is a sum over the processes, one all-reduce, and its result whole on each of them: for a tall matrix
x with sharded rows that is xᴴx, and x q for a whole q needs no communication. A product of two matrices sharded along the same
axis gathers one of them for its duration. Uneven and empty shards are those of `torch.chunk`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed
from torch.distributed.tensor import Shard

from matsign.backends import torch as whole
from matsign.backends.torch_dtensor import Argument, Division, chunk

Array = torch.Tensor


@dataclass(frozen=True)
class Group:
    """The processes that share matrices, and the place of this one among them."""

    processes: Any
    rank: int
    size: int

    def sum(self, x: Array) -> Array:
        """The sum of a tensor over the processes; x is overwritten."""
        return self._reduce(x, distributed.ReduceOp.SUM)

    def max(self, x: Array) -> Array:
        return self._reduce(x, distributed.ReduceOp.MAX)

    def _reduce(self, x: Array, kind: Any) -> Array:
        x = x.contiguous()
        distributed.all_reduce(torch.view_as_real(x) if x.is_complex() else x, kind, self.processes)
        return x

    def part(self, x: Array, axis: int) -> Array:
        """The part of this process along the rows (-2) or the columns (-1) of whole matrices."""
        start, stop = chunk(self.rank, self.size, x.shape[axis])
        return x.narrow(axis, start, stop - start)

    def concatenate(self, rows: Array, size: int) -> Array:
        """All rows (B, size, m) of a stack, of which each process has a part."""
        length = -(-size // self.size)
        padded = rows.new_zeros((len(rows), length, rows.shape[2]))
        padded[:, : rows.shape[1]] = rows
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        distributed.all_gather(parts, padded, self.processes)
        return torch.cat(parts, dim=1)[:, :size]


class Shards:
    """A stack of matrices (B, n, m), sharded along its rows (axis -2) or its columns (axis -1)."""

    def __init__(self, local: Array, axis: int, size: int, group: Group) -> None:
        self.local, self.axis, self.size, self.group = local, axis, size, group

    def with_local(self, local: Array) -> Shards:
        return Shards(local, self.axis, self.size, self.group)

    @classmethod
    def part_of(cls, x: Array, like: Shards) -> Shards:
        """The part of a whole stack that this process has, sharded as `like`."""
        return cls(like.group.part(x, like.axis), like.axis, x.shape[like.axis], like.group)

    @property
    def shape(self) -> torch.Size:
        shape = list(self.local.shape)
        shape[self.axis] = self.size
        return torch.Size(shape)

    @property
    def mT(self) -> Shards:
        return Shards(self.local.mT, -3 - self.axis, self.size, self.group)

    @property
    def real(self) -> Shards:
        return self.with_local(self.local.real)

    @property
    def imag(self) -> Shards:
        return self.with_local(self.local.imag)

    def __getattr__(self, name: str) -> Any:
        if name in ("ndim", "dtype", "device", "is_cuda", "is_meta", "is_complex"):
            return getattr(self.local, name)
        raise AttributeError(f"a matrix sharded over processes has no {name}")

    def __len__(self) -> int:
        return len(self.local)

    def __getitem__(self, index: slice | None) -> Shards:
        """The members of a slice, or with None one matrix as a stack."""
        if index is not None and not isinstance(index, slice):
            raise TypeError("a matrix sharded over processes has no entries")
        return self.with_local(self.local[index])

    def conj(self) -> Shards:
        return self.with_local(self.local.conj())

    def to(self, dtype: torch.dtype) -> Shards:
        return self.with_local(self.local.to(dtype))

    def abs(self) -> Shards:
        return self.with_local(self.local.abs())

    def all(self, axes: tuple[int, ...]) -> Array:
        """Which members of a mask are true in all processes."""
        return self.group.max((~self.local.all(-1).all(-1)).to(torch.int32)) == 0

    def __neg__(self) -> Shards:
        return self.with_local(-self.local)

    def __add__(self, other: Any) -> Shards:
        return entrywise(torch.add, self, other)

    def __sub__(self, other: Any) -> Shards:
        return entrywise(torch.sub, self, other)

    def __rsub__(self, other: Any) -> Shards:
        return entrywise(torch.sub, other, self)

    def __mul__(self, other: Any) -> Shards:
        return entrywise(torch.mul, self, other)

    def __truediv__(self, other: Any) -> Shards:
        return entrywise(torch.div, self, other)

    __radd__, __rmul__ = __add__, __mul__

    def __matmul__(self, other: Any) -> Any:
        return product(self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return product(other, self)


def product(a: Any, b: Any) -> Any:
    """a b of which at least one is sharded: sharded along an outer axis, or a whole stack if only the inner axis is sharded."""
    if isinstance(a, Shards) and a.axis == -2:
        return Shards(a.local @ gather(b), -2, a.size, a.group)
    if isinstance(b, Shards) and b.axis == -1:
        return Shards(gather(a) @ b.local, -1, b.size, b.group)
    like = a if isinstance(a, Shards) else b
    columns = a.local if isinstance(a, Shards) else like.group.part(a, -1)
    rows = b.local if isinstance(b, Shards) else like.group.part(b, -2)
    return like.group.sum(columns @ rows)


def gather(x: Any) -> Array:
    """The whole stack, gathered from all processes if it is sharded."""
    if not isinstance(x, Shards):
        return x
    if x.axis == -1:
        return gather(x.mT).mT
    return x.group.concatenate(x.local.resolve_conj(), x.size)


def entrywise(f: Callable[..., Array], *xs: Any) -> Shards:
    """f of tensors, numbers and shards, entry by entry; a whole stack takes part with its entries of this process."""
    like = next(x for x in xs if isinstance(x, Shards))
    return like.with_local(f(*(shard_like(x, like) for x in xs)))


def shard_like(x: Any, like: Shards) -> Any:
    """What this process has of x, sharded as `like`; numbers and one number for each member as they are."""
    if isinstance(x, Shards):
        return x.local if x.axis == like.axis else like.group.part(gather(x), like.axis)
    if isinstance(x, Array) and x.ndim >= 2 and x.shape[like.axis] == like.size > 1:
        return like.group.part(x, like.axis)
    return x


def from_dtensor(argument: Argument, division: Division, kind: str) -> Shards:
    """A stack of matrices sharded along their longer axis (rows, if square), in the dtype `kind`."""
    x, mesh, mesh_axis = argument.value, division.mesh, division.matrix_mesh_axis
    axis = -2 if x.shape[-2] >= x.shape[-1] else -1
    placements = list(x.placements)
    placements[mesh_axis] = Shard(x.ndim + axis)
    local = whole.astype(x.redistribute(placements=placements).to_local(), kind)
    stack = local.reshape(math.prod(local.shape[:-2]), *local.shape[-2:])
    group = Group(mesh.get_group(mesh_axis), mesh.get_local_rank(mesh_axis), mesh.size(mesh_axis))
    return Shards(stack, axis, x.shape[axis], group)


def to_dtensor(x: Any, division: Division, kind: str, argument: Argument) -> Any:
    """A result as a DTensor: sharded as the argument if it has its shape, else along the axis along which it is, if any."""
    local = whole.resolve_conj(local_part(x))
    local = whole.astype(local.reshape(division.local_batch() + local.shape[1:]), kind)
    result = division.place(local, tuple(x.shape[1:]), x.axis if isinstance(x, Shards) else None)
    if isinstance(x, Shards) and x.shape[1:] == argument.value.shape[-2:]:
        return result.redistribute(placements=argument.value.placements)
    return result


def local_part(x: Any) -> Array:
    """What this process has of a stack."""
    return x.local if isinstance(x, Shards) else x
