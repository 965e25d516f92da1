"""A bucket of sharded matrices on its way to their owners and back, in two all-to-alls.

A process packs the parts of its shards by owner, and an owner gets the parts of its matrices by sender; where replicas hold the
same part, one of them sends it. The parts of a msign go back in place of those of its matrix, to all that hold them. While a
bucket is computed, the next one is on its way to its owners, and the last one on its way back.

So a process holds, beside its shards, what it owns of one bucket, and of another one the numbers that it sends and receives. As
buckets are alternately large and small, that is two and a half times what it owns of the largest one; the temporaries of msign,
which gets a sixteenth of a bucket at once, make it about three times.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch  # noqa: TID251
from torch import distributed  # noqa: TID251

from matsign.optim.agreement import name_lost_ranks
from matsign.optim.batching import LARGEST, LARGEST_ON_CPU, MsignConfig, msign_batched
from matsign.optim.owners import Bucket, Item
from matsign.optim.sharding import Part, holder_of, holders

Tensor = torch.Tensor
# No call of msign is for fewer numbers only to save memory.
LEAST, LEAST_ON_CPU = 2**20, 2**14


class Piece(NamedTuple):
    """A part of the matrix of this index in a bucket, and the rank that it comes from or goes to."""

    peer: int
    matrix: int
    part: Part


class Route(NamedTuple):
    """The pieces that a process sends to owners, gets as an owner, sends back, and gets back, each by the order of its peers.

    Pieces of equal peers are in the order of the matrices of the bucket, which is the same on every rank.
    """

    outgoing: list[Piece]
    incoming: list[Piece]
    returned: list[Piece]
    home: list[Piece]


def route_of(bucket: Bucket, items: Sequence[Item], rank: int, peers: Sequence[int]) -> Route:
    """The pieces of a bucket that pass through the process of this rank."""
    route = Route([], [], [], [])
    for index, matrix in enumerate(bucket.matrices):
        held = holders(items[matrix.item].sharding, items[matrix.item].layout)
        for h in held if matrix.owner == rank else (holder_of(held, rank),):
            sender = matrix.owner if matrix.owner in h.ranks else h.ranks[index % len(h.ranks)]
            for part in h.holding.parts(matrix.block):
                if rank in h.ranks:
                    route.home.append(Piece(matrix.owner, index, part))
                if rank == sender:
                    route.outgoing.append(Piece(matrix.owner, index, part))
                if rank == matrix.owner:
                    route.incoming.append(Piece(sender, index, part))
                    route.returned.extend(Piece(holder, index, part) for holder in h.ranks)
    position = {peer: k for k, peer in enumerate(peers)}
    for pieces in route:
        pieces.sort(key=lambda piece: position[piece.peer])
    return route


class Update(NamedTuple):
    """The msign of a matrix of this shape, as far as it belongs to a place in the shard of the parameter of this index."""

    item: int
    shape: tuple[int, int]
    place: tuple[Any, ...]
    sign: Tensor


class Exchange:
    """One bucket, on one process, for one step after the other.

    Parameters
    ----------
    bucket : Bucket
        The parameters, and the owners of their matrices.
    items : sequence of Item
        All parameters of the plan.
    group : torch.distributed.ProcessGroup
        The processes of the plan.
    """

    def __init__(self, bucket: Bucket, items: Sequence[Item], group: Any) -> None:
        self.bucket, self.items, self.group = bucket, items, group
        self.peers = distributed.get_process_group_ranks(group)
        self.rank = distributed.get_rank()
        self.route = route_of(bucket, items, self.rank, self.peers)
        self._owned = sorted(
            {piece.matrix for piece in self.route.incoming}, key=lambda k: sorted(bucket.matrices[k].block.shape)
        )
        self._buffers: tuple[Tensor, Tensor] | None = None
        self._work: Any = None

    def send(self, shards: dict[int, Tensor]) -> None:
        """Start to move the shards of the parameters, read as matrices, to the owners. `shards` is emptied."""
        first = next(iter(shards.values()))
        packed = first.new_empty(_numbers(self.route.outgoing))
        matrices = self.bucket.matrices
        _copy(
            _views(packed, self.route.outgoing),
            [shards[matrices[piece.matrix].item][piece.part.place] for piece in self.route.outgoing],
        )
        shards.clear()
        self._move(packed, self.route.outgoing, self.route.incoming)

    def receive(self) -> None:
        """Wait for the matrices that this process owns."""
        self._matrices = self._wait()
        same = self.route.returned == self.route.incoming
        self._signs = self._matrices if same else self._matrices.new_empty(_numbers(self.route.returned))
        self._from = _by_matrix(self._matrices, self.route.incoming)
        self._to = _by_matrix(self._signs, self.route.returned)

    def chunks(self) -> list[list[int]]:
        """The owned matrices in the order in which they are computed, in chunks that limit temporaries."""
        least, most = (LEAST_ON_CPU, LARGEST_ON_CPU) if self._matrices.device.type == "cpu" else (LEAST, LARGEST)
        room = max(least, min(most, self._matrices.numel() // 16))
        chunks: list[list[int]] = []
        filled = room
        for k in self._owned:
            size = math.prod(self.bucket.matrices[k].block.shape)
            if filled + size > room:
                chunks.append([])
                filled = 0
            chunks[-1].append(k)
            filled += size
        return chunks

    def orthogonalise(self, chunk: list[int]) -> None:
        """The msign of owned matrices, in place of them where nothing else has to go back."""
        alike: dict[tuple[tuple[int, int], MsignConfig], list[int]] = {}
        for k in chunk:
            matrix = self.bucket.matrices[k]
            alike.setdefault((matrix.block.shape, self.items[matrix.item].how), []).append(k)
        stacks = [self._assemble(shape, members) for (shape, _), members in alike.items()]
        signs = msign_batched(stacks, [how for _, how in alike])
        for members, stack in zip(alike.values(), signs, strict=True):
            targets, sources = [], []
            for k, sign in zip(members, stack, strict=True):
                for part, view in self._to[k]:
                    targets.append(view)
                    sources.append(sign[part.rows, part.columns])
            _copy(targets, sources)

    def _assemble(self, shape: tuple[int, int], members: list[int]) -> Tensor:
        """Matrices of one shape as a stack."""
        stack = self._matrices.new_empty((len(members), *shape))
        targets, sources = [], []
        for matrix, k in zip(stack, members, strict=True):
            for part, view in self._from[k]:
                targets.append(matrix[part.rows, part.columns])
                sources.append(view)
        _copy(targets, sources)
        return stack

    def send_back(self) -> None:
        """Start to move the msigns to the shards."""
        signs = self._signs
        del self._matrices, self._signs, self._from, self._to
        self._move(signs, self.route.returned, self.route.home)

    def updates(self) -> list[Update]:
        """Wait for the msigns of the shards of this process."""
        views = _views(self._wait(), self.route.home)
        matrices = [self.bucket.matrices[piece.matrix] for piece in self.route.home]
        return [
            Update(matrix.item, matrix.block.shape, piece.part.place, view)
            for matrix, piece, view in zip(matrices, self.route.home, views, strict=True)
        ]

    def _move(self, packed: Tensor, given: list[Piece], taken: list[Piece]) -> None:
        if self.bucket.stays:
            self._buffers = (packed, packed)
            return
        arriving = packed.new_empty(_numbers(taken))
        self._buffers = (packed, arriving)
        size = packed.element_size()
        exchange = functools.partial(
            distributed.all_to_all_single,
            arriving.view(torch.uint8),  # any dtype, as bytes
            packed.view(torch.uint8),
            [size * count for count in self._counts(taken)],
            [size * count for count in self._counts(given)],
            group=self.group,
            async_op=True,
        )
        self._work = name_lost_ranks(self.group, exchange)

    def _wait(self) -> Tensor:
        if self._work is not None:
            name_lost_ranks(self.group, self._work.wait)
        assert self._buffers is not None
        _, arrived = self._buffers
        self._work = self._buffers = None
        return arrived

    def _counts(self, pieces: list[Piece]) -> list[int]:
        counts = dict.fromkeys(self.peers, 0)
        for piece in pieces:
            counts[piece.peer] += piece.part.size
        return list(counts.values())


def move_buckets(
    exchanges: Sequence[Exchange],
    send: Callable[[Exchange], None],
    finish: Callable[[Exchange], None],
) -> None:
    """All buckets to their owners and back. The order of the all-to-alls is the same on every rank.

    `send` starts an exchange, and `finish` uses what it brought back. Both happen in the middle of the computation of another
    bucket, so that the way back overlaps with its first half and the way there with its second.
    """
    if not exchanges:
        return
    waiting: Iterator[Exchange] = iter(exchanges)
    send(next(waiting))
    before: Exchange | None = None
    for exchange in exchanges:
        exchange.receive()
        chunks = exchange.chunks()
        middle = len(chunks) // 2
        for chunk in chunks[:middle]:
            exchange.orthogonalise(chunk)
        if before is not None:
            finish(before)
        for following in waiting:
            send(following)
            break
        for chunk in chunks[middle:]:
            exchange.orthogonalise(chunk)
        exchange.send_back()
        before = exchange
    if before is not None:
        finish(before)


def _numbers(pieces: list[Piece]) -> int:
    return sum(piece.part.size for piece in pieces)


def _views(buffer: Tensor, pieces: list[Piece]) -> list[Tensor]:
    """The pieces in a buffer where they stand one after the other."""
    sizes = [piece.part.size for piece in pieces]
    return [x.view(piece.part.shape) for x, piece in zip(torch.split(buffer, sizes), pieces, strict=True)]


def _by_matrix(buffer: Tensor, pieces: list[Piece]) -> dict[int, list[tuple[Part, Tensor]]]:
    """The same for each matrix."""
    found: dict[int, list[tuple[Part, Tensor]]] = {}
    for piece, view in zip(pieces, _views(buffer, pieces), strict=True):
        found.setdefault(piece.matrix, []).append((piece.part, view))
    return found


def _copy(targets: list[Tensor], sources: list[Tensor]) -> None:
    if targets:
        torch._foreach_copy_(targets, sources)
