"""What a step of Muon on sharded parameters moves and computes, from shapes alone: by the plan that the step itself follows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch.distributed.tensor import Replicate, Shard  # noqa: TID251

from matsign.optim.batching import LARGEST, Block, Layout, MsignConfig, Shape
from matsign.optim.exchange import LEAST
from matsign.optim.owners import Bucket, Item, Sharded, plan_owners
from matsign.optim.sharding import Sharding, holders


class Forecast(NamedTuple):
    """By rank, the numbers (not bytes) sent in all buckets, and the shapes of the matrices that the rank computes.

    `moving` is the number of buckets with two all-to-alls each; `largest` the shapes of the matrices of the rank that owns most
    numbers in one bucket; `sharded` the number, outputs and inputs of matrices that stay sharded along their long side and go
    through one msign.
    """

    sent: tuple[int, ...]
    owned: tuple[Counter[Shape], ...]
    moving: int
    largest: tuple[Shape, ...]
    sharded: tuple[Shape, ...]


def items_of(
    shapes: Sequence[Shape],
    layouts: Sequence[Layout],
    mesh: Mapping[str, int],
    sides: Sequence[int | None],
    how: MsignConfig,
    dtype: str,
) -> list[Item]:
    """Parameters of these shapes; `sides` has for each mesh axis what it shards: axis 0 or 1 of matrices, or None.

    -1 is the last axis that counts matrices, where there is one.
    """

    def placements(layout: Layout) -> tuple[Any, ...]:
        axes = [None if axis is None else layout.batch_axes + axis for axis in sides]
        return tuple(Shard(axis) if axis is not None and axis >= 0 else Replicate() for axis in axes)

    ranks, sizes = tuple(range(math.prod(mesh.values()))), tuple(mesh.values())
    return [
        Item(Sharding(tuple(shape), ranks, sizes, placements(layout)), layout, how, dtype)
        for shape, layout in zip(shapes, layouts, strict=True)
    ]


def forecast(items: Sequence[Item], owned: int) -> Forecast:
    """The forecast for parameters on one mesh, with at most `owned` numbers of a rank in a bucket where possible."""
    plan = plan_owners(items, owned)
    place = {rank: k for k, rank in enumerate(plan.ranks)}
    sizes = _Sizes(items)
    sent, largest = [0] * len(place), ()
    owned_shapes: list[Counter[Shape]] = [Counter() for _ in place]
    for bucket in plan.buckets:
        owners: dict[int, list[Shape]] = {}
        for matrix in bucket.matrices:
            owners.setdefault(matrix.owner, []).append(matrix.block.shape)
        for rank, shapes in owners.items():
            owned_shapes[place[rank]].update(shapes)
        largest = max(largest, *map(tuple, owners.values()), key=lambda shapes: sum(map(math.prod, shapes)))
        if not bucket.stays:
            _add_sent(bucket, sizes, place, sent)
    moving = sum(not bucket.stays for bucket in plan.buckets)
    return Forecast(tuple(sent), tuple(owned_shapes), moving, largest, tuple(_stack(s, items) for s in plan.sharded))


def _stack(sharded: Sharded, items: Sequence[Item]) -> Shape:
    """The number, outputs and inputs of the matrices of parameters that stay sharded together."""
    first = items[sharded.items[0]]
    ((count, outputs, inputs),) = first.layout.shapes(first.sharding.shape)
    return count * len(sharded.items), outputs, inputs


class _Sizes:
    """How many numbers of a matrix each group of replicas holds; equal matrices are computed once."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.known: dict[Any, list[tuple[tuple[int, ...], int]]] = {}

    def of(self, item: int, block: Block) -> list[tuple[tuple[int, ...], int]]:
        sharding, layout, *_ = self.items[item]
        key = sharding, layout, block.member, block.rows.start, block.columns.start
        if key not in self.known:
            parts = ((h.ranks, sum(part.size for part in h.holding.parts(block))) for h in holders(sharding, layout))
            self.known[key] = [(ranks, size) for ranks, size in parts if size]
        return self.known[key]


def _add_sent(bucket: Bucket, sizes: _Sizes, place: Mapping[int, int], sent: list[int]) -> None:
    """Add what each rank sends of a bucket: shards to owners, by one of the ranks that hold them, and msigns to all holders."""
    for index, matrix in enumerate(bucket.matrices):
        owner = matrix.owner
        for ranks, size in sizes.of(matrix.item, matrix.block):
            elsewhere = len(ranks) - (owner in ranks)
            if owner not in ranks:
                sent[place[ranks[index % len(ranks)]]] += size
            sent[place[owner]] += size * elsewhere


def chunk(shapes: Sequence[Shape]) -> tuple[Shape, int]:
    """The shape of the largest matrix among those of an owner, and how many of them go through one msign."""
    shape = max(shapes, key=math.prod)
    alike = sum(sorted(other) == sorted(shape) for other in shapes)
    room = max(LEAST, min(LARGEST, sum(map(math.prod, shapes)) // 16))
    return shape, max(1, min(alike, room // math.prod(shape)))
