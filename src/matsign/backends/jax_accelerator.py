"""A step in a program for an accelerator: the fast method in XLA, and one call of the host for the members it does not serve.

XLA would compile every method that a solver may turn to. Traced with `Accelerator`, a step follows only those that most members
take; where it turns to another one (`seldom`) or to the host, the members concerned are noted. In the end NumPy solves these
from the start, or they are NaN where the program cannot call it: one that is exported has no Python beside it.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as xp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import mlir

from matsign._typing import Array
from matsign.backends import CODES, jax_host, numpy
from matsign.backends import jax as jax_backend
from matsign.backends.control_flow import first_leaf, tree_map
from matsign.backends.jax_derivatives import Derivative


class Accelerator:
    """The backend `jax` for one trace of one step, which also collects the members that the trace does not serve."""

    def __init__(self) -> None:
        self.xp = _Namespace()
        # One list of masks for each function of a loop or a branch that is being traced.
        self._unserved: list[list[Array]] = [[]]
        self._functions: dict[Any, Callable[..., Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(jax_backend, name)

    def unserved(self) -> Array | None:
        """The members that what was traced so far does not serve, or None if it serves all."""
        return functools.reduce(operator.or_, self._unserved[-1]) if self._unserved[-1] else None

    def _mark_unserved(self, mask: Array | None) -> None:
        if mask is not None:
            self._unserved[-1].append(mask)

    def _collect_unserved(self, f: Callable[..., Any], *arrays: Any) -> tuple[Any, Array | None]:
        """What f returns, and the members that it does not serve."""
        self._unserved.append([])
        found = f(*arrays)
        unserved = self.unserved()
        self._unserved.pop()
        return found, unserved

    def on_cpu(self, x: Array) -> bool:
        return False

    def is_traced(self, x: Array) -> bool:
        return True

    def known_finite(self, x: Array) -> bool:
        """What the step is given is; what becomes infinite within it ends in a result that is not."""
        return True

    def eig(self, a: Array) -> tuple[Array, Array]:
        """Always of the host: not every accelerator has it."""
        kind = xp.result_type(a.dtype, xp.complex64)
        values, vectors = _host.bind(a, solve=_eig, results=((a.shape[:-1], kind), (a.shape, kind)))
        return values, vectors

    def host_callback(self, f: Callable[..., Any], like: Any, *arrays: Array) -> Any:
        """Zeros: whoever gets here is not served."""
        self._mark_unserved(xp.ones(len(arrays[0]), bool))
        return tree_map(xp.zeros_like, like)

    def rare_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        self._mark_unserved(mask)
        return no(*arrays)

    def masked_cond(self, mask: Array, yes: Callable[..., Any], no: Callable[..., Any], *arrays: Array) -> Any:
        """Each of the two is traced once: a branch that computes both would repeat the other."""
        other, other_unserved = self._collect_unserved(no, *arrays)

        def both(mask: Array, *arrays: Array) -> Any:
            found, unserved = self._collect_unserved(yes, *arrays)
            unserved = ~mask & mask if unserved is None else unserved & mask
            return self.masked_select(mask, found, other), unserved

        found, unserved = lax.cond(mask.any(), both, lambda mask, *_: (other, mask), mask, *arrays)
        self._mark_unserved(unserved)
        self._mark_unserved(other_unserved)
        return found

    def masked_select(self, mask: Array, yes: Any, no: Any) -> Any:
        return tree_map(lambda x, y: y if x is y else _where(mask, x, y), yes, no)

    def loop(self, step: Callable[[Any], Any], state: Any, limit: int) -> Any:
        """As in `jax`, and what a step passes on as it is stays out of the freezing."""

        def alive(carry: Any) -> Any:
            k, _, active, _ = carry
            return lax.bitwise_and(k < limit, active.any())

        def body(carry: Any) -> Any:
            k, old, active, unserved_before = carry
            (new, still), unserved = self._collect_unserved(step, old)
            return (
                k + 1,
                self.masked_select(active, new, old),
                active & still,
                unserved_before if unserved is None else unserved_before | (unserved & active),
            )

        all_members = xp.ones(len(first_leaf(state)), bool)
        _, found, _, unserved_before = lax.while_loop(alive, body, (0, state, all_members, ~all_members))
        self._mark_unserved(unserved_before)
        return found

    def fold_rows(self, rows: Any, f: Callable[..., Any], state: Any) -> Any:
        table = np.array(list(rows), first_leaf(state).real.dtype)
        return lax.scan(lambda x, row: (f(x, *row), None), state, table)[0] if len(table) else state

    def bind(self, bound: Any, *arrays: Array) -> tuple[Array, ...]:
        """A step within the step: its members without an answer have none here either."""
        key = (id(bound.operation), bound.given, bound.options)
        found: tuple[Array, ...] = self._shared(key, lambda *xs: bound(self, *xs), *arrays)
        self._mark_unserved(found[-CODES] > 0)
        return found

    def shared_function(self, f: Callable[..., Any], backend: Any, *arrays: Any, **options: Any) -> Any:
        return self._shared((f, *sorted(options.items())), functools.partial(f, self, **options), *arrays)

    def _shared(self, key: Any, f: Callable[..., Any], *arrays: Any) -> Any:
        """A call of f, written by the first of all calls with this key."""
        if key not in self._functions:
            self._functions[key] = jax.jit(functools.partial(self._collect_unserved, f))
        found, unserved = self._functions[key](*arrays)
        self._mark_unserved(unserved)
        return found

    # Each of these is a function that a program calls: their lines stand there once.
    def eye(self, n: int, like: Array) -> Array:
        return _eye(n, like.dtype.name)

    def exponent(self, x: Array) -> Array:
        return _exponent(x)

    def ldexp(self, x: Array, e: Array) -> Array:
        shape = xp.broadcast_shapes(x.shape, e.shape)
        return _ldexp(xp.broadcast_to(x, shape), xp.broadcast_to(e, shape))

    exact_ldexp = ldexp

    def largest(self, x: Array) -> Array:
        return _largest(x)

    def norm(self, x: Array) -> Array:
        return _norm(x)

    cholesky = staticmethod(functools.partial(xp.linalg.cholesky, symmetrize_input=False))

    def log_determinant(self, a: Array) -> Array:
        factors, _, _ = lax.linalg.lu(a)
        return xp.log(xp.abs(xp.diagonal(factors, axis1=-2, axis2=-1))).sum(-1)


_norm = jax.jit(jax_backend.norm)
_largest = jax.jit(lambda x: xp.max(xp.abs(x), axis=(-1, -2)))


def _bits(x: Array) -> tuple[Any, int, int]:
    """The integers that hold the bits of a float, how many of those are its fraction's, and the exponent of 1 in them."""
    return (xp.int32, 23, 127) if x.real.dtype == xp.float32 else (xp.int64, 52, 1023)


