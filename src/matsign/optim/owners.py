"""Which process computes the msign of which matrix, for parameters that are sharded over one set of processes.

Every process computes the same plan, from shapes and placements alone. A matrix that one process alone holds as a whole stays
there. Every other has an owner, the process that has least to do so far, where the most expensive matrix is the first (longest
processing time): the shards of the matrix go there, and those of its msign come back. So no two processes compute the same.

Parameters are moved in buckets, which limit the memory for matrices in one place.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matsign.optim.batching import Block, Layout, MsignConfig
from matsign.optim.sharding import Holders, Sharding, holders

# The most numbers that a process owns in a bucket, if no parameter is larger.
OWNED, OWNED_ON_CPU = 2**25, 2**21


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


class Plan(NamedTuple):
    """Buckets in the order in which they are moved, and the work of every rank."""

    ranks: tuple[int, ...]
    buckets: tuple[Bucket, ...]
    work: dict[int, int]


def work_of(block: Block) -> int:
    """The work of the msign of a matrix, in units that are the same for all."""
    short, long = sorted(block.shape)
    return short * short * long


class _Task(NamedTuple):
    """The matrices of a parameter, and the ranks that hold them as a whole; None if not every matrix has one such rank."""

    item: int
    dtype: str
    size: int
    blocks: list[Block]
    homes: list[int] | None


def plan_owners(items: Sequence[Item], owned: int) -> Plan:
    """The plan for parameters on one set of ranks, with at most `owned` numbers of a rank in a bucket where possible."""
    ranks = tuple(sorted(items[0].sharding.ranks))
    tasks = [_task(k, item) for k, item in enumerate(items)]
    load = dict.fromkeys(ranks, 0)
    for task in tasks:
        for block, home in zip(task.blocks, task.homes or (), strict=task.homes is not None):
            load[home] += work_of(block)
    tasks.sort(key=lambda task: (task.homes is None, task.dtype, -max(map(work_of, task.blocks), default=0)))
    buckets = []
    for filled in _filled(tasks, owned * len(ranks)):
        stays = filled[0].homes is not None
        matrices = _at_home(filled) if stays else _balanced(filled, load)
        buckets.append(Bucket(tuple(task.item for task in filled), tuple(matrices), stays))
    return Plan(ranks, tuple(buckets), load)


def _task(k: int, item: Item) -> _Task:
    blocks = [block for block in item.layout.blocks(item.sharding.shape) if math.prod(block.shape)]
    return _Task(
        k, item.dtype, math.prod(item.sharding.shape), blocks, _homes(holders(item.sharding, item.layout), blocks)
    )


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


def _filled(tasks: Sequence[_Task], room: int) -> Iterator[list[_Task]]:
    """Tasks that follow each other and can share a bucket, until the bucket is full."""
    for _, alike in itertools.groupby(tasks, key=lambda task: (task.homes is None, task.dtype)):
        bucket: list[_Task] = []
        filled = 0
        for task in alike:
            if bucket and filled + task.size > room:
                yield bucket
                bucket, filled = [], 0
            bucket.append(task)
            filled += task.size
        yield bucket


def _at_home(tasks: Sequence[_Task]) -> list[Matrix]:
    return [
        Matrix(task.item, block, home)
        for task in tasks
        for block, home in zip(task.blocks, task.homes or (), strict=True)
    ]


def _balanced(tasks: Sequence[_Task], load: dict[int, int]) -> list[Matrix]:
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
