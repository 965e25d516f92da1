"""What a case is, and how the answers of two libraries are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.groups import EXTENTS
from bench.peers import Peer

Arguments = tuple[Any, ...]
Size = tuple[int, ...]
# Of our answer, theirs and the arguments: a distance, and the largest one that is accepted.
Check = Callable[[Any, Any, Arguments], tuple[float, float]]


@dataclass(frozen=True)
class Case:
    """`ours` and `theirs` get the arguments that `setup(rng, *size)` makes.

    `call` names what `theirs` calls. `theirs` may return a list, one answer for each matrix of a batch.
    """

    name: str
    peer: Peer
    call: str
    setup: Callable[..., Arguments]
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    sizes: dict[str, tuple[Size, ...]]
    check: Check
    distance: str = "relative difference of the answers"
    size_name: Callable[..., str] = lambda *size: f"n = {size[0]}" if len(size) == 1 else " × ".join(map(str, size))


@dataclass(frozen=True)
class Task:
    """A case in one size."""

    group: str
    case: Case
    size: Size

    @property
    def key(self) -> str:
        return "/".join((self.group, self.case.name, self.case.peer.name, self.case.call, self.size_name))

    @property
    def size_name(self) -> str:
        return self.case.size_name(*self.size)


def tasks_of(group: str, cases: list[Case], extent: str) -> list[Task]:
    chosen = EXTENTS[: EXTENTS.index(extent) + 1]
    return [Task(group, case, size) for case in cases for name in chosen for size in case.sizes.get(name, ())]


def agree(limit: float) -> Check:
    """The answers differ by at most this, relative to theirs in the Frobenius norm, in every matrix of every result."""
    return lambda ours, theirs, arguments: (difference(ours, theirs), limit)


def nearer(truth: Callable[..., Any]) -> Check:
    """Where both answers are approximations: in the 2-norm, ours is at least as near to the exact answer as theirs."""

    def check(ours: Any, theirs: Any, arguments: Arguments) -> tuple[float, float]:
        exact = truth(*arguments)
        return difference(ours, exact, order=2), difference(theirs, exact, order=2)

    return check


def difference(ours: Any, theirs: Any, order: int | None = None) -> float:
    """The largest relative difference of two matrices, in the norm of this order; infinite for NaN and other shapes."""
    mine, other = results(ours), results(theirs)
    if [x.shape for x in mine] != [x.shape for x in other]:
        return float("inf")
    return max((_difference(x, y, order) for x, y in zip(mine, other, strict=True)), default=0.0)


def _difference(ours: np.ndarray, theirs: np.ndarray, order: int | None) -> float:
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return float("inf")
    gap, size = (np.linalg.norm(x, order, axis=(-2, -1)) for x in (ours - theirs, theirs))
    return float((gap / np.maximum(size, np.finfo(float).tiny)).max(initial=0.0))


def results(answer: Any) -> list[np.ndarray]:
    """The arrays of an answer in double precision; a list has one answer for each member of a batch."""
    if isinstance(answer, list):
        members = [results(x) for x in answer]
        return [np.stack(x) for x in zip(*members, strict=True)]
    if isinstance(answer, tuple):
        return [x for part in answer for x in results(part)]
    if hasattr(answer, "detach"):
        answer = answer.detach().double().numpy()
    array = np.atleast_2d(np.asarray(answer))
    return [array.astype(np.complex128 if array.dtype.kind == "c" else np.float64)]