@jax.jit
def _exponent(x: Array) -> Array:
    """Of no denormal number."""
    kind, fraction, one = _bits(x)
    e = (lax.bitcast_convert_type(xp.abs(x), kind) >> fraction).astype(xp.int32)
    return lax.select(x == 0, xp.zeros_like(e), e - (one - 1))


@jax.jit
def _ldexp(x: Array, e: Array) -> Array:
    """NaN where the factor is no number of the dtype: such a member is one for the host."""
    kind, fraction, one = _bits(x)
    bits = (e.astype(kind) + one) << xp.full(e.shape, fraction, kind)
    factor = lax.bitcast_convert_type(bits, x.real.dtype)
    return x * lax.select(xp.abs(e) < one, factor, xp.full(e.shape, xp.nan, factor.dtype))


class _Namespace:
    """`jax.numpy` with a `where` in place, not as a function for each combination of shapes, and a short `hypot`."""

    def __getattr__(self, name: str) -> Any:
        return getattr(xp, name)

    def hypot(self, x: Array, y: Array) -> Array:
        return xp.sqrt(x * x + y * y)

    def where(self, mask: Array, yes: Any, no: Any) -> Array:
        dtype = xp.result_type(yes, no)
        shape = xp.broadcast_shapes(mask.shape, xp.shape(yes), xp.shape(no))
        return lax.select(*(xp.broadcast_to(x, shape) for x in (mask, xp.asarray(yes, dtype), xp.asarray(no, dtype))))


