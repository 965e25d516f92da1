"""Steps in programs that JAX compiles for a CPU: one call of the NumPy implementation with the whole batch.

XLA would compile every branch of a solver and has no good LAPACK for small matrices. The call has NumPy's bits and NumPy's
speed, and compiles in no time. It is chosen at lowering, when the platform is known.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

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


def call_on_host(step: Any, results: Any, *arrays: Array) -> list[Array]:
    """The step by NumPy, as one operation of a traced program."""

    def call(*arrays: Any) -> list[Any]:
        # The matrices arrive as arrays of JAX, whose buffers NumPy reads where they are.
        return _pool.submit(_solve, step, results, [np.asarray(x) for x in arrays]).result()

    return list(jax.pure_callback(call, results, *arrays, vmap_method="sequential"))


def _solve(step: Any, results: Any, arrays: list[Any]) -> list[Any]:
    return [_padded(np.asarray(x), like) for x, like in zip(step(load("numpy"), *arrays), results, strict=True)]


def _padded(x: Any, like: Any) -> Any:
    """x in the shape that the compiled program has reserved: a size that NumPy chooses by value is filled up with zeros."""
    if x.shape == like.shape:
        return x.astype(like.dtype, copy=False)
    out = np.zeros(like.shape, like.dtype)
    out[tuple(slice(k) for k in x.shape)] = x
    return out


def lowering(xla: Callable[..., Any], host: Callable[..., Any]) -> Callable[..., Any]:
    """The rule for a CPU, of two rules: `host` for what iterates, `xla` for fixed products and for several devices."""

    def lower(ctx: Any, *arrays: Any, step: Any) -> Any:
        alone = runs_on_one_device(ctx.module_context.axis_context)
        return (host if alone and not step.fixed else xla)(ctx, *arrays, step=step)

    return lower
