"""Errors that are the same on every process: of processes that disagree, and of one that has ended."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import torch  # noqa: TID251
from torch import distributed  # noqa: TID251

T = TypeVar("T")

# How long a process waits for a sign of life of the others after a connection was lost.
PATIENCE = datetime.timedelta(seconds=20)
_losses = itertools.count()


class Opinion(NamedTuple):
    """What a process says: lines, their digest, the error that it has, and whether it belongs to other groups, too."""

    lines: Sequence[Callable[[], str]]
    digest: bytes
    error: Exception | None
    elsewhere: bool


def agree(group: Any, device: Any, mine: Opinion) -> tuple[Exception | None, bool]:
    """The error that every process of a group has to raise, if one has an error or their digests differ; any `elsewhere`.

    It costs one all-reduce of four numbers if all is well.
    """
    number = int.from_bytes(mine.digest[:7], "big")
    flags = torch.tensor([number, -number, mine.error is not None, mine.elsewhere], dtype=torch.int64, device=device)
    name_lost_ranks(group, lambda: distributed.all_reduce(flags, distributed.ReduceOp.MAX, group=group))
    high, minus_low, failed, elsewhere = flags.tolist()
    if not failed and high == -minus_low:
        return None, bool(elsewhere)
    ranks = distributed.get_process_group_ranks(group)
    said: list[Any] = [None] * len(ranks)
    error = None if mine.error is None else (type(mine.error), str(mine.error))
    lines = tuple(line() for line in mine.lines)
    name_lost_ranks(group, lambda: distributed.all_gather_object(said, (error, lines), group=group))
    for found, _ in said:
        if found is not None:
            kind, text = found
            return kind(text), bool(elsewhere)
    return _difference(ranks, [theirs for _, theirs in said]), bool(elsewhere)


def _difference(ranks: Sequence[int], said: Sequence[Sequence[str]]) -> ValueError:
    """An error for the first line that differs, with what each rank has in its place."""
    for lines in itertools.zip_longest(*said, fillvalue="no parameter"):
        if len(set(lines)) > 1:
            by_line: dict[str, list[str]] = {}
            for rank, line in zip(ranks, lines, strict=True):
                by_line.setdefault(line, []).append(str(rank))
            told = "; ".join(f"{line} on rank {', '.join(where)}" for line, where in by_line.items())
            return ValueError(f"Muon: the processes disagree, and nothing has changed: {told}")
    return ValueError("Muon: the processes disagree about their parameters, and nothing has changed")


def name_lost_ranks(group: Any, communicate: Callable[[], T]) -> T:
    """The result of a communication; if it fails, an error that names the ranks that have ended or do not answer."""
    try:
        return communicate()
    except RuntimeError as error:
        silent = _silent_ranks(group)
        if not silent:
            raise
        names = ", ".join(map(str, silent))
        raise RuntimeError(
            f"Muon: rank {names} of the ranks {distributed.get_process_group_ranks(group)} has ended or does not answer "
            f"({error}); the parameters may be in the middle of a step: start again from the last checkpoint"
        ) from error


def _silent_ranks(group: Any) -> list[int]:
    """The ranks that say nothing in the store that all processes share, where every process that lost a connection says so."""
    ranks, me = distributed.get_process_group_ranks(group), distributed.get_rank()
    c10d = distributed.distributed_c10d
    store = c10d.PrefixStore(f"matsign/lost/{next(_losses)}", c10d._get_default_store())
    try:
        store.set(str(me), "alive")
    except RuntimeError:  # a store ends with the process that holds it, rank 0 as a rule
        return [rank for rank in ranks if rank == 0]
    if distributed.get_backend(group) == "gloo":
        _close_connections(group, [rank for rank in ranks if rank != me])
    try:
        store.wait([str(rank) for rank in ranks], PATIENCE)
    except RuntimeError:
        return [rank for rank in ranks if rank != me and not _has(store, rank)]
    return []


def _close_connections(group: Any, peers: Sequence[int]) -> None:
    """Make the others see that the group is broken, who may wait for a process that has not ended.

    gloo closes a connection when it times out.
    """
    for rank in peers:
        with contextlib.suppress(RuntimeError):
            work = distributed.irecv(torch.zeros(1), rank, group=group)
            if work is not None:
                work.wait(datetime.timedelta(milliseconds=100))


def _has(store: Any, rank: int) -> bool:
    try:
        return bool(store.check([str(rank)]))
    except RuntimeError:
        return False