def _where(mask: Array, yes: Array, no: Array) -> Array:
    return lax.select(lax.broadcast_in_dim(mask, yes.shape, (0,)), yes, no)


_eye = jax.jit(lambda n, kind: xp.eye(n, dtype=kind), static_argnums=(0, 1))


def lowering(ctx: Any, *operands: Any, bound: Any) -> Any:
    """The rule for an accelerator, and for programs that XLA partitions."""
    # Within a step nothing depends on where its members lie: XLA finds out, and a type that says so would want all to agree.
    avals = [jax.core.ShapedArray(x.shape, x.dtype) for x in ctx.avals_in]
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ())):
        return mlir.lower_fun(_trace)(ctx.replace(avals_in=avals), *operands, bound=bound)


def _trace(*arrays: Array, bound: Any) -> tuple[Array, ...]:
    if bound.fixed:
        # Products for every member: no host takes those with denormal numbers.
        return tuple(bound(jax_backend, *arrays))
    backend, unknown = Accelerator(), ~_finite(arrays)
    found = tuple(bound(backend, *(_where(unknown, _identity_like(x), x) for x in arrays)))
    values = found if isinstance(bound, Derivative) else found[:-CODES]
    unserved = unknown | _holds_denormal(arrays)
    if bound.requires_finite:
        # What comes to nothing is for the host to say.
        unserved = unserved | ~_finite(values)
    if backend.unserved() is not None:
        unserved = unserved | backend.unserved()
    results = tuple((x.shape, x.dtype) for x in found)

    def with_host_results(*arrays: Array) -> tuple[Array, ...]:
        by_host = _host.bind(unserved, *arrays, solve=functools.partial(jax_host.solve_some, bound), results=results)
        return tuple(_where(unserved, x, y) for x, y in zip(by_host, found, strict=True))

    solved: tuple[Array, ...] = lax.cond(unserved.any(), with_host_results, lambda *_: found, *arrays)
    return solved


def _entries(arrays: tuple[Array, ...]) -> Array:
    """All floating-point numbers of each member."""
    floats = [x for x in arrays if xp.issubdtype(x.dtype, xp.inexact)]
    parts = [y for x in floats for y in ((x.real, x.imag) if xp.iscomplexobj(x) else (x,))]
    return xp.concat([x.reshape(len(x), -1) for x in parts], axis=1)


def _finite(arrays: tuple[Array, ...]) -> Array:
    return xp.isfinite(_entries(arrays)).all(-1)


def _holds_denormal(arrays: tuple[Array, ...]) -> Array:
    """Which members do: much here takes such numbers for zero."""
    entries = _entries(arrays)
    kind, fraction, _ = _bits(entries)
    bits = lax.bitcast_convert_type(xp.abs(entries), kind)
    return ((bits > 0) & (bits < 1 << fraction)).any(-1)


def _identity_like(x: Array) -> Array:
    """The identity, or ones, for members that no factorisation should see."""
    if x.ndim < 3:
        return xp.ones_like(x)
    n, m = x.shape[1:]
    return xp.broadcast_to(_eye(max(n, m), x.dtype.name)[:n, :m], x.shape)


def _eig(results: Any, arrays: Any) -> list[Any]:
    return [x.astype(like.dtype) for x, like in zip(numpy.eig(np.asarray(arrays[0])), results, strict=True)]


# A function of the host, where a program has one beside it.
_host = Primitive("matsign_host")
_host.multiple_results = True


@_host.def_abstract_eval
def _abstract(*arrays: Any, solve: Any, results: Any) -> list[Any]:
    return [jax.core.ShapedArray(*x) for x in results]


def _lower_host(ctx: Any, *operands: Any, solve: Any, results: Any) -> Any:
    if jax_host.reachable(ctx.module_context):
        return jax_host.call_on_host(ctx, operands, solve)
    return mlir.lower_fun(_all_failed)(ctx, *operands, results=results)


def _all_failed(*operands: Array, results: Any) -> list[Array]:
    """NaN, and codes that are not 0."""
    return [xp.full(shape, xp.nan if xp.issubdtype(dtype, xp.inexact) else 1, dtype) for shape, dtype in results]


mlir.register_lowering(_host, _lower_host, cacheable=False)
