"""Which process computes the msign of which matrix, for parameters that are sharded over one set of processes.

Every process computes the same plan, from shapes and placements alone. A matrix that one process alone holds as a whole stays
there. Every other has an owner, the process that has least to do so far, where the most expensive matrix is the first (longest
processing time): the shards of the matrix go there, and those of its msign come back. So no two processes compute the same.

A few matrices may be too large for that: while one process computes the msign of one, the others wait. Those that are sharded
along their long side, and so long that the Gram form is the way anyway, then stay sharded, and all processes work on them.

Parameters are moved in buckets, which limit the memory for matrices in one place.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matsign.iterations.newton_schulz import form
from matsign.optim.batching import Block, Layout, MsignConfig
from matsign.optim.sharding import Holders, Sharding, holders

# The most work of a process, over the mean, for which no matrix stays sharded.
UNEQUAL = 1.15
# The least work of a matrix that stays sharded: less is done before a few all-reduces are.
LARGE = 2**24
# Where a matrix stays sharded, all processes repeat products of k × k matrices, k being its short side: they take as long as
# products with the matrix if it were so many times as long as k.
REPEATED = 7
# The most numbers that a process owns in a bucket, if no parameter is larger.
OWNED, OWNED_ON_CPU = 2**26, 2**23


class Item(NamedTuple):
    """A parameter to plan for: how it is sharded, how it is read as matrices, how their msign is computed, and in which dtype."""

    sharding: Sharding
    layout: Layout
    how: MsignConfig
    dtype: str


class Matrix(NamedTuple):
    """A matrix of the parameter of this index, and the rank that computes its msign."""

    item: int
    block: Block
    owner: int


class Bucket(NamedTuple):
    """Parameters that are moved together, by their indices, and their matrices; `stays` if none has to move."""

    items: tuple[int, ...]
    matrices: tuple[Matrix, ...]
    stays: bool


class Sharded(NamedTuple):
    """Parameters that are alike in everything, by their indices, and the axis of (count, outputs, inputs) that stays sharded."""

    items: tuple[int, ...]
    axis: int


class Plan(NamedTuple):
    """Buckets in the order in which they are moved, the parameters that stay sharded, and the work of every rank."""

    ranks: tuple[int, ...]
    buckets: tuple[Bucket, ...]
    sharded: tuple[Sharded, ...]
    work: dict[int, float]


def work_of(block: Block) -> int:
    """The work of the msign of a matrix, in units that are the same for all."""
    short, long = sorted(block.shape)
    return short * short * long


class _Task(NamedTuple):
    """The matrices of a parameter, the rank that holds each as a whole if one does, and the axis that can stay sharded."""

    item: int
    dtype: str
    size: int
    blocks: list[Block]
    homes: list[int] | None
    axis: int | None

    @property
    def largest(self) -> int:
        """The work of its most expensive matrix."""
        return max(map(work_of, self.blocks), default=0)


def plan_owners(items: Sequence[Item], owned: int) -> Plan:
    """The plan for parameters on one set of ranks, with at most `owned` numbers of a rank in a bucket where possible."""
    ranks = tuple(sorted(items[0].sharding.ranks))
    tasks = [_task(k, item) for k, item in enumerate(items)]
    tasks.sort(key=lambda task: (task.homes is None, task.dtype, -task.largest))
    sharded: list[_Task] = []
    while True:
        buckets, load = _assign(tasks, ranks, owned)
        everywhere = sum(work_of(block) for task in sharded for block in task.blocks) / len(ranks)
        work = {rank: everywhere + own for rank, own in load.items()}
        left = [task.largest for task in tasks if task.axis is not None]
        if not left or max(work.values()) <= UNEQUAL * sum(work.values()) / len(ranks):
            return Plan(ranks, tuple(buckets), _alike(sharded, items, owned, len(ranks)), work)
        sharded += [task for task in tasks if task.axis is not None and task.largest == max(left)]
        tasks = [task for task in tasks if task.axis is None or task.largest < max(left)]


def long_axis(item: Item) -> int | None:
    """The axis of (count, outputs, inputs) along which the matrices are sharded, if it is their long one and they may stay so."""
    sharding, layout = item.sharding, item.layout
    whole = (layout.split, layout.split_inputs) == (1, 1) and len(sharding.shape) == layout.batch_axes + 2
    if len(sharding.mesh) != 1 or not whole or not sharding.placements[0].is_shard():
        return None
    axis = sharding.placements[0].dim - layout.batch_axes
    if axis not in (0, 1):
        return None
    long, short = sharding.shape[layout.batch_axes :][axis], sharding.shape[layout.batch_axes :][1 - axis]
    if not form(short, long)[0] or long / sharding.mesh[0] + REPEATED * short >= long:
        return None
    return 2 - axis if layout.outputs_last else 1 + axis


def _alike(tasks: Sequence[_Task], items: Sequence[Item], owned: int, ranks: int) -> tuple[Sharded, ...]:
    """Tasks that are alike in everything together, as many as there is room for: every rank holds all of their Gram matrices."""
    together: dict[tuple[Item, int], list[int]] = {}
    for task in tasks:
        if task.axis is not None:
            together.setdefault((items[task.item], task.axis), []).append(task.item)
    found = []
    for (item, axis), members in together.items():
        count, *sides = item.layout.shapes(item.sharding.shape)[0]
        held = max(math.prod(item.sharding.shape) // ranks, count * min(sides) ** 2)
        fit = max(1, owned // held)
        found += [Sharded(tuple(members[k : k + fit]), axis) for k in range(0, len(members), fit)]
    return tuple(found)


def _assign(tasks: Sequence[_Task], ranks: Sequence[int], owned: int) -> tuple[list[Bucket], dict[int, int]]:
    """Buckets with an owner for each matrix, and the work of each rank."""
    load = dict.fromkeys(ranks, 0)
    for task in tasks:
        for block, home in zip(task.blocks, task.homes or (), strict=task.homes is not None):
            load[home] += work_of(block)
    buckets = []
    for filled in _fill_buckets(tasks, owned * len(ranks)):
        stays = filled[0].homes is not None
        matrices = _at_home(filled) if stays else _assign_owners(filled, load)
        buckets.append(Bucket(tuple(task.item for task in filled), tuple(matrices), stays))
    return buckets, load


def _task(k: int, item: Item) -> _Task:
    blocks = [block for block in item.layout.blocks(item.sharding.shape) if math.prod(block.shape)]
    homes = _homes(holders(item.sharding, item.layout), blocks)
    worthwhile = homes is None and max(map(work_of, blocks), default=0) >= LARGE
    axis = long_axis(item) if worthwhile else None
    return _Task(k, item.dtype, math.prod(item.sharding.shape), blocks, homes, axis)


def _homes(held: Sequence[Holders], blocks: Sequence[Block]) -> list[int] | None:
    """The rank that holds each matrix as a whole, if for each there is exactly one."""
    if any(len(h.ranks) > 1 for h in held):
        return None
    homes = []
    for block in blocks:
        found = [h.ranks[0] for h in held if any(True for _ in h.holding.parts(block))]
        if len(found) != 1:
            return None
        homes += found
    return homes


def _fill_buckets(tasks: Sequence[_Task], most: int) -> Iterator[list[_Task]]:
    """Tasks that follow each other and can share a bucket, until the bucket is full.

    Every second bucket is half as large: of the next and the last bucket a process has two copies, of the present one only one.
    """
    room = most
    for _, alike in itertools.groupby(tasks, key=lambda task: (task.homes is None, task.dtype)):
        bucket: list[_Task] = []
        filled = 0
        for task in alike:
            if bucket and filled + task.size > room:
                yield bucket
                bucket, filled, room = [], 0, most if room < most else most // 2
            bucket.append(task)
            filled += task.size
        yield bucket


def _at_home(tasks: Sequence[_Task]) -> list[Matrix]:
    return [
        Matrix(task.item, block, home)
        for task in tasks
        for block, home in zip(task.blocks, task.homes or (), strict=True)
    ]


def _assign_owners(tasks: Sequence[_Task], load: dict[int, int]) -> list[Matrix]:
    """An owner for each matrix, the most expensive first: the rank with the least work so far, to which it is added."""
    queue = [(work, rank) for rank, work in load.items()]
    heapq.heapify(queue)
    found = []
    for block, item in sorted(
        ((block, task.item) for task in tasks for block in task.blocks), key=lambda pair: -work_of(pair[0])
    ):
        work, rank = heapq.heappop(queue)
        load[rank] = work + work_of(block)
        heapq.heappush(queue, (load[rank], rank))
        found.append(Matrix(item, block, rank))
    return found
