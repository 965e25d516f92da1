"""The momenta of optimisers in JAX: their dtypes, what fits them, and how a gradient enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax  # noqa: TID251
import jax.numpy as jnp  # noqa: TID251

from matsign._typing import Array
from matsign.core.options import real_number, short_repr
from matsign.core.validation import HALVES, KINDS
from matsign.optim.jax_leaves import leaf_name

Tree = Any


def mixing(momentum: float | jax.Array) -> Callable[[Array, Array], Array]:
    """μ m + (1 - μ) g as a function of m and g, in the wider of their dtypes."""

    def mix(m: Array, g: Array) -> Array:
        return momentum * jnp.asarray(m, jnp.promote_types(m.dtype, g.dtype)) + (1 - momentum) * g

    return mix


def check_momentum(momentum: Any) -> None:
    """A ValueError for a number out of range; a traced number has no value and is not checked."""
    if isinstance(momentum, jax.core.Tracer):
        return
    number = momentum.item() if isinstance(momentum, jax.Array) and momentum.size == 1 else momentum
    if not 0 <= real_number(number) < 1:
        raise ValueError(f"momentum must be in [0, 1), got {short_repr(momentum)}")


def check_gradient(path: Any, g: Array, m: Array) -> None:
    """A ValueError for a gradient that does not fit its momentum."""
    if jnp.shape(g) != jnp.shape(m) or (jnp.iscomplexobj(g) and not jnp.iscomplexobj(m)):
        raise ValueError(
            f"the gradient of {leaf_name(path)} has shape {jnp.shape(g)} and dtype {jnp.result_type(g)}, and its momentum "
            f"has shape {jnp.shape(m)} and dtype {jnp.result_type(m)}"
        )


def check_dtypes(params: Tree, dtype: Any) -> None:
    """A ValueError for a leaf that has no momentum, or none in the dtype for momenta."""
    for path, w in jax.tree_util.tree_flatten_with_path(params)[0]:
        if not jnp.issubdtype(jnp.result_type(w), jnp.inexact):
            raise ValueError(
                f"{leaf_name(path)} has dtype {jnp.result_type(w)}; expected real or complex floating point"
            )
        if dtype is not None and jnp.iscomplexobj(w) != jnp.issubdtype(dtype, jnp.complexfloating):
            raise ValueError(
                f"{leaf_name(path)} has dtype {jnp.result_type(w)}, which has no momentum in momentum_dtype={dtype}"
            )


def kept_dtype(given: Any) -> Any:
    """The dtype that momenta are kept in; None if it is that of the parameters."""
    if given is None:
        return None
    try:
        dtype = jax.dtypes.canonicalize_dtype(given)
    except TypeError:
        dtype = None
    if dtype is None or dtype.name not in (*KINDS, *HALVES):
        raise ValueError(f"momentum_dtype must be one of {', '.join((*KINDS, *HALVES))}, got {short_repr(given)}")
    return dtype
