"""Steps in programs that JAX compiles for a CPU: one call of the NumPy implementation with the whole batch.

XLA would compile every branch of a solver and has no good LAPACK for small matrices. The call has NumPy's bits and NumPy's
speed, and compiles in no time. It is chosen at lowering, when the platform is known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from jax.interpreters import mlir

from matsign.backends import load
from matsign.backends.lapack import processors

Array = Any

_WORKERS = 2 * processors()


def _started_pool() -> ThreadPoolExecutor:
    """A pool all of whose threads run already.

    XLA's threads take denormal numbers for zero, and a thread inherits that from the one that starts it: these are started
    by the thread that imports this module.
    """
    pool = ThreadPoolExecutor(_WORKERS, "matsign")
    everyone = threading.Barrier(_WORKERS + 1)
    for _ in range(_WORKERS):
        pool.submit(everyone.wait)
    everyone.wait()
    return pool


_pool = _started_pool()


def runs_on_one_device(context: Any) -> bool:
    """Whether the program being lowered sees the whole batch, or is one device's own part of `shard_map`.

    `context` is the axis context of the lowering. In a program that XLA partitions, a call of the host would gather the batch.
    """
    manual = getattr(context, "manual_axes", None)
    if manual is not None:
        return set(manual) == set(context.mesh.axis_names)
    return getattr(context, "num_devices", 2) == 1


def call_on_host(ctx: Any, operands: Any, step: Any) -> Any:
    """The lowering of a step to one call of NumPy.

    Not by `jax.pure_callback`, which turns the operands into JAX's arrays on the way: to wait for those in a thread of XLA's
    never ends when all of its threads do so (two programs at a time on two cores).
    """
    results = ctx.avals_out

    def call(*arrays: Any) -> tuple[Any, ...]:
        return tuple(_pool.submit(_solve, step, results, arrays).result())

    found, _, _ = mlir.emit_python_callback(
        ctx, call, None, list(operands), ctx.avals_in, results, has_side_effect=False, returns_token=False
    )
    return found


def _solve(step: Any, results: Any, arrays: Any) -> list[Any]:
    return [_padded(np.asarray(x), like) for x, like in zip(step(load("numpy"), *arrays), results, strict=True)]


def _padded(x: Any, like: Any) -> Any:
    """x in the shape that the compiled program has reserved: a size that NumPy chooses by value is filled up with zeros."""
    if x.shape == like.shape:
        return x.astype(like.dtype, copy=False)
    out = np.zeros(like.shape, like.dtype)
    out[tuple(slice(k) for k in x.shape)] = x
    return out


def lowering(xla: Callable[..., Any]) -> Callable[..., Any]:
    """The rule for a CPU: a call of NumPy for what iterates, `xla` for fixed products and in programs that XLA partitions."""

    def lower(ctx: Any, *operands: Any, step: Any) -> Any:
        if step.fixed or not runs_on_one_device(ctx.module_context.axis_context):
            return xla(ctx, *operands, step=step)
        return call_on_host(ctx, operands, replace(step, batch=None))

    return lower
