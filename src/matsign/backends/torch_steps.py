"""A step of the engine as one function of torch's autograd: differentiated by its rule, again and again, and mapped over."""

from __future__ import annotations

from typing import Any

import torch

from matsign.backends import load

Array = torch.Tensor

_CODES = 3  # failure, iterations and detail, whole numbers that do not move


def derived(step: Any, *arrays: Array) -> tuple[Array, ...]:
    return tuple(_Step.apply(step, *arrays))


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(step: Any, *arrays: Array) -> tuple[Array, ...]:
        found = step(load("torch"), *arrays)
        return tuple(x.clone() if any(x is y for y in arrays) else x for x in found)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.step, *arrays = inputs
        ctx.count = len(arrays)
        ctx.mark_non_differentiable(*output[-_CODES:])
        ctx.save_for_backward(*arrays, *output[:-_CODES])

    @staticmethod
    def backward(ctx: Any, *bars: Array) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        arrays, value = saved[: ctx.count], saved[ctx.count :]
        return None, *ctx.step.cotangent(load("torch"), value, arrays, bars[:-_CODES])

    @staticmethod
    def vmap(info: Any, axes: Any, step: Any, *arrays: Array) -> tuple[tuple[Array, ...], tuple[int, ...]]:
        count = info.batch_size

        def merged(x: Array, d: int | None) -> Array:
            x = x.expand(count, *x.shape) if d is None else x.movedim(d, 0)
            return x.reshape(-1, *x.shape[2:])

        found = derived(step.over(count), *(merged(x, d) for x, d in zip(arrays, axes[1:], strict=True)))
        return tuple(x.reshape(count, x.shape[0] // count, *x.shape[1:]) for x in found), (0,) * len(found)
