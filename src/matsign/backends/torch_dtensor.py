"""DTensors as arguments: where the shards of a call lie, the tensors of this process, and results as DTensors.

Members of a batch are independent. Where each mesh axis shards a batch axis or nothing, the tensors of a process are the whole
arguments of its members, and the call needs no communication, nor does its derivative.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import distributed
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard

from matsign.backends.adapters import BatchCall, leaves, with_leaves

Array = torch.Tensor


class Argument(NamedTuple):
    """An argument of a public function; a member has 2 axes of a matrix, or 0 of a number."""

    name: str
    value: Any
    axes: int

    def leading(self) -> tuple[int, ...]:
        return tuple(self.value.shape[: self.value.ndim - self.axes])

    def size(self, axis: int) -> int:
        """The size of the batch axis -1, -2, …; 1 where there is none."""
        leading = self.leading()
        return leading[axis] if -axis <= len(leading) else 1


class MatrixAxis(NamedTuple):
    """The mesh axis that shards the rows (-2) or the columns (-1) of an argument."""

    mesh_axis: int
    axis: int


@dataclass(frozen=True)
class Division:
    """How a mesh divides a call: for each mesh axis the placement along a batch axis and the number of that axis, or None."""

    mesh: Any
    batch: tuple[int, ...]
    along: tuple[tuple[Any, int] | None, ...]
    matrix: MatrixAxis | None = None

    def local(self, argument: Argument) -> Any:
        """The part of an argument for the members of this process; its gradient is complete, or `Partial` where it is shared."""
        x = argument.value
        if not isinstance(x, DTensor):
            return x
        shared = [a is not None and p.is_replicate() for a, p in zip(self.along, x.placements, strict=True)]
        local: Array = x.to_local(
            grad_placements=[Partial() if s else p for s, p in zip(shared, x.placements, strict=True)]
        )
        for mesh_axis, divided in enumerate(self.along):
            if divided is None or not shared[mesh_axis] or argument.size(divided[1]) == 1:
                continue
            place = local.ndim - argument.axes + divided[1]
            start, stop = _chunk(self.mesh, mesh_axis, local.shape[place])
            local = local.narrow(place, start, stop - start)
        return local

    @property
    def matrix_mesh_axis(self) -> int:
        """The mesh axis that shards the matrices of a `divided` argument."""
        assert self.matrix is not None
        return self.matrix.mesh_axis

    def local_batch(self) -> tuple[int, ...]:
        """The batch of the members of this process."""
        return tuple(len(self._local_indices(axis - len(self.batch), size)) for axis, size in enumerate(self.batch))

    def place(self, x: Array, member: tuple[int, ...], axis: int | None = None) -> Any:
        """A tensor of this process as a DTensor; members have this shape, of which `axis` is sharded as the argument is."""
        shape = (*self.batch, *member)
        placements = [Replicate() if a is None else _move(a[0], len(self.batch) + a[1]) for a in self.along]
        if axis is not None and self.matrix is not None:
            placements[self.matrix.mesh_axis] = Shard(len(shape) + axis)
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            x.contiguous(), self.mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
        )

    def members(self, members: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """The batch indices of members of this process, given their places among them."""
        held = [self._local_indices(axis - len(self.batch), size) for axis, size in enumerate(self.batch)]
        return [tuple(indices[k] for indices, k in zip(held, member, strict=True)) for member in members]

    def _local_indices(self, axis: int, size: int) -> Sequence[int]:
        """The indices of this process along a batch axis."""
        return _local_indices(self.mesh, size, [a[0] if a is not None and a[1] == axis else None for a in self.along])


def _local_indices(mesh: Any, size: int, placements: Sequence[Any]) -> Sequence[int]:
    """The indices of this process along an axis; `placements` are None for the mesh axes that do not shard it."""
    held: Sequence[int] = range(size)
    for mesh_axis, placement in enumerate(placements):
        if placement is None:
            continue
        count = getattr(placement, "split_factor", 1)
        parts = [held[slice(*chunk(k, count, len(held)))] for k in range(count)]
        parts = [part[slice(*_chunk(mesh, mesh_axis, len(part)))] for part in parts]
        held = parts[0] if count == 1 else [k for part in parts for k in part]
    return held


def _chunk(mesh: Any, mesh_axis: int, size: int) -> tuple[int, int]:
    """First and last of the indices of this process along a mesh axis."""
    return chunk(mesh.get_local_rank(mesh_axis), mesh.size(mesh_axis), size)


def local_shape(x: Any) -> tuple[int, ...]:
    """The shape that the tensor of this process has by the placements of a DTensor."""
    sharded = [p.dim % x.ndim if hasattr(p, "dim") else None for p in x.placements]
    return tuple(
        len(
            _local_indices(
                x.device_mesh, size, [p if d == k else None for p, d in zip(x.placements, sharded, strict=True)]
            )
        )
        for k, size in enumerate(x.shape)
    )


@torch.compiler.disable
def apply(call: BatchCall) -> Any:
    """The result of a call on the members of this process, as DTensors; errors name members by their places in the batch."""
    arguments = [
        Argument(name, x, len(shape)) for name, x, shape in zip(call.names, call.arguments, call.letters, strict=True)
    ]
    _check_one_mesh(call.name, arguments)
    division = divide(call.name, arguments, _batch(call.name, arguments), by_products=call.by_products is not None)
    try:
        if division.matrix is not None and call.by_products is not None:
            check_agreement(call, arguments[0], division)
            return call.by_products(division, arguments[0], without_entries(arguments[0].value))
        for x in arguments:
            if isinstance(x.value, DTensor) and x.value.to_local().shape != local_shape(x.value):
                raise ValueError(f"{call.name}: {_misfit(x)}")
        result = call.function(*[division.local(x) for x in arguments])
    except np.linalg.LinAlgError as error:
        raise _name_members(error, division) from None
    values = (
        division.place(x, tuple(x.shape[len(division.batch) :])) if isinstance(x, Array) else x for x in leaves(result)
    )
    return with_leaves(result, values)


def _misfit(x: Argument) -> str:
    """What is wrong with a DTensor whose local tensor does not have the shape of its placements."""
    wanted, found = local_shape(x.value), tuple(x.value.to_local().shape)
    return (
        f"{_location(x)}, so that this process should have a tensor of shape {wanted}, but it has one of shape {found}; "
        "give DTensor.from_local the shape and stride of the whole array"
    )


def check_agreement(call: BatchCall, x: Argument, division: Division) -> None:
    """Raise on all processes that share the matrices of x if their calls differ or a local tensor has another shape."""
    options = ", ".join(f"{name}={value}" for name, value in call.function.options.items())
    text, wrong = (
        f"{_location(x)}, {x.value.dtype}, {options}",
        x.value.to_local().shape != local_shape(x.value),
    )
    key = zlib.crc32(text.encode())
    group = division.mesh.get_group(division.matrix_mesh_axis)
    numbers = torch.tensor([key, -key, wrong], device=x.value.to_local().device)
    distributed.all_reduce(numbers, distributed.ReduceOp.MAX, group)
    highest, lowest, any_wrong = numbers.tolist()
    if highest == -lowest and not any_wrong:
        return
    texts: list[Any] = [None] * distributed.get_world_size(group)
    distributed.all_gather_object(texts, _misfit(x) if wrong else text, group)
    by_rank = zip(distributed.get_process_group_ranks(group), texts, strict=True)
    listed = "; ".join(f"rank {rank} has {text}" for rank, text in by_rank)
    raise ValueError(f"{call.name}: the processes must have the same call, but {listed}")


def _name_members(error: Any, division: Division) -> Exception:
    """The error of this process with the indices of its members in the whole batch."""
    named: Exception = error.with_members(division.members(error.members))
    return named


def _batch(function: str, arguments: Sequence[Argument]) -> tuple[int, ...]:
    """The batch axes of all arguments, which broadcast."""
    present = [x for x in arguments if isinstance(x.value, DTensor)]
    try:
        return tuple(np.broadcast_shapes(*(x.leading() for x in present)))
    except ValueError:
        shapes = ", ".join(f"{x.name} {tuple(x.value.shape)}" for x in present)
        raise ValueError(f"{function}: the leading axes do not broadcast: {shapes}") from None


def chunk(rank: int, count: int, size: int) -> tuple[int, int]:
    """Start and stop of the part of a rank, of `count` parts as `torch.chunk` makes them."""
    length = -(-size // count)
    return min(rank * length, size), min((rank + 1) * length, size)


def _move(placement: Any, axis: int) -> Any:
    """The placement along another axis."""
    if type(placement) is Shard:
        return Shard(axis)
    return type(placement)(axis, split_factor=placement.split_factor)


def without_entries(x: Any) -> Any:
    """A tensor of the shape and dtype of a DTensor, on the device "meta"; any other argument as it is."""
    return torch.empty(x.shape, dtype=x.dtype, device="meta") if isinstance(x, DTensor) else x


def _check_one_mesh(function: str, arguments: Sequence[Argument]) -> None:
    """Raise if some arrays are DTensors and others are not, or if their meshes differ."""
    first = next(x for x in arguments if isinstance(x.value, DTensor))
    mesh = first.value.device_mesh
    for name, x, _ in arguments:
        if isinstance(x, DTensor):
            if x.device_mesh != mesh:
                raise ValueError(
                    f"{function}: {first.name} is on {_mesh(mesh)}, but {name} on {_mesh(x.device_mesh)}; all DTensors must be "
                    "on one mesh"
                )
        elif hasattr(x, "__len__"):
            raise TypeError(
                f"{function}: {first.name} is a DTensor, but {name} is a plain {type(x).__name__}; distribute it over the same "
                f"mesh, as by distribute_tensor({name}, {first.name}.device_mesh, [Replicate()]), or pass "
                f"{first.name}.full_tensor()"
            )
    if mesh.get_coordinate() is None:
        raise ValueError(
            f"{function}: this process is not in {_mesh(mesh)} of {first.name}; call it in the processes of the mesh"
        )


def _mesh(mesh: Any) -> str:
    names = mesh.mesh_dim_names
    sizes = tuple(mesh.shape)
    text = ", ".join(f"{n}={k}" for n, k in zip(names, sizes, strict=True)) if names else str(sizes)
    return f"the {mesh.device_type} mesh ({text.strip('()')}) of ranks {mesh.mesh.flatten().tolist()}"


def divide(function: str, arguments: Sequence[Argument], batch: tuple[int, ...], by_products: bool) -> Division:
    """How the mesh divides a call on DTensors of one mesh; raises, before any communication, for what is not supported.

    With `by_products` one axis of the matrices may be sharded, along one mesh axis.
    """
    present = [x for x in arguments if isinstance(x.value, DTensor)]
    mesh, along, matrix = present[0].value.device_mesh, [], None
    for mesh_axis in range(mesh.ndim):
        owner: Argument | None = None
        found: tuple[Any, int] | None = None
        for x in present:
            divided = _batch_axis(function, x, mesh_axis)
            if isinstance(divided, MatrixAxis):
                if not by_products or matrix is not None:
                    _refuse_matrix_axis(function, x, by_products)
                matrix = divided
            elif divided is not None:
                if found is not None and not _same(found, divided):
                    assert owner is not None
                    raise ValueError(
                        f"{function}: {_location(owner)} and {_location(x)} shard different batch axes along one mesh axis; "
                        f"redistribute one of them"
                    )
                owner, found = x, divided
        along.append(found)
    division = Division(mesh, batch, tuple(along), matrix)
    for x in present:
        _check_batch_axes(function, x, division)
    return division


def _same(a: tuple[Any, int], b: tuple[Any, int]) -> bool:
    factors = [getattr(p, "split_factor", None) for p, _ in (a, b)]
    return a[1] == b[1] and factors[0] == factors[1]


def _batch_axis(function: str, x: Argument, mesh_axis: int) -> tuple[Any, int] | MatrixAxis | None:
    """What a mesh axis shards of an argument: the placement and the batch axis, counted from the last (-1), or a matrix axis."""
    placement, ndim = x.value.placements[mesh_axis], x.value.ndim
    if placement.is_replicate():
        return None
    if placement.is_partial() or not hasattr(placement, "dim"):
        raise ValueError(
            f"{function}: {_location(x)}, which is a sum that the processes have not computed yet; redistribute it first, as by "
            f"{x.name}.redistribute(placements=[Replicate()]), or to Shard along a batch axis"
        )
    axis = placement.dim % ndim - (ndim - x.axes)
    return (placement, axis) if axis < 0 else MatrixAxis(mesh_axis, axis - x.axes)


def _refuse_matrix_axis(function: str, x: Argument, by_products: bool) -> NoReturn:
    batch = len(x.leading())
    remedy = (
        "redistribute it to batch axes, such as Shard(0)"
        if batch
        else f"pass {x.name}.full_tensor() if that fits in memory"
    )
    if by_products:
        raise ValueError(
            f"{function}: {_location(x)}, which shards the matrices along more than one mesh axis; at most one is supported: "
            f"redistribute the others to Replicate(), or {remedy}"
        )
    raise ValueError(
        f"{function}: {_location(x)}, which shards the matrices themselves; only calls of msign, polar and sqrtm_pair support "
        f"that: {remedy}" + (f", or pass {x.name}.full_tensor()" if batch else "")
    )


def _check_batch_axes(function: str, x: Argument, division: Division) -> None:
    """Raise if the members that a process has of x, or can take from it, are not those of the call."""
    for axis in range(-len(division.batch), 0):
        along = [k for k, a in enumerate(division.along) if a is not None and a[1] == axis]
        sharded = [not x.value.placements[k].is_replicate() for k in along]
        strided = any(hasattr(division.along[k][0], "split_factor") for k in along)  # type: ignore[index]
        if x.size(axis) == 1 and division.batch[axis] > 1:
            if any(sharded):
                raise ValueError(
                    f"{function}: {_location(x)}, which shards an axis of size 1 that broadcasts to {division.batch[axis]}; "
                    f"redistribute it to Replicate()"
                )
        elif sharded != sorted(sharded, reverse=True) or (strided and not all(sharded)):
            raise ValueError(
                f"{function}: {_location(x)}, and no other argument is sharded in this order; give all "
                "arguments the same placements along their batch axes"
            )


def _location(x: Argument) -> str:
    placements = ", ".join(map(repr, x.value.placements))
    return f"{x.name} of shape {tuple(x.value.shape)} is placed ({placements}) on {_mesh(x.value.device_mesh)}"
