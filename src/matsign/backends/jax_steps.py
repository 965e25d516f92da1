"""A step of the engine as one primitive of JAX, with rules for all that JAX does to it.

Eagerly it runs on concrete arrays. Compiled, it is lowered through its traced form, or for a CPU to a call of the host (`jax_host`). Under ``vmap`` it takes the new axis into its
stack. Its tangent is the step's own; a step that is linear in its last array is transposed by transposing the others.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as xp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from matsign.backends import jax_host, load

Array = Any

_CODES = 3  # failure, iterations and detail, which have no derivatives
_step = Primitive("matsign")
_step.multiple_results = True


def derived(step: Any, *arrays: Array) -> tuple[Array, ...]:
    return tuple(_step.bind(*arrays, step=step))


@_step.def_impl
def _run(*arrays: Array, step: Any) -> list[Array]:
    return list(step(load("jax"), *arrays))


@_step.def_abstract_eval
def _abstract(*arrays: Any, step: Any) -> list[Any]:
    found = jax.eval_shape(
        lambda *xs: step(load("jax"), *xs), *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays)
    )
    return [jax.core.ShapedArray(x.shape, x.dtype) for x in found]


def _host(*arrays: Array, step: Any) -> list[Array]:
    results = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in _abstract(*arrays, step=step)]
    return jax_host.call_on_host(replace(step, batch=None), results, *arrays)


_xla_lowering = mlir.lower_fun(_run, multiple_results=True)
mlir.register_lowering(_step, _xla_lowering)
mlir.register_lowering(
    _step, jax_host.lowering(_xla_lowering, mlir.lower_fun(_host, multiple_results=True)), platform="cpu"
)


def _batch(arrays: Any, axes: Any, *, step: Any) -> tuple[list[Array], list[int]]:
    count = next(x.shape[d] for x, d in zip(arrays, axes, strict=True) if d is not None)

    def merged(x: Array, d: Any) -> Array:
        x = xp.broadcast_to(x, (count, *x.shape)) if d is None else xp.moveaxis(x, d, 0)
        return x.reshape((count * x.shape[1], *x.shape[2:]))

    found = derived(step.over(count), *(merged(x, d) for x, d in zip(arrays, axes, strict=True)))
    return [x.reshape((count, x.shape[0] // count, *x.shape[1:])) for x in found], [0] * len(found)


batching.primitive_batchers[_step] = _batch


def _jvp(arrays: Any, moves: Any, *, step: Any) -> tuple[tuple[Array, ...], list[Any]]:
    found = derived(step, *arrays)
    value = found[:-_CODES]
    moved = step.tangent(load("jax"), value, arrays, tuple(ad.instantiate_zeros(x) for x in moves))
    still = [ad.Zero(jax.typeof(x).to_tangent_aval()) for x in found[-_CODES:]]
    return found, [*(m.astype(x.dtype) for m, x in zip(moved, value, strict=True)), *still]


ad.primitive_jvps[_step] = _jvp


def _transpose(bars: Any, *arrays: Array, step: Any) -> list[Any]:
    *others, q = arrays
    assert step.rule.linear, step.rule.name
    assert ad.is_undefined_primal(q), "only the last array of a linear step has a transpose"
    bar = ad.instantiate_zeros(bars[0])
    return [*(None for _ in others), derived(step, *(x.mT for x in others), bar)[0]]


ad.primitive_transposes[_step] = _transpose
