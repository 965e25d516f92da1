"""A bound operation as one function of torch's autograd, with its cotangent as backward pass, to any order, and with vmap."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd import forward_ad

from matsign.backends import CODES, load

Array = torch.Tensor


def bind(bound: Any, *arrays: Array) -> tuple[Array, ...]:
    if torch.compiler.is_compiling():
        # Value-dependent operations cause a graph break. torch.compile does not support an autograd function within the backward
        # of another one.
        if not bound.unrolls:
            return _bind_uncompiled(bound, *arrays)
        if not torch.is_grad_enabled():
            return tuple(bound(load("torch"), *arrays))
    elif _needs_no_autograd(arrays):
        return _AutogradFunction.forward(bound, *arrays)
    return tuple(_AutogradFunction.apply(bound, *arrays))


def _needs_no_autograd(arrays: tuple[Array, ...]) -> bool:
    """Whether no derivative and no vmap is active: an autograd function takes longer than a small matrix."""
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return False
    return not (torch.is_grad_enabled() and any([x.requires_grad for x in arrays]))


@torch.compiler.disable
def _bind_uncompiled(bound: Any, *arrays: Array) -> tuple[Array, ...]:
    return tuple(_AutogradFunction.apply(bound, *arrays))


_NUMPY_DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def _runs_in_numpy(bound: Any, arrays: tuple[Array, ...]) -> bool:
    """Whether NumPy computes the operation: on a CPU its LAPACK calls and small products are several times as fast as PyTorch's.

    PyTorch computes a fixed sequence of products.
    """
    first = arrays[0]
    return (
        first.device.type == "cpu"
        and first.dtype in _NUMPY_DTYPES
        and not bound.unrolls
        and not load("torch").is_traced(first)
    )


def _call_numpy(bound: Any, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
    plain = [x.detach().resolve_conj().resolve_neg().numpy() for x in arrays]
    result = bound.evaluate(load("numpy"), *plain)
    out = tuple([_tensor(x, plain) for x in result])
    if bound.raises(load("numpy"), result):
        bound.raise_failures(load("torch"), out)
    return out


# Cotangents of a stack with fewer members, or of members with more entries, are a few products, which PyTorch computes as fast.
_MANY_MEMBERS, _FEW_ENTRIES = 256, 256


def _has_small_members(stacks: tuple[Array, ...]) -> bool:
    first = stacks[0]
    return len(first) >= _MANY_MEMBERS and first.numel() <= _FEW_ENTRIES * len(first)


def _numpy_cotangent(bound: Any, *parts: tuple[Array, ...]) -> tuple[Array, ...]:
    """The cotangent by NumPy in chunks, for no graph: each of PyTorch's operations would pass through the whole stack."""
    plain = [tuple([x.detach().resolve_conj().resolve_neg().numpy() for x in part]) for part in parts]
    inputs = [x for part in plain for x in part]
    return tuple([_tensor(x, inputs) for x in bound.cotangent_by_chunks(load("numpy"), *plain)])


def _tensor(x: Any, inputs: list[Any]) -> Array:
    """A NumPy array as a tensor that shares no memory with `inputs`."""
    if not x.flags.c_contiguous or not x.flags.writeable or any([np.may_share_memory(x, y) for y in inputs]):
        x = np.array(x, order="C")
    return torch.from_numpy(x)


class _AutogradFunction(torch.autograd.Function):
    @staticmethod
    def forward(bound: Any, *arrays: Array) -> tuple[Array, ...]:
        if _runs_in_numpy(bound, arrays):
            return _call_numpy(bound, arrays)
        result = bound(load("torch"), *arrays)
        return tuple(x.clone() if any(x is y for y in arrays) else x for x in result)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        # One statement each, which torch.compile can trace.
        ctx.bound = inputs[0]
        ctx.count = len(inputs) - 1
        ctx.mark_non_differentiable(*output[-CODES:])
        ctx.save_for_backward(*inputs[1:], *output[:-CODES])

    @staticmethod
    def backward(ctx: Any, *cotangents: Array) -> tuple[Any, ...]:
        bound, count, saved = ctx.bound, ctx.count, ctx.saved_tensors
        parts = saved[count:], saved[:count], cotangents[:-CODES]
        if not torch.is_grad_enabled() and _has_small_members(saved) and _runs_in_numpy(bound, saved):
            return None, *_numpy_cotangent(bound, *parts)
        return None, *bound.cotangent(load("torch"), *parts)

    @staticmethod
    def vmap(info: Any, axes: Any, bound: Any, *arrays: Array) -> tuple[tuple[Array, ...], tuple[int, ...]]:
        count = info.batch_size

        def merge(x: Array, d: int | None) -> Array:
            x = x.expand(count, *x.shape) if d is None else x.movedim(d, 0)
            return x.reshape(count * x.shape[1], *x.shape[2:])

        result = bind(bound.with_leading_axis(count), *(merge(x, d) for x, d in zip(arrays, axes[1:], strict=True)))
        return tuple(x.reshape(count, x.shape[0] // count, *x.shape[1:]) for x in result), (0,) * len(result)
