"""Matrices of which each process has some rows or columns, solved by products alone (`Operation.by_products`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from matsign import backends
from matsign._typing import Arrays
from matsign.core.failures import WITH_BEST_ITERATE
from matsign.core.members import Solution, nan_failed
from matsign.core.operations import BoundOperation
from matsign.core.options import short_repr
from matsign.core.validation import Call


def solve_by_products(
    check: Callable[..., tuple[Call, BoundOperation, Arrays]], division: Any, argument: Any, without_entries: Any
) -> Any:
    """The public value for one argument of which an axis of the matrices is sharded.

    ``check((array,))`` are the checks of a call, for which `without_entries` stands for the argument.
    """
    from matsign.backends import torch_sharded as backend
    from matsign.backends import torch_shards

    call, bound, _ = check((without_entries,))
    name, method = bound.operation.name, dict(bound.options)["method"]
    if method not in ("auto", "polynomial"):
        raise ValueError(
            f"{name}: a matrix sharded along an axis is solved by products alone, method 'auto' or 'polynomial', got "
            f"{short_repr(method)}; pass {argument.name}.full_tensor() for the others"
        )
    options = tuple((key, "polynomial" if key == "method" else value) for key, value in bound.options)
    bound = replace(bound, options=options, batch=None if bound.batch is None else division.local_batch())
    x = torch_shards.from_dtensor(argument, division, call.backend.dtype_name(call.stacks[0]))
    result = Solution.of(backend.solve(bound, _evaluate, x))
    torch = backends.load("torch")
    if bound.raises(torch, result.flat()):
        parts = tuple(torch_shards.local_part(x) for x in result.value)
        bound.raise_failures(torch, result._replace(value=parts).flat())
    value = [torch_shards.to_dtensor(x, division, call.dtype_name, argument) for x in result.value]
    return bound.operation.wrap(torch, *value)


def _evaluate(backend: Any, bound: BoundOperation, x: Any) -> Arrays:
    """The flat tuple of the value and the failures, as `BoundOperation.evaluate` for whole matrices."""
    if 0 in x.shape[1:]:
        evaluated: Arrays = backend.evaluate_empty(bound, x)
        return evaluated
    if len(x) == 0:
        return tuple(y[:0] for y in _evaluate(backend, bound, backend.zero_member(x)))
    solve = bound.operation.by_products
    assert solve is not None
    with backend.full_precision(x):
        bad = backend.nonfinite_members(x)
        if not bad.any():
            bad = None
        else:
            x = backend.xp.where(bad[:, None, None], backend.xp.zeros_like(x), x)
        result = solve(backend, x, **dict(bound.options))
    return nan_failed(backend, result, bad, () if bound.batch is None else WITH_BEST_ITERATE).flat()
