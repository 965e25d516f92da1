"""The backend for matrices of which each process holds some rows or columns: what an iteration by products needs.

Numbers of members are sums or maxima over the processes, the same bits on all of them, so that all take the same branches. A
whole matrix is a tensor, and the functions of this backend on tensors are those of `backends.torch`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch

from matsign.backends import CODES, control_flow
from matsign.backends import torch as whole
from matsign.backends.torch_shards import Group, Shards, entrywise, gather, local_part, shard_like

Array = torch.Tensor
name = "torch"


def _each_part(f: Callable[..., Any], *xs: Any) -> Any:
    """f entry by entry if one of these is sharded, else f of tensors."""
    return entrywise(f, *xs) if any(isinstance(x, Shards) for x in xs) else f(*xs)


class Namespace:
    """The functions of the array API that take shards; the others are those of tensors."""

    def __getattr__(self, name: str) -> Any:
        return getattr(whole.xp, name)

    def where(self, mask: Any, x: Any, y: Any) -> Any:
        return _each_part(whole.xp.where, mask, x, y)

    def isfinite(self, x: Any) -> Any:
        return _each_part(torch.isfinite, x)

    def zeros_like(self, x: Any) -> Any:
        return _each_part(torch.zeros_like, x)

    def ones_like(self, x: Any) -> Any:
        return _each_part(torch.ones_like, x)

    def full_like(self, x: Any, value: float) -> Any:
        return _each_part(lambda x: torch.full_like(x, value), x)


xp = Namespace()


def __getattr__(name: str) -> Any:
    return getattr(whole, name)


def norm(x: Any) -> Array:
    if not isinstance(x, Shards):
        return whole.norm(x)
    size = whole.norm(x.local)
    # Squares in double precision neither overflow nor underflow.
    return x.group.sum(size.double().square()).sqrt().to(size.dtype)


def trace(x: Any) -> Array:
    if not isinstance(x, Shards):
        return whole.trace(x)
    return x.group.sum(whole.trace(x.group.part(x.local, -3 - x.axis)))


def largest(x: Any) -> Array:
    if not isinstance(x, Shards):
        return whole.largest(x)
    top = whole.largest(x.local) if x.local[0].numel() else x.local.real.new_zeros(len(x))
    return x.group.max(top)


def evaluate_empty(bound: Any, x: Shards) -> tuple[Any, ...]:
    """The bound operation on a stack without entries."""
    result = bound.evaluate(whole, x.local.new_zeros(x.shape))
    return tuple(Shards.part_of(y, x) if y.ndim == 3 else y for y in result)


def eye(n: int, like: Any) -> Any:
    one = whole.eye(n, like)
    return Shards.part_of(one, like) if isinstance(like, Shards) else one


def on_cpu(x: Any) -> bool:
    # Only products are sharded, whatever is fastest for whole matrices. No step may depend on numbers that each process
    # computes by itself, as an estimate from a whole matrix: its bits may differ on another processor.
    return False if isinstance(x, Shards) else whole.on_cpu(x)


def zero_member(x: Shards) -> Shards:
    """A stack of one matrix of zeros, of the shape of the matrices of x."""
    return x.with_local(x.local.new_zeros((1, *x.local.shape[1:])))


def nonfinite_members(x: Shards) -> Array:
    """The mask (B,) of members with an entry that is not finite in any process."""
    if whole.known_finite(x.local):
        return x.group.max(whole.int_zeros(x.local)) > 0
    return ~xp.isfinite(x).all((-1, -2))


def known_finite(x: Any) -> bool:
    return False if isinstance(x, Shards) else whole.known_finite(x)


def fast_half_dtype(x: Any) -> None:
    return None  # sums over processes are not in half precision


def ldexp(x: Any, e: Array) -> Any:
    return _each_part(whole.ldexp, x, e)


exact_ldexp = ldexp


def resolve_conj(x: Any) -> Any:
    return _each_part(whole.resolve_conj, x)


def stop_gradient(x: Any) -> Any:
    return _each_part(whole.stop_gradient, x)


def addmm(beta: float, x: Any, alpha: float, a: Any, b: Any) -> Any:
    return beta * x + alpha * (a @ b)


def add_diagonal(x: Any, alpha: Array) -> Any:
    if not isinstance(x, Shards):
        return whole.add_diagonal(x, alpha)
    return x + alpha[:, None, None] * eye(x.shape[-1], x)


def hermitian_product(a: Any, b: Any, shift: float = 0.0) -> Any:
    if not isinstance(a, Shards):
        return whole.hermitian_product(a, b, shift)
    product = a @ b
    return add_diagonal(product, torch.full_like(norm(product), shift)) if shift else product


def sum_over_rows(f: Callable[..., Any], backend: Any, x: Any, shift: float) -> Any:
    if not isinstance(x, Shards) or x.axis != -2:
        return f(backend, x, shift)
    product = x.group.sum(f(whole, x.local, 0.0))
    return add_diagonal(product, shift * whole.ones(product)) if shift else product


def loop(step: Callable[[Any], Any], state: Any, limit: int) -> Any:
    """All members take part in every step, and those that are no longer active keep their state."""
    active = None
    for _ in range(limit):
        new, still = step(state)
        state = new if active is None else control_flow.both(active, new, state, xp.where)
        active = still if active is None else active & still
        if not active.any():
            break
    return state


def masked_cond(mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Any) -> Any:
    if not mask.any():
        return no(*arrays)
    if mask.all():
        return yes(*arrays)
    return control_flow.both(mask, yes(*arrays), no(*arrays), xp.where)


rare_cond = masked_cond


def masked_select(mask: Array, yes: Any, no: Any) -> Any:
    return control_flow.both(mask, yes, no, xp.where)


def bind(bound: Any, *arrays: Any) -> tuple[Any, ...]:
    """An operation inside another one. Only products are sharded: for any other operation the matrices are gathered."""
    like = next((x for x in arrays if isinstance(x, Shards)), None)
    result = whole.bind(bound, *(gather(x) for x in arrays))
    if like is None:
        return result
    return tuple(Shards.part_of(x, like) if x.ndim == 3 else x for x in result)


def solve(bound: Any, evaluate: Callable[..., tuple[Any, ...]], x: Shards) -> tuple[Any, ...]:
    """``evaluate(backend, bound, x)``, as one function of autograd with the cotangent of the bound operation."""
    axes: list[tuple[int, int] | None] = []
    results = _AutogradFunction.apply(bound, evaluate, axes, x.with_local(x.local[:0]), x.local)
    return _as_shards(results, axes, x.group)


def _as_shards(xs: Sequence[Array], axes: Sequence[tuple[int, int] | None], group: Group) -> tuple[Any, ...]:
    """The tensors with the axis along which each is sharded, and its size."""
    return tuple(x if at is None else Shards(x, *at, group) for x, at in zip(xs, axes, strict=False))


class _AutogradFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, bound: Any, evaluate: Any, axes: list[Any], like: Shards, local: Array) -> Any:
        result = evaluate(sys.modules[__name__], bound, like.with_local(local))
        axes += [(x.axis, x.size) if isinstance(x, Shards) else None for x in result]
        parts = [local_part(x) for x in result]
        parts = [x.clone() if x is local else x for x in parts]
        ctx.bound, ctx.axes, ctx.like = bound, axes, like
        ctx.mark_non_differentiable(*parts[-CODES:])
        ctx.save_for_backward(local, *parts[:-CODES])
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *cotangents: Array) -> tuple[Any, ...]:
        if torch.is_grad_enabled():
            raise NotImplementedError(
                f"{ctx.bound.operation.name}: for a matrix sharded along an axis there are first derivatives only; call backward "
                "without create_graph, or pass its full_tensor()"
            )
        local, *parts = ctx.saved_tensors
        if 0 in ctx.like.shape[1:]:
            return None, None, None, None, torch.zeros_like(local)
        x, group = ctx.like.with_local(local), ctx.like.group
        value, bars = _as_shards(parts, ctx.axes, group), _as_shards(cotangents[:-CODES], ctx.axes, group)
        (bar,) = ctx.bound.cotangent(sys.modules[__name__], value, (x,), bars)
        return None, None, None, None, shard_like(bar, x)
