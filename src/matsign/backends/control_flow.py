"""Loops and branches for arrays with values (NumPy, torch), computed only for the members that need them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


def tree_map(f: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """Apply `f` to the leaves of nested tuples; named tuples keep their type, and None stays None."""
    if tree is None:
        return None
    if not isinstance(tree, tuple):
        return f(tree, *rest)
    parts = [tree_map(f, *part) for part in zip(tree, *rest, strict=True)]
    return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)


def first_leaf(tree: Any) -> Any:
    """The first array of nested tuples."""
    while isinstance(tree, tuple):
        tree = tree[0]
    return tree


def loop(step: Callable[[Any], Any], holder: list[Any], limit: int, all_members: Any) -> Any:
    """Iterate on a shrinking stack: members that have converged are removed from it.

    `all_members` is the index array 0 .. B-1. The state comes in the list `holder`, which is emptied, and each step gets the only
    reference to its state, so that arrays the step deletes are freed at once.
    """
    out, index = None, all_members
    state, single = holder.pop(), len(all_members) == 1
    for _ in range(limit):
        holder.append(state)
        del state
        state, active = step(holder.pop())
        if single:
            if active[0]:
                continue
            return state
        if active.all():
            continue
        if out is None:
            if not active.any():
                return state
            out = tree_map(lambda x: x[all_members], state)
        else:
            _write(out, state, index)
        index = index[active]
        state = _take(state, active)
        if len(index) == 0:
            return out
    if out is None:
        return state
    _write(out, state, index)
    return out


def fold_rows(rows: Iterable[tuple[float, ...]], f: Callable[..., Any], state: Any) -> Any:
    """``state = f(state, *row)`` for each row."""
    for row in rows:
        state = f(state, *row)
    return state


def scan(xp: Any, f: Callable[..., Any], state: Any, rows: Any, reverse: bool) -> tuple[Any, Any]:
    """``state, out = f(state, row)`` for each row; the last state and the stacked out."""
    order, each = range(len(first_leaf(rows))), []
    for k in reversed(order) if reverse else order:
        state, out = f(state, tree_map(lambda x, k=k: x[k], rows))
        each.append(out)
    if reverse:
        each.reverse()
    return state, tree_map(lambda *parts: xp.stack(parts), *each)


def shared_function(f: Callable[..., Any], backend: Any, *arrays: Any, **options: Any) -> Any:
    """``f(backend, *arrays, **options)``."""
    return f(backend, *arrays, **options)


def sum_over_rows(f: Callable[..., Any], backend: Any, x: Any, shift: float) -> Any:
    """``f(backend, x, shift)``."""
    return f(backend, x, shift)


def first(x: Any, _: Any) -> Any:
    return x


def second(_: Any, y: Any) -> Any:
    return y


def both(mask: Any, yes: Any, no: Any, where: Callable[..., Any]) -> Any:
    """The tree `yes` for the members in `mask`, `no` for the others."""
    return tree_map(lambda x, y: where(mask.reshape(mask.shape + (1,) * (x.ndim - 1)), x, y), yes, no)


def unrolled_loop(step: Callable[[Any], Any], state: Any, limit: int, where: Callable[..., Any]) -> Any:
    """All `limit` steps for all members, unrolled; a member that has converged keeps its state."""
    active = None
    for _ in range(limit):
        new, still = step(state)
        state = new if active is None else both(active, new, state, where)
        active = still if active is None else active & still
    return state


def masked_cond(mask: Any, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Any) -> Any:
    """``yes`` for the members in `mask`, ``no`` for the others, neither for an empty stack."""
    if len(mask) == 1:
        return (yes if mask[0] else no)(*arrays)
    if not mask.any():
        return no(*arrays)
    if mask.all():
        return yes(*arrays)
    a, b = yes(*_take(arrays, mask)), no(*_take(arrays, ~mask))
    place_a, place_b = (mask.cumsum(0) - 1).clip(0), ((~mask).cumsum(0) - 1).clip(0)

    def merge(x: Any, y: Any) -> Any:
        merged = y[place_b]
        merged[mask] = x[place_a[mask]]
        return merged

    return tree_map(merge, a, b)


def _take(tree: Any, mask: Any) -> Any:
    return tree_map(lambda x: x[mask], tree)


def _write(out: Any, state: Any, index: Any) -> None:
    def write(whole: Any, part: Any) -> None:
        whole[index] = part

    tree_map(write, out, state)
