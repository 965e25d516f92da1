"""Which entries of the matrices of a sharded parameter each device of its mesh holds.

A shard of a parameter, read as (count, outputs, inputs), is the product of three index sets: matrices, rows and columns. They are
computed as the placements say, on indices in place of entries, so that uneven, empty and strided shards need no case of their
own. A row or column set is a list of runs of consecutive indices, so that what a shard holds of a matrix is a list of
rectangles.
"""

from __future__ import annotations

import functools
import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch  # noqa: TID251

from matsign.optim.batching import Block, Layout

Tensor = torch.Tensor
Shape = tuple[int, ...]
DTensor = Any  # its module is loaded only where there is one


def is_sharded(x: Any) -> bool:
    """Whether x is a DTensor; if its module is not loaded, there is none."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def local(x: DTensor) -> Tensor:
    """The entries on this device."""
    return x if not is_sharded(x) else x.to_local()


class Run(NamedTuple):
    """`size` consecutive indices from `start`, which a shard holds from its position `at`."""

    start: int
    at: int
    size: int


class Part(NamedTuple):
    """A rectangle of a matrix that a shard holds: its rows and columns in the matrix, and its place in the shard."""

    rows: slice
    columns: slice
    place: tuple[int, slice, slice]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class Holding(NamedTuple):
    """What a device holds of (count, outputs, inputs): the matrices, with their places in the shard, and runs of both axes."""

    matrices: dict[int, int]
    rows: tuple[Run, ...]
    columns: tuple[Run, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of the shard, read as matrices."""
        return len(self.matrices), sum(run.size for run in self.rows), sum(run.size for run in self.columns)

    def parts(self, block: Block) -> Iterator[Part]:
        """The rectangles of a matrix that the device holds."""
        place = self.matrices.get(block.member)
        if place is None:
            return
        for rows, at_rows in _overlaps(self.rows, block.rows):
            for columns, at_columns in _overlaps(self.columns, block.columns):
                yield Part(rows, columns, (place, at_rows, at_columns))


def _overlaps(held: tuple[Run, ...], wanted: slice) -> Iterator[tuple[slice, slice]]:
    """Where runs overlap a range of indices: as a slice of the range, and as a slice of the shard."""
    for run in held:
        start, stop = max(run.start, wanted.start), min(run.start + run.size, wanted.stop)
        if start < stop:
            at = run.at + start - run.start
            yield slice(start - wanted.start, stop - wanted.start), slice(at, at + stop - start)


class Sharding(NamedTuple):
    """How a parameter is spread over a mesh: its shape, the mesh as ranks and shape, and a placement for each mesh axis."""

    shape: Shape
    ranks: tuple[int, ...]
    mesh: Shape
    placements: tuple[Any, ...]


def sharding_of(x: DTensor) -> Sharding:
    return _sharding_of(tuple(x.shape), x.device_mesh, tuple(x.placements))


@functools.lru_cache(maxsize=4096)
def _sharding_of(shape: Shape, mesh: Any, placements: tuple[Any, ...]) -> Sharding:
    return Sharding(shape, tuple(mesh.mesh.flatten().tolist()), tuple(mesh.mesh.shape), placements)


class Holders(NamedTuple):
    """Devices, by their ranks, that hold the same entries."""

    holding: Holding
    ranks: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def holders(sharding: Sharding, layout: Layout) -> tuple[Holders, ...]:
    """What the devices of the mesh hold; replicas stand together, in the order of the mesh."""
    together: dict[Shape, list[int]] = {}
    for rank, coordinate in zip(sharding.ranks, itertools.product(*map(range, sharding.mesh)), strict=True):
        key = tuple(
            0 if _axis(placement) is None else c for c, placement in zip(coordinate, sharding.placements, strict=True)
        )
        together.setdefault(key, []).append(rank)
    return tuple(Holders(_holding(sharding, layout, key), tuple(ranks)) for key, ranks in together.items())


def holder_of(held: Sequence[Holders], rank: int) -> Holders:
    return next(h for h in held if rank in h.ranks)


def _axis(placement: Any) -> int | None:
    """The axis that a placement cuts, if it cuts one."""
    return getattr(placement, "dim", None)


def _holding(sharding: Sharding, layout: Layout, coordinate: Shape) -> Holding:
    held = [_indices_at(sharding, axis, coordinate) for axis in range(len(sharding.shape))]
    first = layout.batch_axes
    outputs = slice(-1, None) if layout.outputs_last else slice(first, first + 1)
    inputs = slice(first, -1) if layout.outputs_last else slice(first + 1, None)
    matrices, rows, columns = (_flat(held[axes], sharding.shape[axes]) for axes in (slice(0, first), outputs, inputs))
    return Holding({index: at for at, index in enumerate(matrices.tolist())}, runs(rows), runs(columns))


def _indices_at(sharding: Sharding, axis: int, coordinate: Shape) -> Tensor:
    """The indices of an axis at a coordinate of the mesh, in the order of the shard."""
    indices = torch.arange(sharding.shape[axis], device="cpu")
    for count, placement, c in zip(sharding.mesh, sharding.placements, coordinate, strict=True):
        if _axis(placement) == axis:
            # A strided shard is a chunk of every one of so many chunks.
            pieces = getattr(placement, "split_factor", 1)
            indices = torch.cat([_chunk(_chunk(indices, pieces, k), count, c) for k in range(pieces)])
    return indices


def _chunk(x: Tensor, count: int, k: int) -> Tensor:
    """The k-th of so many chunks, as `torch.chunk` makes them; the last ones may be empty."""
    size = -(-len(x) // count)
    return x[k * size : (k + 1) * size]


def _flat(axes: Sequence[Tensor], shape: Shape) -> Tensor:
    """Index sets of several axes as one of the flattened axis."""
    flat = torch.zeros(1, dtype=torch.int64, device="cpu")
    for indices, size in zip(axes, shape, strict=True):
        flat = (flat[:, None] * size + indices[None, :]).reshape(-1)
    return flat


def runs(indices: Tensor) -> tuple[Run, ...]:
    """An index set as runs of consecutive indices."""
    if not len(indices):
        return ()
    breaks = (torch.nonzero(indices[1:] != indices[:-1] + 1).reshape(-1) + 1).tolist()
    starts, ends = [0, *breaks], [*breaks, len(indices)]
    return tuple(Run(int(indices[at]), at, end - at) for at, end in zip(starts, ends, strict=True))


def unsupported_sharding(x: DTensor) -> str | None:
    """Why Muon cannot take a DTensor; None if it can."""
    from torch.distributed.tensor import Replicate, Shard  # noqa: TID251
    from torch.distributed.tensor.placement_types import _StridedShard  # noqa: TID251

    for placement in x.placements:
        if type(placement) not in (Replicate, Shard, _StridedShard):
            return (
                f"is a DTensor with placements {describe_placements(x.placements)}, of which {placement} is not "
                "supported; expected Shard and Replicate: redistribute it"
            )
    if x.device_mesh.get_coordinate() is None:
        return f"is a DTensor on a mesh of the ranks {x.device_mesh.mesh.tolist()}, which this process is not part of"
    return None


def check_shards(p: DTensor, gradient: DTensor, layout: Layout, name: str) -> None:
    """An error if a parameter and its gradient are not sharded alike, or a shard has not the size that it should have."""
    if describe_sharding(p) != describe_sharding(gradient):
        raise TypeError(
            f"Muon: {name} is {describe_sharding(p)}, and its gradient is {describe_sharding(gradient)}: redistribute it"
        )
    wanted = holder_of(holders(sharding_of(p), layout), torch.distributed.get_rank()).holding.shape
    for x, whose in ((p, name), (gradient, f"the gradient of {name}")):
        if local(x).numel() != math.prod(wanted):
            raise ValueError(
                f"Muon: {whose} has a shard of shape {tuple(local(x).shape)} on this device, where its shape "
                f"{tuple(x.shape)} and placements {describe_placements(x.placements)} give {math.prod(wanted)} entries"
            )


def describe_sharding(x: DTensor) -> str:
    if not is_sharded(x):
        return "a plain tensor"
    return f"a DTensor with placements {describe_placements(x.placements)} on the mesh {x.device_mesh.mesh.tolist()}"


def describe_placements(placements: Sequence[Any]) -> str:
    return f"({', '.join(map(repr, placements))})"
